//! Clients that show every byte, and how a message is read.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::PATIENCE;

/// A client's connection.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    pub(super) buffer: Vec<u8>,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::within(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// Over whatever it is.
    pub(crate) fn within(stream: S) -> Self {
        let buffer = Vec::new();
        Self { stream, buffer }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // The front may close before everything is out; what it answered says more.
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let body = read_body(&mut self.stream, &mut self.buffer, &head);
        let body = body.unwrap_or_else(|| self.rest());
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
            body: String::from_utf8_lossy(&body).into_owned(),
            head,
        }
    }

    /// The head alone, where no body follows.
    #[track_caller]
    pub(crate) fn head(&mut self) -> String {
        let head = read_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n");
        let head = head.unwrap_or_else(|| {
            panic!("no answer, but {:?}", String::from_utf8_lossy(&self.buffer))
        });
        String::from_utf8(head).unwrap()
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.stream
            .read_to_end(&mut rest)
            .expect("the end of the stream, not a reset");
        rest
    }

    /// Exactly these many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(
                read_more(&mut self.stream, &mut self.buffer),
                "the stream ended"
            );
        }
        self.buffer.drain(..length).collect()
    }
}

fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    let read = stream.read(&mut piece).unwrap_or(0);
    buffer.extend_from_slice(&piece[..read]);
    read > 0
}

pub(super) fn read_until(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        read_more(stream, buffer).then_some(())?;
    }
}

/// `None`: it ends with the connection, or there is none.
pub(super) fn read_body(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    head: &str,
) -> Option<Vec<u8>> {
    if field(head, "transfer-encoding").is_some() {
        let trailers = field(head, "trailer").is_some();
        let end: &[u8] = if trailers { b"\r\n\r\n" } else { b"0\r\n\r\n" };
        return read_until(stream, buffer, end);
    }
    let length: usize = field(head, "content-length")?.parse().unwrap();
    while buffer.len() < length {
        read_more(stream, buffer).then_some(())?;
    }
    Some(buffer.drain(..length).collect())
}

pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}
