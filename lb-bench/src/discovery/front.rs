//! What the front does, seen from outside: whether a request reaches the one instance that answers.

use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_testkit::Netns;

use super::consul::{PORT, name};

/// Where it listens.
pub(super) const FRONT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8081);

/// Answers at every address of the namespace as long as this process lives: each request with 200 on a connection that
/// ends with it.
///
/// # Errors
/// When it cannot listen.
pub(super) fn answer(netns: &Netns) -> Result<()> {
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = netns
        .enter(listen)?
        .context("cannot answer for instances")?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that breaks off asks again.
            let _ = stream.and_then(|stream| answer_one(&stream));
        }
    });
    Ok(())
}

fn answer_one(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream);
    while !read_line(&mut lines)?.is_empty() {}
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}

/// A client of the front, with one connection for all it asks.
#[derive(Default)]
pub(super) struct Client {
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Whether requests to a service reach an instance that answers; `None` if the front did not say.
    pub(super) fn reaches(&mut self, service: usize) -> Option<bool> {
        let asked = self.ask(service);
        if asked.is_err() {
            self.connection = None;
        }
        Some(asked.ok()? == "200")
    }

    /// The status of an answer.
    fn ask(&mut self, service: usize) -> io::Result<String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let stream = TcpStream::connect(FRONT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                none.insert(BufReader::new(stream))
            }
        };
        let host = name(service);
        let request = format!("GET / HTTP/1.1\r\nHost: {host}.localhost\r\n\r\n");
        connection.get_mut().write_all(request.as_bytes())?;
        let status = read_line(connection)?;
        let status = status.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let line = read_line(connection)?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        io::copy(&mut connection.take(length), &mut io::sink())?;
        Ok(status)
    }
}

/// A line without its end; the end of the stream is none.
fn read_line(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

const PATIENCE: Duration = Duration::from_secs(5);
