//! The servers: threads of one process that do nothing but answer. They end when the process is killed.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
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
    /// As [`Network::Bridge`], with IPv6 addresses.
    Bridge6,
}

impl Network {
    pub(crate) const ALL: [Self; 3] = [Self::Bridge, Self::Loopback, Self::Bridge6];

    /// The name by which [`run`] is asked for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Loopback => "loopback",
            Self::Bridge6 => "bridge6",
        }
    }
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
    /// A datagram for every datagram.
    Datagram,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Short, Self::Echo, Self::Sink, Self::Datagram];

    fn port(self) -> u16 {
        match self {
            Self::Short => 7001,
            Self::Echo => 7002,
            Self::Sink => 7003,
            Self::Datagram => 7004,
        }
    }
}

/// The message and the answer of every kind but [`Kind::Sink`].
pub(crate) type Message = [u8; 64];

/// Bytes that [`Kind::Sink`] takes before it answers.
pub(crate) const CHUNK: usize = 4 << 20;

/// The addresses of the two servers of this kind whose sockets belong to `place`.
pub(crate) fn backends(network: Network, kind: Kind, place: Place) -> [SocketAddr; 2] {
    [2_u8, 3].map(|host| {
        let address = match network {
            Network::Bridge => Ipv4Addr::new(10, 76, place as u8, host).into(),
            Network::Loopback => Ipv4Addr::new(127, 0, place as u8, host).into(),
            Network::Bridge6 => {
                Ipv6Addr::new(0xfd00, 0x6c62, 0x76, 0, 0, 0, place as u16, host.into()).into()
            }
        };
        SocketAddr::new(address, kind.port())
    })
}

/// Runs all servers of one network. The process starts in the hooked cgroup and moves to the one in the folder
/// `bare`: a socket belongs to where its listener was opened.
///
/// # Errors
/// When an address is taken, or the cgroup refuses the process.
pub(crate) fn run(network: Network, bare: &Path) -> Result<()> {
    let mut listeners = Vec::new();
    let mut sockets = Vec::new();
    for place in Place::BOTH {
        if place == Place::Bare {
            fs::write(bare.join("cgroup.procs"), "0")
                .with_context(|| format!("cannot move to the cgroup {}", bare.display()))?;
        }
        for kind in Kind::ALL {
            for address in backends(network, kind, place) {
                if kind == Kind::Datagram {
                    let socket = UdpSocket::bind(address)
                        .with_context(|| format!("cannot receive on {address}"))?;
                    sockets.push(socket);
                    continue;
                }
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
        for socket in &sockets {
            scope.spawn(move || reply(socket));
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
            // It has a socket, and no listener.
            Kind::Datagram => {}
        }
    }
}

fn reply(socket: &UdpSocket) {
    let mut message: Message = [0; 64];
    loop {
        // A client that is gone makes the next call fail, not the one after it.
        if let Ok((length, client)) = socket.recv_from(&mut message) {
            drop(socket.send_to(&message[..length], client));
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
