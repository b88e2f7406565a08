//! Messages with listeners beside them. They pass as descriptors, so that the kernel's queues behind them, with the
//! clients in them, belong to both sides and are lost when the last one closes.

use std::{
    fs::File,
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
};

use lb_sys::handover;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

use super::control;

/// A message, and what came with it.
#[derive(Debug)]
pub struct Handed<T> {
    /// The message.
    pub message: T,
    /// What came beside it. Without any from whoever knows nothing of this.
    pub listeners: Vec<TcpListener>,
    /// The process that sent it, as the kernel says.
    pub sender: Option<i32>,
}

/// Sends `message`, and copies of `listeners` beside it. Whoever reads the bytes alone gets the message all the same.
///
/// # Errors
/// When the other side is gone, or the message cannot be written down.
pub async fn send<T: Serialize>(
    to: &UnixStream,
    message: &T,
    listeners: &[&TcpListener],
) -> io::Result<()> {
    let bytes = control::encode(message)?;
    let mut bytes = &bytes[..];
    let mut groups = listeners.chunks(handover::MOST).peekable();
    while !bytes.is_empty() {
        let group: Vec<_> = groups
            .next()
            .unwrap_or_default()
            .iter()
            .map(|listener| listener.as_fd())
            .collect();
        // Each group needs a byte to go with.
        let piece = if groups.peek().is_some() {
            &bytes[..1]
        } else {
            bytes
        };
        let sent = to
            .async_io(Interest::WRITABLE, || {
                handover::send(to.as_fd(), piece, &group)
            })
            .await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Waits for one message, and takes what comes beside it; `None` when the other side has closed. Nothing of what
/// follows is read.
///
/// # Errors
/// When the connection breaks, or what comes is no such message.
pub async fn receive<T: DeserializeOwned>(from: &UnixStream) -> io::Result<Option<Handed<T>>> {
    let mut beside = Vec::new();
    let mut sender = None;
    let mut length = [0; 4];
    if !fill(from, &mut length, &mut beside, &mut sender).await? {
        return Ok(None);
    }
    let length = u32::from_be_bytes(length);
    if length > LIMIT {
        let message = format!("a first message of {length} bytes is longer than any should be");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut body = vec![0; length as usize];
    if !fill(from, &mut body, &mut beside, &mut sender).await? {
        return Ok(None);
    }
    Ok(Some(Handed {
        message: serde_json::from_slice(&body)?,
        listeners: beside.into_iter().map(TcpListener::from).collect(),
        sender,
    }))
}

/// Sends a copy of `file`, beside a byte that says nothing.
///
/// # Errors
/// When the other side is gone.
pub async fn send_file(to: &UnixStream, file: &File) -> io::Result<()> {
    let send = || handover::send(to.as_fd(), &[0], &[file.as_fd()]);
    to.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Waits for what [`send_file`] sends; `None` when the other side has closed.
///
/// # Errors
/// When the connection breaks, or there is no file.
pub async fn receive_file(from: &UnixStream) -> io::Result<Option<File>> {
    let mut beside = Vec::new();
    if !fill(from, &mut [0], &mut beside, &mut None).await? {
        return Ok(None);
    }
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "a file is missing");
    Ok(Some(beside.pop().ok_or_else(missing)?.into()))
}

/// Whether `buffer` was filled before the stream ended.
async fn fill(
    from: &UnixStream,
    mut buffer: &mut [u8],
    beside: &mut Vec<OwnedFd>,
    sender: &mut Option<i32>,
) -> io::Result<bool> {
    while !buffer.is_empty() {
        let received = from
            .async_io(Interest::READABLE, || {
                handover::receive(from.as_fd(), buffer)
            })
            .await?;
        if received.length == 0 {
            return Ok(false);
        }
        beside.extend(received.descriptors);
        if beside.len() > MOST {
            let message = "a message came with more listeners than anybody has";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        *sender = received.sender.or(*sender);
        buffer = &mut buffer[received.length..];
    }
    Ok(true)
}

/// Far above what a hello may say.
const LIMIT: u32 = 1024 * 1024;
/// Far above how many listeners a front has.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_message_arrives_with_its_listeners_and_nothing_after_it_is_taken() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // More than one message can carry.
        let listeners: Vec<_> = (0..300).map(|_| listener.try_clone().unwrap()).collect();
        let all: Vec<_> = listeners.iter().collect();
        send(&here, &"hello", &all).await.unwrap();
        control::send(&mut { here }, &"next").await.unwrap();
        let first = receive::<String>(&there).await.unwrap().unwrap();
        assert_eq!(
            (first.message.as_str(), first.listeners.len()),
            ("hello", 300)
        );
        let address = listener.local_addr().unwrap();
        for received in first.listeners {
            assert_eq!(received.local_addr().unwrap(), address);
        }
        let next: Option<String> = control::receive(&mut there).await.unwrap();
        assert_eq!(next.as_deref(), Some("next"));
    }

    #[tokio::test]
    async fn who_reads_bytes_alone_gets_the_message_and_who_sends_them_alone_has_no_listener() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        send(&here, &"hello", &[&listener]).await.unwrap();
        let read: Option<String> = control::receive(&mut there).await.unwrap();
        assert_eq!(read.as_deref(), Some("hello"));
        control::send(&mut there, &"plain").await.unwrap();
        let plain = receive::<String>(&here).await.unwrap().unwrap();
        assert_eq!(
            (plain.message.as_str(), plain.listeners.len()),
            ("plain", 0)
        );
        there.write_all(&[0, 0, 0, 9, b'"']).await.unwrap();
        drop(there);
        assert!(receive::<String>(&here).await.unwrap().is_none());
        here.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_file_arrives_between_messages() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        control::send(&mut here, &"before").await.unwrap();
        send_file(&here, &OwnedFd::from(write).into())
            .await
            .unwrap();
        control::send(&mut here, &"after").await.unwrap();
        let before: Option<String> = control::receive(&mut there).await.unwrap();
        let mut file = receive_file(&there).await.unwrap().unwrap();
        let after: Option<String> = control::receive(&mut there).await.unwrap();
        assert_eq!(
            (before.as_deref(), after.as_deref()),
            (Some("before"), Some("after"))
        );
        io::Write::write_all(&mut file, b"it").unwrap();
        drop(file);
        let mut text = String::new();
        io::Read::read_to_string(&mut read, &mut text).unwrap();
        assert_eq!(text, "it");
        here.write_all(b"x").await.unwrap();
        assert!(receive_file(&there).await.is_err());
        drop(here);
        assert!(receive_file(&there).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_absurd_length_is_refused_before_memory_is_taken() {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(&[0xff; 8]).await.unwrap();
        assert!(receive::<String>(&here).await.is_err());
    }
}
