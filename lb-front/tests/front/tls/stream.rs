//! What passes after the handshake, and how it ends.

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
    time::Duration,
};

use lb_front::Limits;

use super::{connect, front};
use crate::kit::{Backend, GET, Reply, eventually, ok};

#[test]
fn the_last_bytes_are_followed_by_the_notice_that_they_are() {
    let limits = Limits {
        keep_alive: Duration::from_millis(300),
        ..Limits::default()
    };
    let front = front(limits, &[&Backend::named("a")]);
    // `rest` takes no end without the notice.
    let mut client = connect(&front);
    let answer = client
        .send("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .answer();
    assert_eq!((&*answer.body, client.rest()), ("a", Vec::new()));
    let mut idle = connect(&front);
    assert_eq!(idle.send(GET).answer().body, "a");
    assert_eq!(idle.rest(), b"");
    let mut refused = connect(&front);
    assert_eq!(refused.send("GET / HTTP/1.1\n\n").answer().status, 400);
    assert_eq!(refused.rest(), b"");
    let long = format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "a".repeat(40_000));
    let mut refused = connect(&front);
    assert_eq!(refused.send(long).answer().status, 414);
    assert_eq!(refused.rest(), b"");
}

#[test]
fn a_silent_connection_ends_with_the_notice_too() {
    let limits = Limits {
        keep_alive: Duration::from_secs(4),
        warm: 0,
        ..Limits::default()
    };
    let front = front(limits, &[&Backend::named("a")]);
    let mut client = connect(&front);
    for _ in 0..2 {
        assert_eq!(client.send(GET).answer().body, "a");
        // Until hyper was given up, and is there again.
        thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn who_has_closed_its_half_still_gets_the_answer() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut client = connect(&front);
    client.send(GET);
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.answer().body, "a");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_body_that_is_cut_off_is_no_body() {
    let backend = Backend::start(|seen| Reply::Keep(ok(&format!("{}", seen.body.len()))));
    let front = front(Limits::default(), &[&backend]);
    for with_notice in [false, true] {
        let mut client = connect(&front);
        client.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc");
        if with_notice {
            client.stream.conn.send_close_notify();
            client.stream.flush().unwrap();
        }
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = client.stream.sock.read_to_end(&mut rest);
    }
    eventually("the backend is rid of both", || {
        (backend.open() == 0).then_some(())
    });
    let complete = backend
        .seen()
        .into_iter()
        .filter(|seen| seen.body.ends_with(b"0\r\n\r\n"));
    assert_eq!(complete.count(), 0);
}

#[test]
fn a_large_body_passes_both_ways() {
    let backend = Backend::start(|seen| Reply::Keep(ok(&String::from_utf8_lossy(&seen.body))));
    let front = front(Limits::default(), &[&backend]);
    let body = "0123456789".repeat(200_000);
    let mut client = connect(&front);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(client.answer().body == body);
}

#[test]
fn what_a_client_takes_late_has_not_been_lost_meanwhile() {
    let body = "0123456789".repeat(800_000);
    let length = body.len();
    let backend = Backend::start(move |_| Reply::Keep(ok(&body)));
    let limits = Limits {
        warm: 0,
        ..Limits::default()
    };
    let front = front(limits, &[&backend]);
    let mut client = connect(&front);
    client.send(GET);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut left = length;
    // So that the last bytes, which TLS keeps back, wait for longer than a silent client has hyper.
    while left > 0 {
        if left == 100_000 {
            thread::sleep(Duration::from_millis(1500));
        }
        let piece = if left > 100_000 {
            (left - 100_000).min(50_000)
        } else {
            left.min(1000)
        };
        left -= client.bytes(piece).len();
    }
    assert_eq!(client.send(GET).head().split(' ').nth(1), Some("200"));
}

#[test]
fn who_takes_nothing_is_left_in_time() {
    let backend = Backend::start(|_| Reply::Keep(ok(&"0123456789".repeat(1_000_000))));
    let limits = Limits {
        write_stall: Duration::from_millis(500),
        ..Limits::default()
    };
    let front = front(limits, &[&backend]);
    let mut client = connect(&front);
    client.send(GET);
    eventually("the connection is over", || {
        (front.stats().open == 0).then_some(())
    });
    drop(client);
}

#[test]
fn a_tunnel_goes_through_tls() {
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let backend = Backend::start(move |_| Reply::Echo(switched.into()));
    let front = front(Limits::default(), &[&backend]);
    let mut client = connect(&front);
    let asked = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(client.send(asked).head().starts_with("HTTP/1.1 101 "));
    for message in ["one", "another"] {
        assert_eq!(
            client.send(message).bytes(message.len()),
            message.as_bytes()
        );
    }
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.rest(), b"");
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_front_that_drains_ends_idle_connections_with_the_notice() {
    let mut front = front(Limits::default(), &[&Backend::named("a")]);
    let mut client = connect(&front);
    assert_eq!(client.send(GET).answer().status, 200);
    let drained = front.drain();
    assert_eq!(client.rest(), b"");
    drained.join().unwrap();
}
