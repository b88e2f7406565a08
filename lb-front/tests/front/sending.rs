//! Which backend a request goes to, on which connection, and what happens when that fails.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, GET, PATIENCE, Reply, TestFront, eventually, ok, refusing};

#[test]
fn backends_take_turns_whichever_worker_a_client_meets() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let front = TestFront::start(Limits::default(), 2);
    front.publish(&backends.each_ref().map(|backend| backend.address));
    let answers: String = (0..9).map(|_| front.ask(GET).body).collect();
    assert_eq!(answers, "abcabcabc");
    // A change of the set does not begin the turn anew.
    front.publish(&[backends[0].address, backends[1].address]);
    let answers: String = (0..4).map(|_| front.ask(GET).body).collect();
    assert!(answers == "abab" || answers == "baba", "{answers}");
}

#[test]
fn connections_to_backends_are_used_again() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for _ in 0..5 {
        assert_eq!(front.ask(GET).body, "a");
    }
    assert!(backend.seen().iter().all(|seen| seen.connection == 0));
    let stats = front.stats();
    assert_eq!(
        (stats.connects, stats.reused, stats.ended(Reason::Ok)),
        (1, 4, 5),
        "{stats:?}"
    );
}

#[test]
fn a_refused_connection_is_followed_by_another_backend_for_any_method() {
    let backend = Backend::named("a");
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[refusing(), backend.address, refusing()]);
    for _ in 0..6 {
        assert_eq!(front.ask(GET).status, 200);
        let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(front.ask(post).status, 200);
    }
    assert!(front.stats().retries > 0);
}

#[test]
fn without_any_backend_that_accepts_the_answer_is_502() {
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[refusing(), refusing(), refusing(), refusing()]);
    assert_eq!(front.ask(GET).status, 502);
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::ConnectRefused), stats.retries), (1, 2));
}

#[test]
fn an_idempotent_request_survives_a_connection_that_went_stale() {
    // Each connection answers once; the second request on it finds it closed, before or after it is sent.
    let backend = Backend::start(|seen| match seen.head.split(' ').nth(1) {
        Some("/close") => Reply::Close(ok("a")),
        _ => Reply::Keep(ok("a")),
    });
    let front = TestFront::with(&[&backend]);
    for _ in 0..20 {
        assert_eq!(
            front.ask("GET /close HTTP/1.1\r\nHost: web\r\n\r\n").status,
            200
        );
        assert_eq!(front.ask(GET).status, 200);
    }
}

#[test]
fn a_request_dies_once_and_is_repeated_only_if_that_is_harmless() {
    let count = AtomicUsize::new(0);
    // Every second request of a connection is read and then lost.
    let backend = Backend::start(move |_| match count.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => Reply::Keep(ok("a")),
        _ => Reply::Close(Vec::new()),
    });
    let front = TestFront::with(&[&backend]);
    assert_eq!(front.ask(GET).status, 200);
    // Lost on the old connection, answered on a new one.
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(backend.seen().len(), 3);
    // The same with a request that may have had an effect.
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(front.ask(post).status, 502);
    assert_eq!(backend.seen().len(), 4);
    assert_eq!(front.stats().ended(Reason::BackendReset), 1);
}

#[test]
fn a_connection_with_an_unfinished_request_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[listener.local_addr().unwrap()]);
    // Answers once it has seen a head, whatever body that announces.
    let accept = || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(&ok("early")).unwrap();
        stream
    };
    let mut uploading = front.client();
    uploading.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nabc");
    let _first = accept();
    assert_eq!(uploading.answer().body, "early");
    let mut other = front.client();
    other.send(GET);
    let _second = accept();
    assert_eq!(other.answer().body, "early");
    assert_eq!(front.stats().reused, 0);
}

