//! A backend, in a process of its own: it answers lines and requests with its id, on as many connections as there are.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

/// Room for all that come while the process waits for a core.
const BACKLOG: i32 = 1024;

/// Serves until it is ended.
///
/// # Errors
/// When its address is taken.
pub fn serve(id: &str, listen: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    // It comes back while connections of its predecessor still linger.
    socket.set_reuse_address(true)?;
    socket
        .bind(&listen.into())
        .with_context(|| format!("cannot listen on {listen}"))?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    loop {
        // A client that is gone is not the server's fault.
        if let Ok((stream, _)) = listener.accept() {
            let id = id.to_owned();
            thread::spawn(move || drop(answer(&stream, &id)));
        }
    }
}

/// Serves one connection to its end.
fn answer(mut stream: &TcpStream, id: &str) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let said = if line.starts_with("GET ") {
            while !line.trim().is_empty() {
                line.clear();
                if lines.read_line(&mut line)? == 0 {
                    return Ok(());
                }
            }
            let length = id.len();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{id}")
        } else {
            format!("{id}\n")
        };
        stream.write_all(said.as_bytes())?;
    }
}
