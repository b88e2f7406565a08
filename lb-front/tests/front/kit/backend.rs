//! Backends that remember what they saw.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::client::{Client, field, read_body, read_until};

/// One request as a backend saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which of its connections it came on, counted from 0.
    pub(crate) connection: usize,
    pub(crate) head: String,
    /// As it came, chunks and all.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// What a backend does after a request.
pub(crate) enum Reply {
    Keep(Vec<u8>),
    Close(Vec<u8>),
    /// Sends, then echoes whatever comes.
    Echo(Vec<u8>),
    /// Sends, rests for so long, and sends the rest.
    Rest(Vec<u8>, Duration, Vec<u8>),
    /// Sends, then neither sends nor closes.
    Stall(Vec<u8>),
    /// The connection is someone else's, with whatever has come on it already.
    Take(Box<dyn FnOnce(Client) + Send>),
}

/// A backend that remembers what it saw.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Open connections.
    open: Arc<Mutex<usize>>,
}

impl Backend {
    pub(crate) fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_after(|_, _| {}, reply)
    }

    /// What stands before the first request of a connection is for `first`.
    pub(crate) fn start_after(
        first: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            open: Arc::default(),
        };
        let (shared, reply) = (backend.clone(), Arc::new((first, reply)));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (shared, reply) = (shared.clone(), reply.clone());
                *shared.open.lock().unwrap() += 1;
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    reply.0(connection, &mut stream);
                    shared.serve(&mut stream, connection, &reply.1);
                    *shared.open.lock().unwrap() -= 1;
                });
            }
        });
        backend
    }

    /// Answers everything with its name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::start(move |_| Reply::Keep(ok(name)))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn open(&self) -> usize {
        *self.open.lock().unwrap()
    }

    fn serve(&self, stream: &mut TcpStream, connection: usize, reply: &dyn Fn(&Seen) -> Reply) {
        let mut buffer = Vec::new();
        while let Some(head) = read_until(stream, &mut buffer, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = read_body(stream, &mut buffer, &head).unwrap_or_default();
            let seen = Seen {
                connection,
                head,
                body,
            };
            self.seen.lock().unwrap().push(seen.clone());
            match reply(&seen) {
                Reply::Keep(bytes) => drop(stream.write_all(&bytes)),
                Reply::Close(bytes) => return drop(stream.write_all(&bytes)),
                Reply::Echo(bytes) => {
                    drop(stream.write_all(&bytes));
                    drop(stream.write_all(&buffer));
                    let mut copy = stream.try_clone().unwrap();
                    drop(std::io::copy(stream, &mut copy));
                    return;
                }
                Reply::Rest(bytes, rest, more) => {
                    drop(stream.write_all(&bytes));
                    thread::sleep(rest);
                    drop(stream.write_all(&more));
                }
                Reply::Stall(bytes) => {
                    drop(stream.write_all(&bytes));
                    drop(stream.read(&mut [0]));
                    return;
                }
                Reply::Take(taker) => {
                    let mut client = Client::over(stream.try_clone().unwrap());
                    client.buffer = buffer;
                    return taker(client);
                }
            }
        }
    }
}

/// A whole 200 answer.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An address of its own where nobody listens: the socket that has it is there until the process ends, so that no other test
/// gets it.
pub(crate) fn refusing() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
