//! WebSocket (RFC 6455) as its two ends speak it: frames, the opening handshake, a client over TCP or TLS, and a backend that
//! says everything again.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lb_front::{Limits, tls::Tls};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::{
    kit::{Backend, Client, PATIENCE, Reply, Seen, TestFront},
    tlskit::{self, certificate, config, try_connect},
};

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;
/// The last frame of its message.
pub(crate) const FIN: u8 = 0x80;

/// RFC 6455 section 5.2, without what cuts and masks it.
#[derive(Clone, PartialEq)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.payload[..self.payload.len().min(32)];
        let start = start.escape_ascii();
        write!(f, "{:#x}:{}:{start}", self.first, self.payload.len())
    }
}

impl Frame {
    pub(crate) fn whole(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        let (first, payload) = (FIN | opcode, payload.into());
        Self { first, payload }
    }

    /// One behind which its message goes on.
    pub(crate) fn part(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        let (first, payload) = (opcode, payload.into());
        Self { first, payload }
    }

    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self::whole(CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// As a backend sends it.
    pub(crate) fn bare(&self) -> Vec<u8> {
        self.bytes(None)
    }

    /// As a client sends it: with a mask that is not the same each time.
    pub(crate) fn masked(&self) -> Vec<u8> {
        let seed = self.payload.len().wrapping_mul(0x9e37_79b9);
        let [.., a, b, c, d] = (seed + usize::from(self.first)).to_be_bytes();
        self.bytes(Some([a, b, c, d]))
    }

    fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let length = self.payload.len();
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        if let Ok(short) = u8::try_from(length)
            && short < 126
        {
            bytes.push(bit | short);
        } else if let Ok(medium) = u16::try_from(length) {
            bytes.push(bit | 126);
            bytes.extend(medium.to_be_bytes());
        } else {
            bytes.push(bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
        bytes.extend(mask.unwrap_or_default().iter().take(4 * mask.iter().len()));
        bytes.extend(unmasked(&self.payload, mask.unwrap_or_default()));
        bytes
    }
}

fn unmasked(payload: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    let masks = mask.into_iter().cycle();
    payload.iter().zip(masks).map(|(byte, mask)| byte ^ mask)
}

/// The next frame, and the bytes that it came in. Only a client masks (section 5.1).
#[track_caller]
fn read<S: Read + Write>(from: &mut Client<S>, masks: bool) -> (Frame, Vec<u8>) {
    let mut bytes = from.bytes(2);
    assert_eq!(bytes[1] & 0x80 != 0, masks, "the mask's bit");
    let more = match bytes[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let long = from.bytes(more);
    let length = match more {
        0 => u64::from(bytes[1] & 0x7f),
        _ => long
            .iter()
            .fold(0, |length, &byte| length << 8 | u64::from(byte)),
    };
    bytes.extend(long);
    let mask = from.bytes(if masks { 4 } else { 0 });
    bytes.extend(&mask);
    let payload = from.bytes(usize::try_from(length).unwrap());
    bytes.extend(&payload);
    let mask = mask.try_into().unwrap_or_default();
    let frame = Frame {
        first: bytes[0],
        payload: unmasked(&payload, mask).collect(),
    };
    (frame, bytes)
}

/// How an end cuts what it sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    Whole,
    /// Byte by byte; a long frame behind its head in uneven pieces.
    Bytes,
}

impl Cut {
    fn send<S: Read + Write>(self, to: &mut Client<S>, bytes: &[u8]) {
        match self {
            Self::Whole => {
                to.send(bytes);
            }
            Self::Bytes => {
                let singly = if bytes.len() < 500 { bytes.len() } else { 20 };
                for byte in &bytes[..singly] {
                    to.send([*byte]);
                }
                for piece in bytes[singly..].chunks(997) {
                    to.send(piece);
                }
            }
        }
    }
}

/// Either transport of a client.
pub(crate) trait Transport: Read + Write + Send {
    /// Says that this side sends nothing more.
    fn end(&mut self);
}

impl Transport for TcpStream {
    fn end(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Transport for tlskit::Stream {
    fn end(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
        self.sock.shutdown(Shutdown::Write).unwrap();
    }
}

pub(crate) type AnyClient = Client<Box<dyn Transport>>;

/// Plain HTTP and TLS.
pub(crate) const TRANSPORTS: [&str; 2] = ["http", "https"];

/// A front with both, whose `web` is on `backends`.
pub(crate) fn front(limits: Limits, backends: &[&Backend]) -> TestFront {
    let front = TestFront::with_tls(limits, backends);
    let tls = Tls {
        certificates: vec![certificate(&["web"])],
        ..Tls::default()
    };
    front.front.present(&tls).unwrap();
    front
}

pub(crate) fn connect(front: &TestFront, transport: &str) -> AnyClient {
    let stream: Box<dyn Transport> = if transport == "https" {
        let stream = try_connect(front.tls(), &config(), "web").unwrap().stream;
        stream.sock.set_nodelay(true).unwrap();
        Box::new(stream)
    } else {
        let stream = front.client().stream;
        stream.set_nodelay(true).unwrap();
        Box::new(stream)
    };
    Client::within(stream)
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A client's opening (section 4.1), with these fields beside its own.
pub(crate) fn opening(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// The answer that agrees to what a backend saw (section 4.2.2).
pub(crate) fn agreement(seen: &Seen, fields: &str) -> String {
    let accept = accept(seen.field("sec-websocket-key").unwrap());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    )
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[test]
fn the_sample_of_the_standard_is_accepted_as_it_says() {
    assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/// A client whose opening was agreed to.
pub(crate) struct Talk {
    pub(crate) client: AnyClient,
    cut: Cut,
}

impl Talk {
    /// A conversation that both sides cut as `cut` says.
    #[track_caller]
    pub(crate) fn open(front: &TestFront, transport: &str, cut: Cut) -> Self {
        let mut client = connect(front, transport);
        let path = format!("/{cut:?}");
        cut.send(&mut client, opening(&path, "").as_bytes());
        agreed(&mut client);
        Self { client, cut }
    }

    pub(crate) fn say(&mut self, frame: &Frame) {
        self.cut.send(&mut self.client, &frame.masked());
    }

    #[track_caller]
    pub(crate) fn hear(&mut self) -> Frame {
        read(&mut self.client, false).0
    }
}

/// Takes an agreement, as a client must judge it (section 4.1), and gives its head.
#[track_caller]
pub(crate) fn agreed<S: Read + Write>(client: &mut Client<S>) -> String {
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let is = |name: &str, value: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let mut fields = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let found = fields.next().map(|(_, value)| value);
        let same = found.is_some_and(|found| match name {
            "sec-websocket-accept" => found == value,
            _ => found.eq_ignore_ascii_case(value),
        });
        assert!(same && fields.next().is_none(), "{name} in {head}");
    };
    is("upgrade", "websocket");
    is("connection", "upgrade");
    is("sec-websocket-accept", &accept(KEY));
    assert!(
        !head.to_ascii_lowercase().contains("\r\ncontent-length"),
        "{head}"
    );
    head
}

/// A backend that says every message again, whole. `LEAVE` as a message has it leave first.
pub(crate) struct Endpoint {
    pub(crate) backend: Backend,
    heard: Receiver<Vec<u8>>,
}

pub(crate) const LEAVE: &str = "leave";
pub(crate) const LEAVING: (u16, &str) = (1001, "going away");

impl Endpoint {
    pub(crate) fn start() -> Self {
        let (tell, heard) = channel();
        let backend = Backend::start(move |seen| {
            let (agreement, tell) = (agreement(seen, ""), tell.clone());
            let bytes = seen.head.starts_with("GET /Bytes");
            let cut = if bytes { Cut::Bytes } else { Cut::Whole };
            Reply::Take(Box::new(move |mut peer| {
                peer.stream.set_nodelay(true).unwrap();
                cut.send(&mut peer, agreement.as_bytes());
                converse(peer, cut, &tell);
            }))
        });
        Self { backend, heard }
    }

    /// Waits for the end of `sent` among what it heard since it was last asked, and checks that it is all of it.
    #[track_caller]
    pub(crate) fn heard(&self, sent: &[u8]) {
        let mut heard = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while heard.len() < sent.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            heard.extend(self.heard.recv_timeout(left).unwrap());
        }
        assert!(heard == sent, "other bytes than those that were sent");
    }
}

/// Until one of the two has left and the other one has agreed (section 5.5.1). The server closes the connection first (7.1.1).
fn converse(mut peer: Client, cut: Cut, tell: &Sender<Vec<u8>>) {
    let mut message: Option<Frame> = None;
    let mut left = false;
    loop {
        let (frame, bytes) = read(&mut peer, true);
        tell.send(bytes).unwrap();
        let mut say = |frame: Frame| cut.send(&mut peer, &frame.bare());
        match frame.first & 0x0f {
            CLOSE => {
                if !left {
                    say(frame);
                }
                return;
            }
            PING => say(Frame::whole(PONG, frame.payload)),
            PONG => {}
            opcode => {
                let mut whole = message.take().unwrap_or(Frame::whole(opcode, []));
                whole.payload.extend(frame.payload);
                if frame.first & FIN == 0 {
                    message = Some(whole);
                } else if whole.payload == LEAVE.as_bytes() {
                    left = true;
                    say(Frame::close(LEAVING.0, LEAVING.1));
                } else {
                    say(whole);
                }
            }
        }
    }
}

/// A backend whose connections are the test's own from the opening on.
pub(crate) struct Raw {
    pub(crate) backend: Backend,
    taken: Receiver<(Seen, Client)>,
}

impl Raw {
    pub(crate) fn start() -> Self {
        let (take, taken) = channel();
        let backend = Backend::start(move |seen| {
            let (take, seen) = (take.clone(), seen.clone());
            Reply::Take(Box::new(move |peer| take.send((seen, peer)).unwrap()))
        });
        Self { backend, taken }
    }

    /// The next opening, and who sent it.
    #[track_caller]
    pub(crate) fn taken(&self) -> (Seen, Client) {
        self.taken.recv_timeout(PATIENCE).unwrap()
    }

    /// Both ends after an agreement.
    #[track_caller]
    pub(crate) fn pair(&self, front: &TestFront, transport: &str) -> (AnyClient, Client) {
        let mut client = connect(front, transport);
        client.send(opening("/", ""));
        let (seen, mut peer) = self.taken();
        peer.send(agreement(&seen, ""));
        agreed(&mut client);
        (client, peer)
    }
}
