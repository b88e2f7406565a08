//! Clients that send no more: whether they still read, or have left.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    time::Duration,
};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, Client, GET, PATIENCE, Reply, Seen, TestFront, eventually, ok};

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\n";

/// Sends all that it will ever send, as `nc -N` does.
fn half_closed(front: &TestFront, bytes: &[&str]) -> Client {
    let mut client = front.client();
    client.send(bytes.concat());
    client.stream.shutdown(Shutdown::Write).unwrap();
    client
}

/// Answers after a while, so that the end of the client's stream is known long before.
fn late(seen: &Seen) -> Reply {
    std::thread::sleep(Duration::from_millis(100));
    Reply::Keep(ok(&String::from_utf8_lossy(&seen.body)))
}

#[test]
fn who_has_sent_all_and_still_reads_is_answered() {
    let backend = Backend::start(late);
    let front = TestFront::with(&[&backend]);
    for (bytes, bodies) in [
        (&[GET][..], &[""][..]),
        (&[POST, "all of it"], &["all of it"]),
        // Requests sent ahead, of which the last is not whole.
        (&[GET, POST, "all of it", GET], &["", "all of it", ""]),
        (&[POST, "all of it", "GET / HT"], &["all of it"]),
        // Declined.
        (&[UPGRADE], &[""]),
        (&[UPGRADE, POST, "all of it"], &["", "all of it"]),
    ] {
        let mut client = half_closed(&front, bytes);
        for body in bodies {
            let answer = client.answer();
            assert_eq!((answer.status, answer.body.as_str()), (200, *body));
        }
        assert_eq!(client.rest(), b"", "{bytes:?}");
    }
    // What the front says by itself.
    let mut client = half_closed(&front, &["GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"]);
    assert_eq!(client.answer().status, 503);
    assert_eq!(client.rest(), b"");
    assert_eq!(front.stats().ended(Reason::ClientAbort), 0);
}

#[test]
fn who_has_sent_all_may_leave_http() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let head = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        Reply::Echo(head.into())
    });
    let front = TestFront::with(&[&backend]);
    let mut client = half_closed(&front, &[UPGRADE, "early"]);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.rest(), b"early");
}

#[test]
fn an_answer_that_goes_on_reaches_who_has_sent_all_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; GET.len()]).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n";
        for piece in [head].iter().chain(&["x"; 8]) {
            std::thread::sleep(Duration::from_millis(60));
            stream.write_all(piece.as_bytes()).unwrap();
        }
    });
    let limits = Limits {
        half_closed: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[]);
    front.publish(&[address]);
    let mut client = half_closed(&front, &[GET]);
    assert_eq!(client.answer().body, "xxxxxxxx");
    assert_eq!(client.rest(), b"");
}

/// A front whose backend sends `begin` and nothing else.
fn stalled(limits: Limits, begin: &'static [u8]) -> (TestFront, Backend) {
    let backend = Backend::start(|_| Reply::Stall(begin.to_vec()));
    (TestFront::limited(limits, &[&backend]), backend)
}

#[track_caller]
fn freed(front: &TestFront, backend: &Backend, what: &str) {
    eventually(what, || (backend.open() == 0).then_some(()));
    eventually(what, || {
        (front.stats().ended(Reason::ClientAbort) == 1).then_some(())
    });
}

#[test]
fn who_has_left_frees_the_backend_at_any_point() {
    let begin = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    let long = "a".repeat(8_000);
    for (what, sent, begin) in [
        ("after a request", vec![GET], &b""[..]),
        ("after a body", vec![POST, "all of it"], b""),
        ("after several requests", vec![GET, GET], b""),
        ("within a second head", vec![GET, "GET / HT"], b""),
        ("within a second body", vec![GET, POST, "all"], b""),
        ("after a request to leave HTTP", vec![UPGRADE], b""),
        ("and what follows that", vec![UPGRADE, "early", &long], b""),
        ("within the answer", vec![GET], begin),
        ("within the first of several answers", vec![GET, GET], begin),
    ] {
        let limits = Limits {
            half_closed: Duration::from_millis(100),
            ..Limits::default()
        };
        let (front, backend) = stalled(limits, begin);
        let mut client = front.client();
        client.send(sent.concat());
        eventually(what, || (backend.seen().len() == 1).then_some(()));
        if !begin.is_empty() {
            assert!(client.head().starts_with("HTTP/1.1 200 "));
            client.bytes(3);
        }
        drop(client);
        freed(&front, &backend, what);
    }
}

#[test]
fn who_leaves_within_a_body_frees_the_backend_at_once() {
    let limits = Limits {
        half_closed: PATIENCE * 6,
        ..Limits::default()
    };
    let (front, backend) = stalled(limits, b"");
    let mut client = front.client();
    client.send([POST, "all"].concat());
    eventually("the backend is asked", || {
        (backend.open() == 1).then_some(())
    });
    drop(client);
    freed(&front, &backend, "within a body");
}

#[test]
fn a_reset_frees_the_backend_at_once() {
    for sent in [
        vec![GET],
        vec![GET, GET],
        vec![UPGRADE],
        vec![UPGRADE, "early"],
    ] {
        let limits = Limits {
            half_closed: PATIENCE * 6,
            ..Limits::default()
        };
        let (front, backend) = stalled(limits, b"");
        let mut client = front.client();
        client.send(sent.concat());
        eventually("the request is there", || {
            (backend.seen().len() == 1).then_some(())
        });
        socket2::SockRef::from(&client.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        freed(&front, &backend, "after a reset");
    }
}
