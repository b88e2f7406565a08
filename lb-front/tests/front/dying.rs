//! Backends that die at each point of a request.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use lb_front::{Limits, Reason};
use socket2::SockRef;

use crate::kit::{Backend, GET, TestFront, eventually, ok};

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";

/// Where a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// After the head of the request, with the body unread.
    Head,
    /// After the whole request.
    Request,
    StatusLine,
    AnswerHead,
    /// After an interim answer.
    Continued,
    /// Between head and body of the answer.
    Answered,
    Body,
    Chunk,
    BetweenChunks,
}

impl Death {
    fn last_words(self) -> &'static [u8] {
        match self {
            Self::Head | Self::Request => b"",
            Self::StatusLine => b"HTTP/1.1 20",
            Self::AnswerHead => b"HTTP/1.1 200 OK\r\nContent-Le",
            Self::Continued => b"HTTP/1.1 100 Continue\r\n\r\n",
            Self::Answered => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            Self::Body => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            Self::Chunk => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
            Self::BetweenChunks => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
            }
        }
    }

    /// Whether the client has seen a 200 by then.
    fn is_in_body(self) -> bool {
        matches!(
            self,
            Self::Answered | Self::Body | Self::Chunk | Self::BetweenChunks
        )
    }
}

const DEATHS: [Death; 9] = [
    Death::Head,
    Death::Request,
    Death::StatusLine,
    Death::AnswerHead,
    Death::Continued,
    Death::Answered,
    Death::Body,
    Death::Chunk,
    Death::BetweenChunks,
];

/// A backend whose first connection answers `before` requests and then dies; all others live.
struct Dying {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Dying {
    fn start(before: usize, death: Death, reset: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (stream, counted) = (stream.unwrap(), counted.clone());
                let lives = if connection == 0 { before } else { usize::MAX };
                thread::spawn(move || live(stream, lives, death, reset, &counted));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn live(mut stream: TcpStream, lives: usize, death: Death, reset: bool, requests: &AtomicUsize) {
    for _ in 0..lives {
        let Some(length) = read_head(&mut stream) else {
            return;
        };
        requests.fetch_add(1, Ordering::Relaxed);
        stream.read_exact(&mut vec![0; length]).unwrap();
        stream.write_all(&ok("alive")).unwrap();
    }
    let Some(length) = read_head(&mut stream) else {
        return;
    };
    requests.fetch_add(1, Ordering::Relaxed);
    if death != Death::Head {
        stream.read_exact(&mut vec![0; length]).unwrap();
    }
    let words = death.last_words();
    stream.write_all(words).unwrap();
    if reset {
        // A reset overtakes what the peer has not read: its last words must have arrived before.
        if !words.is_empty() {
            thread::sleep(Duration::from_millis(50));
        }
        let socket = SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// The length of the body that follows; `None` when there is no request.
fn read_head(stream: &mut TcpStream) -> Option<usize> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = stream.read(&mut byte).ok()?;
        head.extend((read > 0).then_some(byte[0]));
        (read > 0).then_some(())?;
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    length.map_or(Some(0), |rest| rest.lines().next()?.parse().ok())
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
        Some(200) if all.ends_with("\r\n\r\nalive") => End::Status(200),
        // hyper may not even send the head of an answer whose body is known to fail.
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
                    let case = (death, reset, before, &request[..4]);
                    let dying = Dying::start(before, death, reset);
                    let front = TestFront::start(Limits::default(), 1);
                    front.publish(&[dying.address]);
                    for _ in 0..before {
                        assert_eq!(front.ask(GET).status, 200);
                    }
                    // Only on a connection that was kept idle, without a byte of an answer, and without effect.
                    let repeats = before == 1
                        && request == GET
                        && matches!(death, Death::Head | Death::Request);
                    let (end, reason) = match () {
                        () if repeats => (End::Status(200), Reason::Ok),
                        () if death.is_in_body() => (End::Cut, Reason::ResponseTruncated),
                        () => (End::Status(502), Reason::BackendReset),
                    };
                    assert_eq!(ask(&front, request), end, "{case:?}");
                    let seen = before + 1 + usize::from(repeats);
                    assert_eq!(dying.requests(), seen, "{case:?}");
                    let wanted = 1 + u64::from(repeats);
                    eventually("it is counted", || {
                        (front.stats().ended(reason) == wanted).then_some(())
                    });
                    let stats = front.stats();
                    assert_eq!(stats.retries, u64::from(repeats), "{case:?}");
                    // Nothing of the dead connection is left, and the next request finds a living one.
                    assert_eq!(front.ask(POST).status, 200, "{case:?}");
                    eventually("only the living one is open", || {
                        (front.stats().backends[0].open == 1).then_some(())
                    });
                }
            }
        }
    }
}

#[test]
fn a_connection_that_dies_while_idle_costs_nobody_a_request() {
    for reset in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = TestFront::start(Limits::default(), 1);
        front.publish(&[listener.local_addr().unwrap()]);
        for _ in 0..20 {
            let mut client = front.client();
            client.send(POST);
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(read_head(&mut stream), Some(3));
            stream.read_exact(&mut [0; 3]).unwrap();
            stream.write_all(&ok("a")).unwrap();
            assert_eq!(client.answer().status, 200);
            eventually("it is idle", || {
                (front.stats().backends[0].idle == 1).then_some(())
            });
            if reset {
                let socket = SockRef::from(&stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(stream);
            eventually("its end is noticed", || {
                (front.stats().backends[0].open == 0).then_some(())
            });
        }
        assert_eq!(front.stats().retries, 0);
    }
}

#[test]
fn a_backend_that_closes_before_it_reads_costs_few_requests() {
    // What was written by then may have had an effect.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    let living = Backend::named("a");
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[address, living.address]);
    for _ in 0..20 {
        let status = front.ask(POST).status;
        assert!(status == 200 || status == 502, "{status}");
    }
    // The dead one is ejected after five failures in a row at the latest.
    let failed = front.stats().ended(Reason::BackendReset);
    assert!(failed <= 5, "{failed}");
    for _ in 0..10 {
        assert_eq!(front.ask(POST).status, 200);
    }
}
