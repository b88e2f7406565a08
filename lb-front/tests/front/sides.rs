//! The two ends of one exchange, in HTTP/1.1 or HTTP/2, piece by piece. Each end is driven from wherever its test likes: what waits
//! here blocks a thread, so that the drivers of HTTP/2 have others.

use std::{
    future::poll_fn,
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use hyper::Response;
use lb_front::Settings;

use crate::{
    kit::{Client, PATIENCE, TestFront, eventually, routes},
    kit_h2::{Call, H2Backend, H2Client, get, h2c_routes, post},
};

/// Protocols of an end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    One,
    Two,
}

/// Client and backend.
pub(crate) const PAIRS: [(Protocol, Protocol); 4] = [
    (Protocol::One, Protocol::One),
    (Protocol::Two, Protocol::One),
    (Protocol::One, Protocol::Two),
    (Protocol::Two, Protocol::Two),
];

/// An end.
pub(crate) enum Side {
    /// Its bodies are chunked.
    One(Client),
    Two(SendStream<Bytes>, RecvStream),
}

impl Side {
    /// Sends a piece once there is room for all of it.
    pub(crate) async fn say(&mut self, mut piece: Bytes) {
        match self {
            Self::One(wire) => {
                let head = format!("{:x}\r\n", piece.len());
                wire.send([head.as_bytes(), &piece, b"\r\n"].concat());
            }
            Self::Two(body, _) => {
                while !piece.is_empty() {
                    body.reserve_capacity(piece.len());
                    let room = poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                    let room = room.min(piece.len());
                    body.send_data(piece.split_to(room), false).unwrap();
                }
            }
        }
    }

    pub(crate) async fn end(&mut self) {
        match self {
            Self::One(wire) => drop(wire.send("0\r\n\r\n")),
            Self::Two(body, _) => body.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// The next piece, however much that is; `None` at the end.
    pub(crate) async fn hear(&mut self) -> Option<Bytes> {
        match self {
            Self::One(wire) => chunk(wire),
            Self::Two(_, body) => data(body).await,
        }
    }

    /// Exactly this and nothing beyond.
    pub(crate) async fn hears(&mut self, expected: &str) {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            heard.extend(self.hear().await.expect("more to come"));
        }
        assert_eq!(String::from_utf8(heard).unwrap(), expected);
    }
}

/// The next chunk; `None` at the end.
fn chunk(wire: &mut Client) -> Option<Bytes> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(wire.bytes(1));
    }
    let length = std::str::from_utf8(&line[..line.len() - 2]).unwrap();
    let length = usize::from_str_radix(length, 16).unwrap();
    let mut piece = wire.bytes(length + 2);
    piece.truncate(length);
    (length > 0).then(|| piece.into())
}

/// The same of HTTP/2.
async fn data(body: &mut RecvStream) -> Option<Bytes> {
    loop {
        let piece = body.data().await?.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        if !piece.is_empty() {
            return Some(piece);
        }
    }
}

/// A client that has begun a request.
pub(crate) enum Asking {
    One(Client),
    Two(ResponseFuture, SendStream<Bytes>, H2Client),
}

impl Asking {
    /// With a body to come, or without one.
    pub(crate) async fn begin(front: &TestFront, protocol: Protocol, body: bool) -> Self {
        match protocol {
            Protocol::One => {
                let mut client = front.client();
                client.stream.set_nodelay(true).unwrap();
                client.send(match body {
                    true => "POST /say HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n",
                    false => "GET / HTTP/1.1\r\nHost: web\r\n\r\n",
                });
                Self::One(client)
            }
            Protocol::Two => {
                let client = H2Client::connect(front).await;
                let request = match body {
                    true => post().body(()).unwrap(),
                    false => get(),
                };
                let mut ready = client.requests.clone().ready().await.unwrap();
                let (answer, stream) = ready.send_request(request, !body).unwrap();
                Self::Two(answer, stream, client)
            }
        }
    }

    /// Sends a piece of the request.
    pub(crate) async fn say(&mut self, piece: Bytes) {
        match self {
            Self::One(client) => {
                let head = format!("{:x}\r\n", piece.len());
                client.send([head.as_bytes(), &piece, b"\r\n"].concat());
            }
            Self::Two(_, stream, _) => stream.send_data(piece, false).unwrap(),
        }
    }

    pub(crate) async fn end(&mut self) {
        match self {
            Self::One(client) => drop(client.send("0\r\n\r\n")),
            Self::Two(_, stream, _) => stream.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// Once there is a head. What HTTP/2's connection needs to live is beside it.
    pub(crate) async fn answered(self) -> (Side, Option<H2Client>) {
        match self {
            Self::One(mut client) => {
                let head = client.head();
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                let chunked = "\r\ntransfer-encoding: chunked\r\n";
                assert!(head.to_ascii_lowercase().contains(chunked), "{head}");
                (Side::One(client), None)
            }
            Self::Two(answer, stream, client) => {
                let answer = answer.await.unwrap();
                assert_eq!(answer.status(), 200);
                (Side::Two(stream, answer.into_body()), Some(client))
            }
        }
    }
}

/// Where requests arrive.
pub(crate) enum Origin {
    One(TcpListener),
    Two(H2Backend, Receiver<Call>),
}

impl Origin {
    pub(crate) fn start(protocol: Protocol) -> Self {
        match protocol {
            Protocol::One => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                listener.set_nonblocking(true).unwrap();
                Self::One(listener)
            }
            Protocol::Two => {
                let (take, taken) = channel();
                let backend = H2Backend::start(move |call| {
                    take.send(call).unwrap();
                    std::future::ready(())
                });
                Self::Two(backend, taken)
            }
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::One(listener) => listener.local_addr().unwrap(),
            Self::Two(backend, _) => backend.address,
        }
    }

    /// `web` of `front` is here from now on.
    pub(crate) fn publish(&self, front: &TestFront) {
        let routes = match self {
            Self::One(_) => routes(&[self.address()]),
            Self::Two(..) => h2c_routes(&[self.address()]),
        };
        front.front.publish(&routes, &Settings::default());
    }

    /// The next request, its head alone.
    pub(crate) fn asked(&self) -> Asked {
        match self {
            Self::One(listener) => {
                let (stream, _) = eventually("a connection", || listener.accept().ok());
                let mut wire = Client::over(stream);
                wire.stream.set_nodelay(true).unwrap();
                wire.head();
                Asked::One(wire)
            }
            Self::Two(_, taken) => Asked::Two(Box::new(taken.recv_timeout(PATIENCE).unwrap())),
        }
    }
}

/// A request that a backend has not answered yet.
pub(crate) enum Asked {
    One(Client),
    Two(Box<Call>),
}

impl Asked {
    /// The next piece of its body.
    pub(crate) async fn hear(&mut self) -> Option<Bytes> {
        match self {
            Self::One(wire) => chunk(wire),
            Self::Two(call) => data(call.request.body_mut()).await,
        }
    }

    /// Begins a stream of events.
    pub(crate) fn answer(self) -> Side {
        match self {
            Self::One(mut wire) => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                Side::One(wire)
            }
            Self::Two(mut call) => {
                let head = Response::builder().header("content-type", "text/event-stream");
                let head = head.body(()).unwrap();
                let body = call.answer.send_response(head, false).unwrap();
                Side::Two(body, call.request.into_body())
            }
        }
    }
}