#[test]
fn the_pool_forgets_a_backend_that_left() {
    let backends = ["a", "b"].map(Backend::named);
    let front = TestFront::with(&[&backends[0]]);
    assert_eq!(front.ask(GET).body, "a");
    assert_eq!(backends[0].open(), 1);
    front.publish(&[backends[1].address]);
    eventually("its connection is closed", || {
        (backends[0].open() == 0).then_some(())
    });
    assert_eq!(front.ask(GET).body, "b");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let backend = Backend::named("a");
    let limits = Limits {
        pool_idle: Duration::ZERO,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    for _ in 0..3 {
        assert_eq!(front.ask(GET).body, "a");
    }
    assert_eq!(front.stats().reused, 0);
}

#[test]
fn answers_that_are_not_http_are_502_and_late_ones_504() {
    let backend = Backend::start(|seen| {
        match seen.head.split(' ').nth(1) {
        Some("/garbage") => Reply::Close(b"hello\r\n\r\n".to_vec()),
        Some("/both") => Reply::Close(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
        ),
        _ => Reply::Stall(Vec::new()),
    }
    });
    let limits = Limits {
        response_head: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let get = |path: &str| {
        front
            .ask(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"))
            .status
    };
    assert_eq!(get("/garbage"), 502);
    assert_eq!(get("/late"), 504);
    let stats = front.stats();
    assert_eq!(
        (
            stats.ended(Reason::ResponseInvalid),
            stats.ended(Reason::ResponseTimeout)
        ),
        (1, 1)
    );
    // Framed twice: one framing of our own reaches the client.
    let answer = front.ask("GET /both HTTP/1.1\r\nHost: web\r\n\r\n");
    assert_eq!((answer.status, answer.field("content-length")), (200, None));
    assert_eq!(answer.body, "3\r\nabc\r\n0\r\n\r\n");
}

#[test]
fn an_answer_that_is_cut_or_stops_is_cut_for_the_client() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let backend = Backend::start(move |seen| {
        let close = seen.head.contains("/cut");
        if close {
            Reply::Close(half.into())
        } else {
            Reply::Stall(half.into())
        }
    });
    let limits = Limits {
        body_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    for path in ["/cut", "/stall"] {
        let mut client = front.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"));
        client.head();
        assert_eq!(client.rest(), b"half", "{path}");
    }
    let stats = front.stats();
    assert_eq!(
        (
            stats.ended(Reason::ResponseTruncated),
            stats.ended(Reason::ResponseStalled)
        ),
        (1, 1),
        "{stats:?}"
    );
}

#[test]
fn large_bodies_pass_unchanged_in_both_directions() {
    let large: String = (0..600_000).map(|line| format!("{line:07}\n")).collect();
    let answer = large.clone();
    let backend = Backend::start(move |_| Reply::Keep(ok(&answer)));
    let front = TestFront::with(&[&backend]);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    assert!(front.ask(post).body == large);
    assert!(backend.seen()[0].body == large.as_bytes());
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let backend =
        Backend::start(|seen| Reply::Keep(ok(seen.head.split(' ').nth(1).unwrap_or_default())));
    let front = TestFront::start(Limits::default(), 2);
    front.publish(&[backend.address]);
    std::thread::scope(|threads| {
        for client in 0..8 {
            let front = &front;
            threads.spawn(move || {
                let mut connection = front.client();
                for request in 0..100 {
                    let path = format!("/{client}/{request}");
                    connection.send(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"));
                    assert_eq!(connection.answer().body, path);
                }
            });
        }
    });
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::Ok), stats.accepted), (800, 8));
    assert!(stats.connects <= 8, "{stats:?}");
}

#[test]
fn draining_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        Reply::Keep(ok("late"))
    });
    let mut front = TestFront::with(&[&backend]);
    let mut idle = front.client();
    idle.send(GET).answer();
    let mut busy = front.client();
    busy.send(GET);
    eventually("it is in flight", || {
        (backend.seen().len() == 2).then_some(())
    });
    let drain = front.drain();
    assert_eq!(idle.rest(), b"");
    let answer = busy.answer();
    assert_eq!(
        (answer.body.as_str(), answer.field("connection")),
        ("late", Some("close"))
    );
    assert_eq!(busy.rest(), b"");
    drop((idle, busy));
    drain.join().unwrap();
    assert!(std::net::TcpStream::connect(front.address).is_err());
}

#[test]
fn a_client_taken_just_before_the_drain_is_still_answered() {
    let backend = Backend::named("a");
    let mut front = TestFront::with(&[&backend]);
    let mut client = front.client();
    eventually("it is accepted", || {
        (front.stats().accepted == 1).then_some(())
    });
    let drain = front.drain();
    eventually("it drains", || {
        std::net::TcpStream::connect(front.address).err()
    });
    let answer = client.send(GET).answer();
    assert_eq!(
        (answer.body.as_str(), answer.field("connection")),
        ("a", Some("close"))
    );
    drop(client);
    drain.join().unwrap();
}

#[test]
fn a_drain_at_the_limit_of_clients_ends_with_its_grace() {
    let backend = Backend::start(|_| Reply::Stall(vec![]));
    let limits = Limits {
        client_connections: 1,
        ..Limits::default()
    };
    let grace = Duration::from_millis(300);
    let mut front = TestFront::start_for(limits, 1, grace);
    front.publish(&[backend.address]);
    let mut stalled = front.client();
    stalled.send(GET);
    eventually("it is in flight", || {
        (backend.seen().len() == 1).then_some(())
    });
    let begun = Instant::now();
    let last = front.drain().join().unwrap();
    assert_eq!(last.ended(Reason::Draining), 1, "{last:?}");
    assert!((grace..PATIENCE).contains(&begun.elapsed()));
}

#[test]
fn after_an_answer_in_http_1_0_the_next_body_still_arrives() {
    let backend = Backend::start(|_| {
        Reply::Keep(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na".to_vec(),
        )
    });
    let front = TestFront::with(&[&backend]);
    let post =
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..2 {
        assert_eq!(front.ask(post).body, "a");
    }
    for seen in backend.seen() {
        assert_eq!(String::from_utf8_lossy(&seen.body), "3\r\nabc\r\n0\r\n\r\n");
    }
    assert_eq!(front.stats().reused, 0);
}

