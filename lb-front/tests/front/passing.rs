//! Requests and answers on their way through the front, whole, cut or in a form that cannot pass.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, GET, Reply, TestFront, eventually, ok};

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
