//! A client that means harm, in a process of its own on a host whose others must not notice.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

/// How long it waits for anything.
const WAITS: Duration = Duration::from_millis(300);
/// Half heads that it holds at once.
const HELD: usize = 50;

/// Does harm until it is ended.
///
/// # Errors
/// Never: what fails is tried again.
pub fn run(vips: &[Ipv4Addr], front: SocketAddr) -> Result<()> {
    thread::scope(|scope| {
        for vip in vips {
            scope.spawn(move || again(|| abandon((*vip, 80).into())));
            scope.spawn(move || again(|| reset((*vip, 80).into())));
        }
        scope.spawn(move || again(|| nonsense(front)));
        scope.spawn(move || again(|| reset(front)));
        scope.spawn(move || hold_halves(front));
    });
    Ok(())
}

fn again(mut harm: impl FnMut() -> std::io::Result<()>) {
    loop {
        // Whether it was let in does not matter to it.
        drop(harm());
        // Its pace; it would else have a core for itself.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Begins a connect and leaves before it is answered, which must make nobody suspect a backend for others.
fn abandon(vip: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // It is under way: that is no error to us.
    drop(socket.connect(&vip.into()));
    Ok(())
}

/// Connects, says something and resets.
fn reset(to: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), WAITS)?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET / HT")
}

/// What is no HTTP, or means two things.
fn nonsense(front: SocketAddr) -> std::io::Result<()> {
    const HEADS: [&str; 4] = [
        "\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: www.hello.localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: www.hello.localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ];
    for head in HEADS {
        let mut stream = TcpStream::connect_timeout(&front, WAITS)?;
        stream.set_read_timeout(Some(WAITS))?;
        stream.write_all(head.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        drop(stream.read_to_end(&mut Vec::new()));
    }
    Ok(())
}

/// Keeps connections open with half a head each, a byte more now and then.
fn hold_halves(front: SocketAddr) {
    let mut held = Vec::new();
    loop {
        if held.len() < HELD {
            let half = TcpStream::connect_timeout(&front, WAITS);
            held.extend(half.and_then(|mut it| it.write_all(b"GET / HTTP/1.1\r\nX-").map(|()| it)));
        }
        held.retain_mut(|it| it.write_all(b"a").is_ok());
        thread::sleep(Duration::from_millis(20));
    }
}