#[test]
fn trailers_end_a_message_in_either_direction() {
    let chunked = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
    let body = "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{chunked}{body}");
    let backend = Backend::start(move |_| Reply::Keep(answer.clone().into()));
    let front = TestFront::with(&[&backend]);
    // Only who says so gets trailers; without them the answer ends all the same.
    for (accepts, ends) in [("TE: trailers\r\n", "x-sum: 1\r\n\r\n"), ("", "0\r\n\r\n")] {
        let mut client = front.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: web\r\n{accepts}Connection: close\r\n\r\n"
        ));
        let got = String::from_utf8(client.rest())
            .unwrap()
            .to_ascii_lowercase();
        assert!(got.ends_with(ends), "{got}");
    }
    let mut client = front.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: web\r\n{chunked}{body}"));
    let head = client.head();
    assert!(
        !head.to_ascii_lowercase().contains("connection: close"),
        "{head}"
    );
    let stats = eventually("all three are counted", || {
        let stats = front.stats();
        (stats.requests.iter().map(|it| it.count).sum::<u64>() == 3).then_some(stats)
    });
    assert_eq!(
        (stats.ended(Reason::Ok), stats.connects),
        (3, 1),
        "{stats:?}"
    );
}

#[test]
fn an_answer_ahead_of_the_whole_request_announces_the_end_of_the_connection() {
    for status in ["413 Content Too Large", "101 Switching Protocols"] {
        for pieces in [1, 2] {
            for length in [100, 1 << 20] {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let front = TestFront::start(Limits::default(), 1);
                front.publish(&[listener.local_addr().unwrap()]);
                let head =
                    format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n");
                let mut client = front.client();
                if pieces == 1 {
                    client.send([&head, "abc"].concat());
                } else {
                    client.send(head).send("abc");
                }
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
                let answer = client.answer();
                let case = (status, pieces, length);
                assert_eq!(answer.field("connection"), Some("close"), "{case:?}");
                assert_eq!(client.rest(), b"", "{case:?}");
            }
        }
    }
}

#[test]
fn a_request_is_not_repeated_once_part_of_an_answer_came() {
    let count = AtomicUsize::new(0);
    let backend = Backend::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        1 => Reply::Close(b"HTTP/1.1 200 OK\r\nX-A".to_vec()),
        _ => Reply::Keep(ok("a")),
    });
    let front = TestFront::with(&[&backend]);
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(front.ask(GET).status, 502);
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::BackendReset), stats.retries), (1, 0));
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn an_answer_in_another_coding_than_chunked_is_502() {
    let front = TestFront::start(Limits::default(), 1);
    let get = |coding: &'static str| {
        let backend = Backend::start(move |_| {
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
            Reply::Close([head.as_bytes(), b"3\r\nabc\r\n0\r\n\r\n"].concat())
        });
        front.publish(&[backend.address]);
        front.ask(GET).status
    };
    for coding in [
        "gzip, chunked",
        "gzip",
        "chunked, chunked",
        "gzip\r\nTransfer-Encoding: chunked",
    ] {
        assert_eq!(get(coding), 502, "{coding}");
    }
    assert_eq!(front.stats().ended(Reason::ResponseInvalid), 4);
    assert_eq!(get("CHUNKED"), 200);
}

#[test]
fn a_connection_whose_backend_left_meanwhile_is_not_kept() {
    let (answer, answers) = std::sync::mpsc::channel::<()>();
    let answers = std::sync::Mutex::new(answers);
    let leaving = Backend::start(move |seen| {
        if seen.head.starts_with("GET /slow ") {
            answers.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        Reply::Keep(ok("a"))
    });
    let staying = Backend::named("b");
    let front = TestFront::with(&[&leaving]);
    let mut client = front.client();
    client.send("GET /slow HTTP/1.1\r\nHost: web\r\n\r\n");
    eventually("it is in flight", || {
        (leaving.seen().len() == 1).then_some(())
    });
    assert_eq!(front.ask(GET).body, "a");
    assert_eq!(leaving.open(), 2);
    front.publish(&[staying.address]);
    eventually("the idle connection is closed", || {
        (leaving.open() == 1).then_some(())
    });
    answer.send(()).unwrap();
    assert_eq!(client.answer().body, "a");
    eventually("the other one is, too", || {
        (leaving.open() == 0).then_some(())
    });
}

#[test]
fn a_backend_without_a_way_to_it_has_not_refused() {
    let front = TestFront::start(Limits::default(), 1);
    // TCP knows no broadcast: the kernel finds no route, and sends nothing.
    front.publish(&["255.255.255.255:80".parse().unwrap()]);
    assert_eq!(front.ask(GET).status, 504);
    assert_eq!(front.stats().ended(Reason::ConnectTimeout), 1);
}
