//! The servers: threads of one process that do nothing but answer. They end when the process is killed.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

/// Where sockets belong: the hooks see the first place only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The cgroup that the hooks are attached to.
    Hooked,
    /// The cgroup beside it.
    Bare,
}

impl Place {
    pub(crate) const BOTH: [Self; 2] = [Self::Hooked, Self::Bare];
}

/// How servers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// As between two containers: veth, bridge, veth.
    Bridge,
    /// Within one namespace: nothing is cheaper, so nothing shows the hooks more.
    Loopback,
}

impl Network {
    pub(crate) const BOTH: [Self; 2] = [Self::Bridge, Self::Loopback];
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One message, one answer, and it closes: one connection after the other.
    Short,
    /// An answer for every message.
    Echo,
    /// One byte for every [`CHUNK`] bytes.
    Sink,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Echo, Self::Sink];

    fn port(self) -> u16 {
        match self {
            Self::Short => 7001,
            Self::Echo => 7002,
            Self::Sink => 7003,
        }
    }
}

/// The message and the answer of [`Kind::Short`] and [`Kind::Echo`].
pub(crate) type Message = [u8; 64];

/// Bytes that [`Kind::Sink`] takes before it answers.
pub(crate) const CHUNK: usize = 4 << 20;

/// The addresses of the two servers of this kind whose sockets belong to `place`.
pub(crate) fn backends(network: Network, kind: Kind, place: Place) -> [SocketAddrV4; 2] {
    [2, 3].map(|host| {
        let address = match network {
            Network::Bridge => Ipv4Addr::new(10, 76, place as u8, host),
            Network::Loopback => Ipv4Addr::new(127, 0, place as u8, host),
        };
        SocketAddrV4::new(address, kind.port())
    })
}

/// Runs all servers of one network. The process starts in the hooked cgroup and moves to the one in the folder
/// `bare`: a socket belongs to where its listener was opened.
///
/// # Errors
/// When an address is taken, or the cgroup refuses the process.
pub(crate) fn run(network: Network, bare: &Path) -> Result<()> {
    let mut listeners = Vec::new();
    for place in Place::BOTH {
        if place == Place::Bare {
            fs::write(bare.join("cgroup.procs"), "0")
                .with_context(|| format!("cannot move to the cgroup {}", bare.display()))?;
        }
        for kind in Kind::ALL {
            for address in backends(network, kind, place) {
                let listener = TcpListener::bind(address)
                    .with_context(|| format!("cannot listen on {address}"))?;
                listeners.push((kind, listener));
            }
        }
    }
    thread::scope(|scope| {
        for (kind, listener) in &listeners {
            scope.spawn(move || serve(*kind, listener));
        }
    });
    Ok(())
}

fn serve(kind: Kind, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // A client that goes away in the middle of a message is not the server's fault.
        match kind {
            Kind::Short => drop(short(stream)),
            Kind::Echo => drop(thread::spawn(move || echo(stream))),
            Kind::Sink => drop(thread::spawn(move || sink(stream))),
        }
    }
}

fn short(mut stream: TcpStream) -> std::io::Result<()> {
    let mut message: Message = [0; 64];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut message: Message = [0; 64];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

fn sink(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut taken = 0;
    loop {
        let wanted = buffer.len().min(CHUNK - taken);
        let read = stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Ok(());
        }
        taken += read;
        if taken == CHUNK {
            stream.write_all(&[1])?;
            taken = 0;
        }
    }
}
