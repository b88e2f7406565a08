//! What is in a line.

use std::time::Duration;

use lb_front::{
    Forwarding, Limits, Settings,
    log::{LogFormat, LogSettings},
};

use super::Logged;
use crate::kit::{Backend, GET, Reply, eventually, golden, routes};

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
