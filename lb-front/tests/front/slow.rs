//! Clients that are slow on purpose, and those that come in crowds.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, Client, GET, PATIENCE, Reply, TestFront, eventually, ok};

const BRIEF: Duration = Duration::from_millis(200);

fn brief() -> Limits {
    Limits {
        first_byte: BRIEF,
        head: BRIEF,
        body_idle: BRIEF,
        write_stall: BRIEF,
        ..Limits::default()
    }
}

/// Sends `piece` again and again, well within each limit, until the front has enough of it.
#[track_caller]
fn drip(client: &mut Client, piece: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    client.stream.set_read_timeout(Some(BRIEF / 8)).unwrap();
    let mut first = [0];
    // What is to be read is the answer, or the end.
    while let Err(error) = client.stream.peek(&mut first) {
        assert!(error.kind() != std::io::ErrorKind::ConnectionReset);
        assert!(Instant::now() < deadline, "still served");
        let _ = client.stream.write_all(piece);
    }
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn a_head_byte_by_byte_has_the_time_of_a_head() {
    let backend = Backend::named("a");
    let front = TestFront::limited(brief(), &[&backend]);
    let mut client = front.client();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nX: ");
    drip(&mut client, b"x");
    assert_eq!(client.answer().status, 408);
    assert_eq!(front.stats().rejected.get("header_timeout"), Some(&1));
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn the_beginning_of_a_preface_is_the_beginning_of_a_head() {
    let backend = Backend::named("a");
    let front = TestFront::limited(brief(), &[&backend]);
    assert_eq!(front.client().send("PRI * HT").answer().status, 408);
    assert_eq!(front.stats().rejected.get("header_timeout"), Some(&1));
    // In pieces it may still become another method.
    let mut client = front.client();
    client.send("P").send("R");
    client.send("OPFIND / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert_eq!(client.answer().body, "a");
}

#[test]
fn a_body_byte_by_byte_does_not_keep_its_place() {
    let backend = Backend::named("a");
    let limits = Limits {
        body_rate: 1000,
        ..brief()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = front.client();
    client.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n");
    drip(&mut client, b"x");
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.field("connection")),
        (408, Some("close"))
    );
    assert_eq!(front.stats().ended(Reason::BodyTimeout), 1);
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
    // Another one is judged by what it sends itself.
    let mut client = front.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 8\r\n\r\n");
        for _ in 0..8 {
            std::thread::sleep(BRIEF / 8);
            client.send("x");
        }
        assert_eq!(client.answer().body, "a");
    }
}

#[test]
fn a_client_that_stalls_its_upload_says_nothing_about_the_backend() {
    let backends = ["a", "b"].map(Backend::named);
    let limits = Limits {
        response_head: BRIEF,
        ..brief()
    };
    let front = TestFront::limited(limits, &[&backends[0], &backends[1]]);
    let head = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n";
    for expects in [false, true] {
        // More than make an ejection, all at the same time.
        let mut clients: Vec<_> = (0..12).map(|_| front.client()).collect();
        for client in &mut clients {
            let expect = if expects {
                "Expect: 100-continue\r\n"
            } else {
                ""
            };
            client.send(format!("{head}{expect}\r\n"));
        }
        for client in &mut clients {
            if expects {
                assert!(client.head().starts_with("HTTP/1.1 100 "));
            }
            assert_eq!(client.answer().status, 408);
        }
    }
    let stats = front.stats();
    assert_eq!(stats.ended(Reason::BodyTimeout), 24);
    assert!(stats.backends.iter().all(|backend| backend.failures == 0));
    assert!(stats.services.iter().all(|service| service.ejections == 0));
}

#[test]
fn a_reader_that_takes_a_byte_now_and_then_is_cut() {
    let large = "x".repeat(64 * 1024 * 1024);
    let backend = Backend::start(move |_| Reply::Keep(ok(&large)));
    let front = TestFront::limited(brief(), &[&backend]);
    let mut client = front.client();
    client.send(GET);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    eventually("it is cut", || {
        let _ = client.stream.read(&mut [0]);
        (front.stats().ended(Reason::ClientAbort) == 1).then_some(())
    });
    eventually("its place is free", || {
        (front.stats().open == 0).then_some(())
    });
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

/// How many silent clients have hyper: none, and as many as usual.
const WARM: [usize; 2] = [0, 128];

/// A place is had for the time of a silence, and no longer.
#[test]
fn a_client_that_is_silent_again_has_hyper_again() {
    let backend = Backend::named("a");
    let limits = Limits {
        keep_alive: Duration::from_millis(1500),
        warm: 1,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut clients = [front.client(), front.client()];
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.send(GET).answer().body, "a");
        }
        std::thread::sleep(Duration::from_millis(1200));
    }
    for client in &mut clients {
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(front.stats().ended(Reason::Ok), 6);
}

#[test]
fn a_silent_client_is_served_again_when_it_speaks() {
    for warm in WARM {
        let backend = Backend::named("a");
        let limits = Limits {
            warm,
            ..Limits::default()
        };
        let front = TestFront::limited(limits, &[&backend]);
        let mut client = front.client();
        for _ in 0..3 {
            assert_eq!(client.send(GET).answer().body, "a");
            // Longer than it keeps its buffers; what is measured is the time itself.
            std::thread::sleep(Duration::from_millis(1200));
        }
        // Also in pieces, and with the next request behind it.
        client.send("GET / HT");
        client.send("TP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n");
        assert_eq!(client.answer().body, "a");
        assert_eq!(client.answer().body, "a");
        let stats = front.stats();
        assert_eq!((stats.accepted, stats.ended(Reason::Ok)), (1, 5));
    }
}

#[test]
fn a_silent_client_has_its_time_and_no_more() {
    for warm in WARM {
        let backend = Backend::named("a");
        let limits = Limits {
            keep_alive: Duration::from_millis(1500),
            warm,
            ..Limits::default()
        };
        let front = TestFront::limited(limits, &[&backend]);
        let mut client = front.client();
        assert_eq!(client.send(GET).answer().body, "a");
        let begin = Instant::now();
        assert_eq!(client.rest(), b"");
        let lasted = begin.elapsed();
        assert!(lasted >= Duration::from_millis(1400), "{lasted:?}");
        assert!(lasted < Duration::from_secs(5), "{lasted:?}");
        eventually("its place is free", || {
            (front.stats().open == 0).then_some(())
        });
    }
}

#[test]
fn a_drain_does_not_wait_for_silent_clients() {
    for warm in WARM {
        let backend = Backend::named("a");
        let limits = Limits {
            warm,
            ..Limits::default()
        };
        let mut front = TestFront::limited(limits, &[&backend]);
        let mut client = front.client();
        assert_eq!(client.send(GET).answer().body, "a");
        std::thread::sleep(Duration::from_millis(1200));
        let begin = Instant::now();
        let drained = front.drain();
        assert_eq!(client.rest(), b"");
        assert_eq!(drained.join().unwrap().ended(Reason::Ok), 1);
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn one_client_does_not_take_the_places_of_others() {
    let backend = Backend::named("a");
    let limits = Limits {
        connections_per_client: 2,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut first = front.client();
    let mut second = front.client();
    for client in [&mut first, &mut second] {
        assert_eq!(client.send(GET).answer().body, "a");
    }
    let mut refused = front.client();
    // The end or a reset: it was not read from.
    assert!(!matches!(refused.stream.read(&mut [0]), Ok(1)));
    assert_eq!(front.stats().rejected.get("client_connections"), Some(&1));
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: std::net::SocketAddr = "127.0.0.2:0".parse().unwrap();
    other.bind(&from.into()).unwrap();
    other.connect(&front.address.into()).unwrap();
    let mut other = Client::over(TcpStream::from(other));
    assert_eq!(other.send(GET).answer().body, "a");
    drop(first);
    eventually("a place is free", || {
        let mut client = front.client();
        client.send(GET);
        let mut byte = [0];
        matches!(client.stream.read(&mut byte), Ok(1)).then_some(())
    });
}

#[test]
fn slow_clients_are_told_or_closed() {
    let backend = Backend::named("a");
    let brief = Duration::from_millis(100);
    let limits = Limits {
        first_byte: brief,
        head: brief,
        keep_alive: brief,
        body_idle: brief,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    // Silent: nothing to say to.
    assert_eq!(front.client().rest(), b"");
    // Within a head.
    let mut client = front.client();
    assert_eq!(client.send("GET / HTTP/1.1\r\nHost").answer().status, 408);
    // Between requests.
    let mut client = front.client();
    assert_eq!(client.send(GET).answer().status, 200);
    assert_eq!(client.rest(), b"");
    // Within a second head.
    let mut client = front.client();
    assert_eq!(client.send(GET).answer().status, 200);
    assert_eq!(client.send("GET").answer().status, 408);
    // Within a body.
    let mut client = front.client();
    client.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(client.answer().status, 408);
    let stats = front.stats();
    assert_eq!(stats.rejected.get("header_timeout"), Some(&2), "{stats:?}");
    assert_eq!(stats.ended(Reason::BodyTimeout), 1, "{stats:?}");
}

#[test]
fn a_slow_backend_does_not_count_against_the_client() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(400));
        Reply::Keep(ok("late"))
    });
    let brief = Duration::from_millis(100);
    let limits = Limits {
        first_byte: brief,
        head: brief,
        keep_alive: brief,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = front.client();
    // The beginning of the next head is already there.
    client.send([GET, "GET / HT"].concat());
    assert_eq!(client.answer().body, "late");
    client.send("TP/1.1\r\nHost: web\r\n\r\n");
    assert_eq!(client.answer().body, "late");
}
