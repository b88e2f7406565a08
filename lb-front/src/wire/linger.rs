//! The end of a connection, after the last answer.

use std::{io, time::Duration};

use tokio::net::TcpStream;

/// Takes in what a client still sends after the last answer: closing on unread bytes makes the kernel send a
/// reset, which can destroy that answer on its way. Bounded, and then closed regardless.
pub(crate) async fn linger(socket: &TcpStream) {
    let mut left = LINGER_BYTES;
    let mut sink = [0; 4096];
    let drain = async {
        while left > 0 && socket.readable().await.is_ok() {
            match socket.try_read(&mut sink) {
                Ok(0) => break,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    // Late is as good as done.
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
}

pub(crate) const LINGER_BYTES: usize = 64 * 1024;

pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);
