//! The access log, line by line, over real sockets.

use std::{
    fs::{self, File},
    io::Write as _,
    net::Shutdown,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use lb_front::{
    Forwarding, Limits, Settings,
    log::{LogFormat, LogSettings},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::kit::{Backend, GET, Reply, TestFront, eventually, golden, ok, refusing, routes};

/// A front that logs into a file.
pub(crate) struct Logged {
    pub(crate) front: TestFront,
    path: PathBuf,
}

impl Logged {
    pub(crate) fn start(
        log: LogSettings,
        limits: Limits,
        backends: &[std::net::SocketAddr],
    ) -> Self {
        Self::on(TestFront::start(limits, 1), log, backends)
    }

    fn on(front: TestFront, log: LogSettings, backends: &[std::net::SocketAddr]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lb-front-log-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        front.front.log().write_to(File::create(&path).unwrap());
        let settings = Settings {
            log,
            ..Settings::default()
        };
        front.front.publish(&routes(backends), &settings);
        Self { front, path }
    }

    pub(crate) fn of(format: LogFormat, backends: &[std::net::SocketAddr]) -> Self {
        let log = LogSettings {
            format: Some(format),
            ..LogSettings::default()
        };
        Self::start(log, Limits::default(), backends)
    }

    /// How many lines there are.
    pub(crate) fn now(&self) -> usize {
        fs::read_to_string(&self.path).unwrap().lines().count()
    }

    /// The lines, once there are as many.
    #[track_caller]
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        eventually("the lines are there", || {
            let text = fs::read_to_string(&self.path).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The only line, as an object without what differs from run to run.
    #[track_caller]
    fn object(&self) -> serde_json::Map<String, serde_json::Value> {
        let lines = self.lines(1);
        let object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let mut object = object.as_object().unwrap().clone();
        for time in [
            "time",
            "queue_ms",
            "connect_ms",
            "first_byte_ms",
            "total_ms",
            "request_id",
        ] {
            object.remove(time);
        }
        object
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

const ASKED: &str = "POST /a?b=c HTTP/1.1\r\nHost: web\r\nReferer: http://x/?q\r\nUser-Agent: a \"b\"\r\nContent-Length: 3\r\n\r\nxyz";

#[test]
fn every_format_has_its_line() {
    let backend = Backend::named("hello");
    let address = backend.address;
    for (format, expected) in [
        (
            LogFormat::Common,
            format!(
                r#"127.0.0.1 - - T T "POST /a?b=c HTTP/1.1" 200 5 ok -- web {address} new 0 3 T T T T"#
            ),
        ),
        (
            LogFormat::Combined,
            format!(
                r#"127.0.0.1 - - T T "POST /a?b=c HTTP/1.1" 200 5 "http://x/?q" "a \"b\"" ok -- web {address} new 0 3 T T T T"#
            ),
        ),
    ] {
        let logged = Logged::of(format, &[address]);
        assert_eq!(logged.front.ask(ASKED).status, 200);
        assert_eq!(golden(&logged.lines(1)[0]), expected);
    }
    let logged = Logged::of(LogFormat::Json, &[address]);
    assert_eq!(logged.front.ask(ASKED).status, 200);
    let expected = serde_json::json!({
        "client": "127.0.0.1", "method": "POST", "target": "/a?b=c", "version": "HTTP/1.1",
        "host": "web", "referer": "http://x/?q", "user_agent": "a \"b\"",
        "status": 200, "reason": "ok", "end": "--", "service": "web",
        "backend": address.to_string(), "reused": false, "retries": 0, "received": 3, "sent": 5,
    });
    assert_eq!(serde_json::Value::Object(logged.object()), expected);
}

#[test]
fn a_line_has_the_id_that_the_backend_was_told() {
    let backend = Backend::named("hello");
    let logged = Logged::of(LogFormat::Json, &[backend.address]);
    logged.front.ask(GET);
    let line: serde_json::Value = serde_json::from_str(&logged.lines(1)[0]).unwrap();
    let seen = backend.seen();
    assert_eq!(line["request_id"].as_str(), seen[0].field("x-request-id"));
    assert!(line["total_ms"].as_f64() >= line["first_byte_ms"].as_f64());
    assert!(line["first_byte_ms"].as_f64() >= line["connect_ms"].as_f64());
    // Nobody was before it.
    assert_eq!(line["queue_ms"].as_f64(), Some(0.0));
}

#[test]
fn a_line_tells_how_long_the_request_waited_for_a_place() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let narrow = Limits {
        backend_connections: 1,
        queue: Duration::from_millis(50),
        ..Limits::default()
    };
    let log = LogSettings {
        format: Some(LogFormat::Json),
        ..LogSettings::default()
    };
    let logged = Logged::start(log, narrow, &[backend.address]);
    let mut first = logged.front.client();
    first.send(GET);
    eventually("it has the place", || {
        (backend.seen().len() == 1).then_some(())
    });
    assert_eq!(logged.front.ask(GET).status, 503);
    let line: serde_json::Value = serde_json::from_str(&logged.lines(1)[0]).unwrap();
    assert_eq!(line["reason"], "queue_timeout");
    let (queue, total) = (line["queue_ms"].as_f64(), line["total_ms"].as_f64());
    assert!(queue >= Some(50.0) && total >= queue, "{line}");
}

#[test]
fn a_line_tells_whether_the_connection_was_there_already() {
    let backend = Backend::named("hello");
    let logged = Logged::of(LogFormat::Common, &[backend.address]);
    let mut client = logged.front.client();
    for _ in 0..2 {
        assert_eq!(client.send(GET).answer().status, 200);
    }
    let lines = logged.lines(2);
    for (line, how) in lines.iter().zip(["new", "reused"]) {
        let expected = format!(" ok -- web {} {how} 0 0 T T T T", backend.address);
        assert!(golden(line).ends_with(&expected), "{lines:?}");
    }
}

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
fn behind_a_trusted_proxy_the_client_is_who_it_says() {
    let backend = Backend::named("hello");
    let logged = Logged::of(LogFormat::Common, &[backend.address]);
    let settings = Settings {
        forwarding: Forwarding {
            trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
            ..Forwarding::default()
        },
        log: LogSettings {
            format: Some(LogFormat::Common),
            ..LogSettings::default()
        },
        ..Settings::default()
    };
    logged
        .front
        .front
        .publish(&routes(&[backend.address]), &settings);
    logged
        .front
        .ask("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    assert!(logged.lines(1)[0].starts_with("192.0.2.7 - - ["));
}

#[test]
fn a_writer_that_is_stuck_delays_no_request() {
    let backend = Backend::named("hello");
    let logged = Logged::of(LogFormat::Combined, &[backend.address]);
    // A full pipe that nobody reads.
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 64 * 1024]).unwrap();
    logged
        .front
        .front
        .log()
        .write_to(File::from(OwnedFd::from(writer)));
    let agent = "a".repeat(8000);
    let request = format!("GET / HTTP/1.1\r\nHost: web\r\nUser-Agent: {agent}\r\n\r\n");
    let mut client = logged.front.client();
    // Far more than the buffers hold.
    for _ in 0..600 {
        assert_eq!(client.send(&request).answer().status, 200);
    }
    assert!(logged.front.front.log().lost() > 0);
    drop(reader);
}

#[test]
fn a_writer_that_waits_for_a_pipe_hears_of_another_file() {
    let backend = Backend::named("hello");
    for nonblocking in [false, true] {
        let logged = Logged::of(LogFormat::Combined, &[backend.address]);
        let log = logged.front.front.log();
        // A pipe that nobody reads, with room for a part of a line.
        let (_reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b'x'; 60 * 1024]).unwrap();
        let pipe = File::from(OwnedFd::from(writer.try_clone().unwrap()));
        if nonblocking {
            socket2::SockRef::from(&pipe).set_nonblocking(true).unwrap();
        }
        log.write_to(pipe);
        let agent = "a".repeat(8000);
        let mut client = logged.front.client();
        let request =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: web\r\nUser-Agent: {agent}\r\n\r\n");
        for path in ["/torn", "/whole"] {
            assert_eq!(client.send(request(path)).answer().status, 200);
        }
        eventually("it is full", || {
            let mut room = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
            (poll(&mut room, PollTimeout::ZERO).unwrap() == 0).then_some(())
        });
        log.write_to(File::create(&logged.path).unwrap());
        let lines = logged.lines(1);
        assert!(lines[0].contains("/whole") && lines.len() == 1, "{lines:?}");
        assert_eq!(log.lost(), 1);
    }
}

#[test]
fn a_full_disk_loses_lines_and_no_request() {
    let backend = Backend::named("a");
    let logged = Logged::of(LogFormat::Common, &[backend.address]);
    let log = logged.front.front.log();
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    log.write_to(full.unwrap());
    for _ in 0..3 {
        assert_eq!(logged.front.ask(GET).status, 200);
    }
    eventually("they are counted", || (log.lost() == 3).then_some(()));
    assert_eq!(logged.front.stats().log_lost, 3);
    log.write_to(File::create(&logged.path).unwrap());
    assert_eq!(logged.front.ask(GET).status, 200);
    assert_eq!(logged.lines(1).len(), 1);
    assert_eq!(log.lost(), 3);
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

#[test]
fn without_a_log_there_is_no_line_and_it_can_be_switched_on_later() {
    let backend = Backend::start(|_| Reply::Keep(ok("hello")));
    let logged = Logged::start(
        LogSettings::default(),
        Limits::default(),
        &[backend.address],
    );
    assert_eq!(
        logged
            .front
            .ask("GET /before HTTP/1.1\r\nHost: web\r\n\r\n")
            .status,
        200
    );
    let settings = Settings {
        log: LogSettings {
            format: Some(LogFormat::Common),
            ..LogSettings::default()
        },
        ..Settings::default()
    };
    logged
        .front
        .front
        .publish(&routes(&[backend.address]), &settings);
    assert_eq!(
        logged
            .front
            .ask("GET /after HTTP/1.1\r\nHost: web\r\n\r\n")
            .status,
        200
    );
    let lines = logged.lines(1);
    assert!(lines.len() == 1 && lines[0].contains("/after"), "{lines:?}");
}
