//! Leaving HTTP, and requests that only try to.

use std::{
    io::{ErrorKind, Read as _, Write},
    net::TcpStream,
    sync::mpsc,
    time::Duration,
};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, GET, PATIENCE, Reply, Seen, TestFront, eventually, ok};

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn agree(seen: &Seen) -> Reply {
    if seen.field("upgrade") == Some("websocket") {
        Reply::Echo(SWITCHED.into())
    } else {
        Reply::Keep(ok("plain"))
    }
}

#[test]
fn after_an_upgrade_bytes_go_both_ways_until_one_side_closes() {
    let backend = Backend::start(agree);
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let head = client.send(UPGRADE).head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    for message in [&b"\x81\n\0#"[..], b"GET / HTTP/1.1\n\n"] {
        client.send(message);
        assert_eq!(client.bytes(message.len()), message);
    }
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"");
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn tunnels_count_against_the_limit_of_clients() {
    let backend = Backend::start(agree);
    let limits = Limits {
        client_connections: 2,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut tunnels = [front.client(), front.client()];
    for tunnel in &mut tunnels {
        assert!(tunnel.send(UPGRADE).head().starts_with("HTTP/1.1 101 "));
    }
    let mut third = front.client();
    third.send(GET);
    let short = Duration::from_millis(200);
    third.stream.set_read_timeout(Some(short)).unwrap();
    let waiting = third.stream.peek(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WouldBlock);
    assert_eq!(front.stats().accepted, 2);
    drop(tunnels);
    third.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(third.answer().body, "plain");
}

#[test]
fn tunnels_count_against_the_limit_of_their_backend() {
    let backend = Backend::start(agree);
    let limits = Limits {
        backend_connections: 2,
        queued: 0,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    // One begins on a connection that has been idle, the other on a new one.
    assert_eq!(front.ask(GET).body, "plain");
    let mut tunnels = [front.client(), front.client()];
    for tunnel in &mut tunnels {
        assert!(tunnel.send(UPGRADE).head().starts_with("HTTP/1.1 101 "));
    }
    assert_eq!(front.stats().connects, 2);
    assert_eq!(front.ask(UPGRADE).status, 503);
    assert_eq!(front.stats().ended(Reason::Limit), 1);
    drop(tunnels);
    eventually("there is room again", || {
        (front.ask(GET).status == 200).then_some(())
    });
}

#[test]
fn bytes_sent_ahead_reach_the_backend_only_after_its_agreement() {
    let backend = Backend::start(agree);
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    client.send([UPGRADE.as_bytes(), b"\x81\nearly"].concat());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.bytes(7), b"\x81\nearly");
}

#[test]
fn a_declined_upgrade_leaves_the_next_request_a_request() {
    let backend = Backend::start(|_| Reply::Keep(ok("declined")));
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    client.send([UPGRADE, GET, "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"].concat());
    assert_eq!(client.answer().body, "declined");
    assert_eq!(client.answer().body, "declined");
    assert_eq!(client.answer().status, 503);
    assert_eq!(backend.seen().len(), 2);
    // And with a pause in between.
    let mut client = front.client();
    assert_eq!(client.send(UPGRADE).answer().body, "declined");
    assert_eq!(client.send(GET).answer().body, "declined");
}

#[test]
fn what_follows_a_declined_upgrade_is_guarded_again() {
    let backend = Backend::start(|_| Reply::Keep(ok("declined")));
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    client.send([UPGRADE, "GET / HTTP/1.1\nHost: web\n\n"].concat());
    assert_eq!(client.answer().body, "declined");
    assert_eq!(client.answer().status, 400);
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_an_invalid_answer() {
    let backend = Backend::start(|_| Reply::Echo(SWITCHED.into()));
    let front = TestFront::with(&[&backend]);
    assert_eq!(front.ask(GET).status, 502);
    let half = "GET / HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(front.ask(half).status, 502);
    assert_eq!(front.stats().ended(Reason::ResponseInvalid), 2);
}

#[test]
fn who_is_still_sending_a_request_does_not_leave_http() {
    // Agrees as soon as it has the head.
    let agree = |head: &str, stream: &mut TcpStream| {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            seen.extend(byte);
        }
        stream.write_all(head.as_bytes()).unwrap();
        String::from_utf8(seen).unwrap().to_ascii_lowercase()
    };
    let (tell, told) = mpsc::channel();
    let backend = Backend::start_after(
        move |_, stream| tell.send(agree(SWITCHED, stream)).unwrap(),
        |_| Reply::Close(Vec::new()),
    );
    let front = TestFront::with(&[&backend]);
    let unfinished = UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 1000\r\n\r\n");
    let mut client = front.client();
    client.send([&unfinished, "0123456789"].concat());
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.field("connection")),
        (502, Some("close"))
    );
    let seen = told.recv_timeout(PATIENCE).unwrap();
    assert!(seen.contains("\r\ncontent-length: 1000\r\n"), "{seen}");
    assert!(!seen.contains("upgrade"), "{seen}");
    assert_eq!(front.stats().ended(Reason::ResponseInvalid), 1);
    eventually("its place is free", || {
        (front.stats().open == 0 && backend.open() == 0).then_some(())
    });
}

#[test]
fn an_offer_of_http_2_is_answered_in_http_1() {
    let backend = Backend::start(agree);
    let front = TestFront::with(&[&backend]);
    let offer = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let mut client = front.client();
    client.send([offer, GET].concat());
    assert_eq!(client.answer().body, "plain");
    assert_eq!(client.answer().body, "plain");
    let seen = &backend.seen()[0];
    assert_eq!(
        (seen.field("upgrade"), seen.field("http2-settings")),
        (None, None)
    );
}

#[test]
fn a_client_that_leaves_before_the_answer_to_its_upgrade_frees_the_backend() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let front = TestFront::with(&[&backend]);
    for (turn, ahead) in ["", "\x01early"].into_iter().enumerate() {
        let mut client = front.client();
        client.send([UPGRADE, ahead].concat());
        eventually("the request is there", || {
            (backend.seen().len() == turn + 1).then_some(())
        });
        drop(client);
        eventually("the backend is free", || {
            (backend.open() == 0).then_some(())
        });
        assert_eq!(front.stats().ended(Reason::ClientAbort), turn as u64 + 1);
    }
}

#[test]
fn what_is_sent_ahead_of_an_agreement_is_taken_up_to_a_limit_and_not_lost() {
    let (answer, answers) = mpsc::channel::<()>();
    let answers = std::sync::Mutex::new(answers);
    let backend = Backend::start(move |_| {
        answers.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Reply::Echo(SWITCHED.into())
    });
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let ahead: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = ahead.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(UPGRADE.as_bytes()).unwrap();
        writer.write_all(&sent).unwrap();
    });
    eventually("the request is there", || {
        (backend.seen().len() == 1).then_some(())
    });
    answer.send(()).unwrap();
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert!(client.bytes(ahead.len()) == ahead);
    writing.join().unwrap();
}
