//! A backend in a namespace of its own, which can be made to fail.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use lb_testkit::{Netns, Process, Spawn, eventually};
use socket2::{Domain, Socket, Type};

/// The bridge, where agent and clients are.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

pub(super) const PORT: u16 = 8080;

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Room for all that come while the server waits for a core: a full backlog drops connects, which looks like silence.
const BACKLOG: i32 = 4096;

pub(super) struct Server {
    /// What it answers.
    pub(super) number: u8,
    pub(super) address: Ipv4Addr,
    netns: Netns,
    process: Process,
}

impl Server {
    /// Starts three, plugged into the bridge in `host`.
    ///
    /// # Errors
    /// When one does not come up.
    pub(super) fn three(host: &Netns) -> Result<[Self; 3]> {
        Ok([
            Self::start(host, 1)?,
            Self::start(host, 2)?,
            Self::start(host, 3)?,
        ])
    }

    fn start(host: &Netns, number: u8) -> Result<Self> {
        let netns = Netns::new("bench-backend")?;
        let address = address(number);
        let port = format!("lb-backend-{number}");
        host.plug("lb-bridge", &port, &netns, Ipv4Net::new(address, 16)?, HOST)?;
        let process = serve(&netns, number)?;
        let server = Self {
            number,
            address,
            netns,
            process,
        };
        server.await_up(host)?;
        Ok(server)
    }

    pub(super) fn id(&self) -> String {
        id(self.number)
    }

    /// Closes its listener, by its end.
    pub(super) fn close(&mut self) -> Result<()> {
        Ok(self.process.kill()?)
    }

    /// Listens again.
    pub(super) fn open(&mut self, host: &Netns) -> Result<()> {
        self.process = serve(&self.netns, self.number)?;
        self.await_up(host)
    }

    /// Lets nothing out of its namespace any more: what comes in is not answered.
    pub(super) fn fall_silent(&self) -> Result<()> {
        self.netns.ip(&format!("route add blackhole {HOST}/32\n"))?;
        Ok(())
    }

    /// Answers again.
    pub(super) fn speak(&self) -> Result<()> {
        self.netns.ip(&format!("route del blackhole {HOST}/32\n"))?;
        Ok(())
    }

    fn await_up(&self, host: &Netns) -> Result<()> {
        let address = SocketAddr::from((self.address, PORT));
        host.enter(|| eventually(PATIENCE, || TcpStream::connect(address)).map(drop))?
            .with_context(|| format!("the backend on {address} does not come up"))
    }
}

pub(super) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

pub(super) fn id(number: u8) -> String {
    format!("web-{number}")
}

fn serve(netns: &Netns, number: u8) -> Result<Process> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let process = Spawn::new("backend", program)
        .args(["answer", &number.to_string()])
        .netns(netns)
        .start()?;
    Ok(process)
}

/// The server, in a process of its own: every connection is told its number, and closed.
///
/// # Errors
/// When its address is taken.
pub(crate) fn answer(number: u8) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // It comes back while connections of its predecessor still linger.
    socket.set_reuse_address(true)?;
    let address = SocketAddr::from((address(number), PORT));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    loop {
        // A client that is gone is not the server's fault.
        if let Ok((stream, _)) = socket.accept() {
            drop(TcpStream::from(stream).write_all(&[number]));
        }
    }
}
