//! Backends over HTTP/2 that die, refuse or leave at each point of a request, frame by frame.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use lb_front::{Limits, Reason};
use socket2::SockRef;

use crate::{
    kit::{GET, TestFront, eventually, refusing},
    kit_h2::{H2Backend, front},
};

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";

/// What a connection does instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Ends before it says that it speaks HTTP/2.
    Handshake,
    /// Ends with a request before it.
    Request,
    /// Leaves, having seen nothing of the last request.
    GoAwayUnseen,
    /// Leaves, having seen it, and ends.
    GoAwaySeen,
    Refused,
    Reset,
    /// In the middle of the answer's head.
    Head,
    /// Between head and body.
    Answered,
    /// In the middle of a frame of the body.
    Body,
    /// Between two of them.
    BetweenFrames,
    /// Something that is not HTTP/2.
    Nonsense,
}

const DEATHS: [Death; 11] = [
    Death::Handshake,
    Death::Request,
    Death::GoAwayUnseen,
    Death::GoAwaySeen,
    Death::Refused,
    Death::Reset,
    Death::Head,
    Death::Answered,
    Death::Body,
    Death::BetweenFrames,
    Death::Nonsense,
];

impl Death {
    /// Its last words on the stream `id`.
    fn words(self, id: u32) -> Vec<u8> {
        let head = frame(HEADERS, END_HEADERS, id, &[STATUS_200]);
        match self {
            Self::Handshake | Self::Request => Vec::new(),
            // NO_ERROR, and up to which stream there will be answers.
            Self::GoAwayUnseen => goaway(id.saturating_sub(2)),
            Self::GoAwaySeen => goaway(id),
            Self::Refused => frame(RST_STREAM, 0, id, &7_u32.to_be_bytes()),
            Self::Reset => frame(RST_STREAM, 0, id, &2_u32.to_be_bytes()),
            Self::Head => head[..9].to_vec(),
            Self::Answered => head,
            Self::Body => {
                let body = frame(DATA, 0, id, b"half of it");
                [&head, &body[..13]].concat()
            }
            Self::BetweenFrames => [head, frame(DATA, 0, id, b"half")].concat(),
            Self::Nonsense => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    }

    /// Whether the client has seen a 200 by then.
    fn is_in_body(self) -> bool {
        matches!(self, Self::Answered | Self::Body | Self::BetweenFrames)
    }

    /// Whether the connection goes on.
    fn stays(self) -> bool {
        matches!(self, Self::Refused | Self::Reset)
    }

    /// Whether nobody can have looked at the request, and the backend itself says so.
    fn is_unseen(self) -> bool {
        matches!(self, Self::Handshake | Self::GoAwayUnseen | Self::Refused)
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn goaway(last: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, &payload)
}

/// A backend whose first connection answers `before` requests and then dies; all others live.
struct Dying {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Dying {
    fn start(before: usize, death: Death, reset: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dying = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let (requests, connections) = (dying.requests.clone(), dying.connections.clone());
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                connections.fetch_add(1, Ordering::Relaxed);
                let requests = requests.clone();
                let death = (connection == 0).then_some((before, death, reset));
                thread::spawn(move || live(stream.unwrap(), death, &requests));
            }
        });
        dying
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Speaks HTTP/2 until its death, or until the front has enough.
fn live(
    mut stream: TcpStream,
    death: Option<(usize, Death, bool)>,
    requests: &AtomicUsize,
) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    if let Some((0, Death::Handshake, reset)) = death {
        return die(&stream, reset);
    }
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    let mut answered = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        stream.read_exact(&mut vec![0; length as usize]).ok()?;
        let (kind, flags) = (head[3], head[4]);
        if kind == SETTINGS && flags & ACK == 0 {
            stream.write_all(&frame(SETTINGS, ACK, 0, &[])).ok()?;
        }
        if kind == HEADERS {
            requests.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(kind, DATA | HEADERS) || flags & END_STREAM == 0 {
            continue;
        }
        match death {
            Some((before, death, reset)) if answered == before => {
                let words = death.words(id);
                stream.write_all(&words).ok()?;
                answered += 1;
                if death.stays() {
                    continue;
                }
                // A reset overtakes what the peer has not read: its last words must have arrived before.
                if reset && !words.is_empty() {
                    thread::sleep(Duration::from_millis(50));
                }
                return die(&stream, reset);
            }
            _ => {
                let answer = [
                    frame(HEADERS, END_HEADERS, id, &[STATUS_200]),
                    frame(DATA, END_STREAM, id, b"alive"),
                ];
                stream.write_all(&answer.concat()).ok()?;
                answered += 1;
            }
        }
    }
}

fn die(stream: &TcpStream, reset: bool) -> Option<()> {
    if reset {
        let socket = SockRef::from(stream);
        socket.set_linger(Some(Duration::ZERO)).ok()
    } else {
        stream.shutdown(Shutdown::Write).ok()
    }
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Status(u16),
    Cut,
}

fn ask(front: &TestFront, request: &str) -> End {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let all = front.client().send(request).rest();
    let all = String::from_utf8(all).unwrap();
    let status = all.split(' ').nth(1).map(|status| status.parse().unwrap());
    match status {
        Some(200) if all.ends_with("\r\n5\r\nalive\r\n0\r\n\r\n") => End::Status(200),
        None | Some(200) => End::Cut,
        Some(status) => End::Status(status),
    }
}

#[test]
fn a_backend_may_die_at_any_point_and_only_what_is_harmless_is_repeated() {
    for death in DEATHS {
        for reset in [false, true] {
            for before in [0, 1] {
                for request in [GET, POST] {
                    check(death, reset, before, request);
                }
            }
        }
    }
}

fn check(death: Death, reset: bool, before: usize, request: &str) {
    let case = (death, reset, before, &request[..4]);
    if death == Death::Handshake && before > 0 {
        return;
    }
    let dying = Dying::start(before, death, reset);
    let front = front(Limits::default(), &[dying.address]);
    for _ in 0..before {
        assert_eq!(ask(&front, GET), End::Status(200));
    }
    // It says itself that it has not looked, on a connection that has served: another one is good. Without a word
    // there is only what has no effect.
    let stale = before == 1;
    let repeats = stale
        && match death {
            Death::GoAwayUnseen => true,
            Death::Request => request == GET,
            _ => false,
        };
    let (end, reason) = match death {
        _ if repeats => (End::Status(200), Reason::Ok),
        _ if death.is_in_body() => (End::Cut, Reason::ResponseTruncated),
        Death::Nonsense => (End::Status(502), Reason::ResponseInvalid),
        Death::Handshake => (End::Status(502), Reason::ResponseInvalid),
        _ => (End::Status(502), Reason::BackendReset),
    };
    assert_eq!(ask(&front, request), end, "{case:?}");
    let first = usize::from(death != Death::Handshake);
    let seen = before + first + usize::from(repeats);
    assert_eq!(dying.requests(), seen, "{case:?}");
    let ended = u64::try_from(before).unwrap() * u64::from(reason == Reason::Ok) + 1;
    eventually("it is counted", || {
        (front.stats().ended(reason) == ended).then_some(())
    });
    assert_eq!(front.stats().retries, u64::from(repeats), "{case:?}");
    // Nothing of the dead connection is left, and the next request finds a living one.
    assert_eq!(ask(&front, POST), End::Status(200), "{case:?}");
    eventually("only the living one is open", || {
        (front.stats().backends[0].open == 1).then_some(())
    });
}

#[test]
fn what_was_not_seen_goes_to_another_backend_with_its_body() {
    for death in DEATHS.into_iter().filter(|death| death.is_unseen()) {
        let dying = Dying::start(0, death, false);
        let living = H2Backend::named("alive");
        let front = front(Limits::default(), &[dying.address, living.address]);
        let answer = front.ask(POST);
        assert_eq!(answer.status, 200, "{death:?}");
        let seen = living.seen();
        assert_eq!(seen[0].headers()["content-length"], "3");
        assert_eq!(front.stats().retries, 1, "{death:?}");
        let failures: Vec<_> = front
            .stats()
            .backends
            .iter()
            .map(|it| it.failures)
            .collect();
        assert_eq!(failures.iter().sum::<u64>(), 1);
    }
}

#[test]
fn a_refused_connect_costs_another_attempt_and_no_request() {
    let living = H2Backend::named("alive");
    let front = front(Limits::default(), &[refusing(), living.address]);
    for _ in 0..4 {
        assert_eq!(front.ask(POST).status, 200);
    }
    assert_eq!(front.stats().ended(Reason::Ok), 4);
}

#[test]
fn requests_that_wait_for_one_connection_fail_with_it() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = Limits {
        connect: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = front(limits, &[silent.local_addr().unwrap()]);
    let mut clients: Vec<_> = (0..5).map(|_| front.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 504);
    }
    assert_eq!(front.stats().ended(Reason::ConnectTimeout), 5);
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.incoming().map_while(Result::ok).count(), 1);
}

