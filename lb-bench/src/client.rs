//! The clients: loops that do one thing for a while and answer how fast it went.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use crate::server::{CHUNK, Message};

/// Addresses that take turns.
pub(crate) struct Turns<'a> {
    addresses: &'a [SocketAddr],
    turn: usize,
}

impl<'a> Turns<'a> {
    /// Starts with the address that `turn` falls on. `addresses` is not empty.
    pub(crate) fn new(addresses: &'a [SocketAddr], turn: usize) -> Self {
        Self { addresses, turn }
    }

    pub(crate) fn next(&mut self) -> SocketAddr {
        self.turn += 1;
        self.addresses[self.turn % self.addresses.len()]
    }
}

/// One connection of a [`crate::server::Kind::Short`] server, whole.
pub(crate) fn visit(address: SocketAddr) -> io::Result<()> {
    finish(TcpStream::connect(address)?)
}

/// A message, its answer, and the close.
///
/// The server closes first, so it is on its side that the port waits: the client's would run out within seconds.
/// And waiting for the answer keeps the backlog from overflowing, which would stall a connect for a second.
pub(crate) fn finish(mut stream: TcpStream) -> io::Result<()> {
    exchange(&mut stream)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("the server said more than it was asked")),
    }
}

/// Connect, request, close: connections per second.
pub(crate) fn visits(targets: &mut Turns<'_>, slice: Duration) -> io::Result<f64> {
    repeat(slice, || visit(targets.next()))
}

/// Requests per second on one connection.
pub(crate) fn exchanges(stream: &mut TcpStream, slice: Duration) -> io::Result<f64> {
    repeat(slice, || exchange(stream))
}

/// Bytes per second on one connection, the last of them taken by the server.
pub(crate) fn sending(stream: &mut TcpStream, slice: Duration) -> io::Result<f64> {
    let bytes = repeat(slice, || send_chunk(stream))? * CHUNK as f64;
    Ok(bytes)
}

/// Sends as much as the server takes before it answers, and waits for the answer.
pub(crate) fn send_chunk(stream: &mut TcpStream) -> io::Result<()> {
    static PIECE: [u8; 256 << 10] = [0; 256 << 10];
    for _ in 0..CHUNK / PIECE.len() {
        stream.write_all(&PIECE)?;
    }
    stream.read_exact(&mut [0])
}

/// A message and its answer.
pub(crate) fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut message: Message = [7; 64];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}

/// A socket for datagrams to IPv4 addresses, which waits for an answer as long as [`Asker`] lets it.
pub(crate) fn datagram_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWERED_WITHIN))?;
    Ok(socket)
}

/// Who sends datagrams and waits for the answers.
#[derive(Clone, Copy)]
pub(crate) enum Asker {
    /// A socket that is connected to its server.
    Connected,
    /// One that says with each datagram where it goes, and asks of each answer where it comes from.
    Unconnected(SocketAddr),
}

impl Asker {
    /// A message and its answer. UDP may lose one: it is sent again, which costs the slice its rate.
    pub(crate) fn ask(self, socket: &UdpSocket) -> io::Result<()> {
        let mut message: Message = [7; 64];
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let answered = match self {
                Self::Connected => {
                    socket.send(&message)?;
                    socket.recv(&mut message).map(drop)
                }
                Self::Unconnected(server) => {
                    socket.send_to(&message, server)?;
                    match socket.recv_from(&mut message) {
                        Ok((_, sender)) if sender != server => Err(io::Error::other(format!(
                            "{server} was asked, and {sender} answers"
                        ))),
                        received => received.map(drop),
                    }
                }
            };
            match answered {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => outcome = Err(error),
                other => return other,
            }
        }
        outcome
    }

    /// Requests per second.
    pub(crate) fn asking(self, socket: &UdpSocket, slice: Duration) -> io::Result<f64> {
        repeat(slice, || self.ask(socket))
    }
}

/// How long an answer to a datagram may take before it counts as lost.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// How often a datagram is sent before nobody answers.
const ATTEMPTS: usize = 10;

/// How often `action` fits into a second.
fn repeat(slice: Duration, mut action: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let start = Instant::now();
    let mut times = 0_u32;
    loop {
        action()?;
        times += 1;
        let elapsed = start.elapsed();
        if elapsed >= slice {
            return Ok(f64::from(times) / elapsed.as_secs_f64());
        }
    }
}
