//! How requests and connections end: every end has its line.

use std::{net::Shutdown, time::Duration};

use lb_front::{
    Limits,
    log::{LogFormat, LogSettings},
};

use super::Logged;
use crate::kit::{Backend, GET, Reply, TestFront, eventually, golden, refusing};

/// The line in the common format about what `ask` does, from the request on.
fn one(
    limits: Limits,
    backends: &[std::net::SocketAddr],
    ask: impl FnOnce(&mut TestFront),
) -> String {
    let log = LogSettings {
        format: Some(LogFormat::Common),
        ..LogSettings::default()
    };
    let mut logged = Logged::start(log, limits, backends);
    ask(&mut logged.front);
    let lines = logged.lines(1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = golden(&lines[0]);
    line.strip_prefix("127.0.0.1 - - T T ").unwrap().to_owned()
}

fn ask(request: &'static str) -> impl FnOnce(&mut TestFront) {
    move |front| drop(front.ask(request))
}

/// Sends, and reads until the front closes.
fn tell(request: &'static str) -> impl FnOnce(&mut TestFront) {
    move |front| drop(front.client().send(request).rest())
}

fn short() -> Limits {
    let moment = Duration::from_millis(100);
    Limits {
        head: moment,
        body_idle: moment,
        response_head: moment,
        tunnel_idle: moment,
        ..Limits::default()
    }
}

#[test]
fn every_reason_of_the_front_itself_has_its_line() {
    let backend = Backend::named("hello");
    let all = [backend.address];
    let line = |request| one(Limits::default(), &all, ask(request));
    assert_eq!(
        line("GET /x HTTP/1.1\r\nHost: nobody\r\n\r\n"),
        r#""GET /x HTTP/1.1" 503 23 no_route SC - - - 0 0 - - - T"#
    );
    assert_eq!(
        line("GET /x HTTP/1.1\r\nHost: down\r\n\r\n"),
        r#""GET /x HTTP/1.1" 503 32 no_backend SC down - - 0 0 - - - T"#
    );
    assert_eq!(
        line("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n"),
        r#""GET /x HTTP/1.1" 400 43 bad_request PR - - - 0 0 - - - T"#
    );
    assert_eq!(
        line("GET /x HTTP/1.1\r\nHost: web\r\nVia: 1.1 lb-agent\r\n\r\n"),
        r#""GET /x HTTP/1.1" 508 40 loop -- web - - 0 0 - - - T"#
    );
}

#[test]
fn what_never_became_a_request_has_a_line_too() {
    let backend = Backend::named("hello");
    let all = [backend.address];
    let line = |request| one(short(), &all, tell(request));
    assert_eq!(
        line("GET / HTTP/1.1\nHost: web\r\n\r\n"),
        r#""-" 400 0 bad_request:bare_lf PR - - - 0 0 - - - T"#
    );
    assert_eq!(
        line(
            "GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        r#""-" 400 0 bad_request:two_framings PR - - - 0 0 - - - T"#
    );
    assert_eq!(
        line("GET  / HTTP/1.1\r\nHost: web\r\n\r\n"),
        r#""-" 400 0 bad_request:malformed PR - - - 0 0 - - - T"#
    );
    assert_eq!(
        line("GET / HTTP/1.1\r\nHost"),
        r#""-" 408 0 header_timeout:header_timeout cR - - - 0 0 - - - T"#
    );
    assert_eq!(backend.seen().len(), 0);
}

const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";

#[test]
fn every_reason_of_a_backend_has_its_line() {
    let refused = refusing();
    assert_eq!(
        one(Limits::default(), &[refused], ask(GET)),
        format!(r#""GET / HTTP/1.1" 502 49 connect_refused SC web {refused} - 0 0 T - - T"#)
    );
    let with = |reply: fn() -> Reply, read: fn(&mut TestFront)| {
        let backend = Backend::start(move |_| reply());
        let line = one(short(), &[backend.address], read);
        line.replace(&backend.address.to_string(), "B")
    };
    let whole: fn(&mut TestFront) = |front| drop(front.ask(GET));
    let cut: fn(&mut TestFront) = |front| {
        let mut client = front.client();
        client.send(GET).head();
        // The front closes in the middle, or after what it had.
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut Vec::new());
    };
    assert_eq!(
        with(|| Reply::Close(Vec::new()), whole),
        r#""GET / HTTP/1.1" 502 50 backend_reset SH web B new 0 0 T T - T"#
    );
    assert_eq!(
        with(|| Reply::Close(b"nonsense\r\n\r\n".into()), whole),
        r#""GET / HTTP/1.1" 502 47 response_invalid PH web B new 0 0 T T T T"#
            .replacen("T T T T", "T T - T", 1)
    );
    assert_eq!(
        with(|| Reply::Stall(Vec::new()), whole),
        r#""GET / HTTP/1.1" 504 46 response_timeout sH web B new 0 0 T T - T"#
    );
    assert_eq!(
        with(|| Reply::Close(HALF.into()), cut),
        r#""GET / HTTP/1.1" 200 4 response_truncated SD web B new 0 0 T T T T"#
    );
    assert_eq!(
        with(|| Reply::Stall(HALF.into()), cut),
        r#""GET / HTTP/1.1" 200 4 response_stalled sD web B new 0 0 T T T T"#
    );
}

#[test]
fn every_reason_of_a_client_has_its_line() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let address = backend.address;
    let late = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nhalf";
    assert_eq!(
        one(short(), &[address], tell(late)),
        format!(r#""POST / HTTP/1.1" 408 46 body_timeout cD web {address} new 0 4 T T - T"#)
    );
    let leave = |front: &mut TestFront| {
        let seen = backend.seen().len();
        let mut client = front.client();
        client.send(GET);
        eventually("the backend has it", || {
            (backend.seen().len() > seen).then_some(())
        });
    };
    assert_eq!(
        one(Limits::default(), &[address], leave),
        format!(r#""GET / HTTP/1.1" - 0 client_abort CH web {address} new 0 0 T T - T"#)
    );
}

#[test]
fn a_retry_shows_the_backend_that_answered_and_how_often() {
    let backend = Backend::named("hello");
    let (refused, address) = (refusing(), backend.address);
    assert_eq!(
        one(Limits::default(), &[refused, address], ask(GET)),
        format!(r#""GET / HTTP/1.1" 200 5 ok -- web {address} new 1 0 T T T T"#)
    );
}

const UPGRADE: &str =
    "GET /socket HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

#[test]
fn a_tunnel_has_its_line_at_its_end() {
    let backend = Backend::start(|_| Reply::Echo(SWITCHED.into()));
    let address = backend.address;
    let closed = |front: &mut TestFront| {
        let mut client = front.client();
        client.send(UPGRADE).head();
        client.send("hello").bytes(5);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"");
    };
    assert_eq!(
        one(Limits::default(), &[address], closed),
        format!(r#""GET /socket HTTP/1.1" 101 5 ok -- web {address} new 0 5 T T T T"#)
    );
    let idle = |front: &mut TestFront| {
        let mut client = front.client();
        client.send(UPGRADE).head();
        assert_eq!(client.rest(), b"");
    };
    assert_eq!(
        one(short(), &[address], idle),
        format!(r#""GET /socket HTTP/1.1" 101 0 tunnel_idle cD web {address} new 0 0 T T T T"#)
    );
}

#[test]
fn a_tunnel_that_is_cut_says_so() {
    let backend = Backend::start(|_| Reply::Echo(SWITCHED.into()));
    let front = TestFront::start_for(Limits::default(), 1, Duration::from_millis(100));
    let log = LogSettings {
        format: Some(LogFormat::Common),
        ..LogSettings::default()
    };
    let mut logged = Logged::on(front, log, &[backend.address]);
    let mut client = logged.front.client();
    client.send(UPGRADE).head();
    logged.front.drain().join().unwrap();
    let lines = logged.lines(1);
    assert!(lines[0].contains(" 101 0 draining PC web "), "{lines:?}");
}

#[test]
fn a_connection_refused_over_http_2_has_a_line() {
    let logged = Logged::of(LogFormat::Common, &[]);
    let begin = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = "\0\0\0\x04\0\0\0\0\0";
    for (sent, fault) in [
        // A stream that was never opened.
        ("\0\0\x01\0\0\0\0\0\x01x".to_owned(), "http_2"),
        (settings.repeat(5000), "http_2_flood"),
    ] {
        let known = logged.now();
        let mut client = logged.front.client();
        client.send(begin).send(settings).send(sent);
        let line = golden(&logged.lines(known + 1)[known]);
        let expected = r#"127.0.0.1 - - T T "-" - 0 bad_request:"#.to_owned() + fault;
        assert_eq!(line, expected + " PR - - - 0 0 - - - T");
    }
}