/// A backend that answers once and then hears nothing more, not even a ping; its later connections live.
fn deaf() -> Dying {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dying = Dying {
        address: listener.local_addr().unwrap(),
        requests: Arc::default(),
        connections: Arc::default(),
    };
    let (requests, connections) = (dying.requests.clone(), dying.connections.clone());
    thread::spawn(move || {
        let mut first = None;
        for stream in listener.incoming() {
            connections.fetch_add(1, Ordering::Relaxed);
            let mut stream = stream.unwrap();
            if first.is_none() {
                let hello = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])];
                stream.write_all(&hello.concat()).unwrap();
                first = Some(stream);
                continue;
            }
            let requests = requests.clone();
            thread::spawn(move || live(stream, None, &requests));
        }
    });
    dying
}

#[test]
fn a_backend_that_is_gone_without_a_word_is_noticed() {
    let deaf = deaf();
    let limits = Limits {
        backend_silence: Duration::from_millis(200),
        ..Limits::default()
    };
    let front = front(limits, &[deaf.address]);
    // Long before the time for an answer is over.
    assert_eq!(ask(&front, POST), End::Status(502));
    assert_eq!(front.stats().ended(Reason::BackendReset), 1);
    assert_eq!(ask(&front, POST), End::Status(200));
    assert_eq!(deaf.connections.load(Ordering::Relaxed), 2);
}

#[test]
fn a_connection_that_let_one_request_wait_for_too_long_gets_no_other() {
    let deaf = deaf();
    let limits = Limits {
        response_head: Duration::from_millis(200),
        ..Limits::default()
    };
    let front = front(limits, &[deaf.address]);
    assert_eq!(ask(&front, POST), End::Status(504));
    assert_eq!(ask(&front, POST), End::Status(200));
    assert_eq!(deaf.connections.load(Ordering::Relaxed), 2);
}
