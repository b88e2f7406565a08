//! The access log of what the front answers by itself, because it must wait for too long, or a service asks for it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lb_front::{
    LimitSettings, Limits, Settings,
    log::{LogFormat, LogSettings},
    routes::{RouteAccess, RouteService, RoutesChange},
    rules::{Maintenance, Rate, Redirect, Rules, Target},
};

use crate::{
    kit::{Answer, Backend, Client, GET, Reply, TestFront, eventually, golden, routes},
    log::Logged,
    queueing::BlackHole,
};

fn logs() -> Settings {
    Settings {
        log: LogSettings {
            format: Some(LogFormat::Common),
            ..LogSettings::default()
        },
        ..Settings::default()
    }
}

/// The line, from the request on, of the answer that is told to `what`, and the length of that.
#[track_caller]
fn line(logged: &Logged, ask: impl FnOnce(&TestFront) -> Answer) -> (String, usize) {
    let known = logged.now();
    let answer = ask(&logged.front);
    let lines = logged.lines(known + 1);
    let line = golden(&lines[known]);
    let line = line.strip_prefix("127.0.0.1 - - T T ").unwrap();
    (line.to_owned(), answer.body.len())
}

/// `web`, changed.
fn changed(backend: SocketAddr, change: impl FnOnce(&mut RouteService)) -> RoutesChange {
    let mut routes = routes(&[backend]);
    change(Arc::make_mut(routes.services[0].1.as_mut().unwrap()));
    routes
}

#[test]
fn what_a_service_asks_for_has_its_line() {
    let backend = Backend::named("a");
    let logged = Logged::of(LogFormat::Common, &[backend.address]);
    let ruled = |rules| changed(backend.address, |web| web.rules = Some(Arc::new(rules)));
    let maintenance = Rules {
        maintenance: Some(Maintenance::default()),
        ..Rules::default()
    };
    let redirect = Rules {
        redirect: Some(Redirect {
            status: 308,
            to: Target::Site("https://www.example".to_owned()),
        }),
        ..Rules::default()
    };
    let rate = Rules {
        rate: Some(Rate {
            requests: 1,
            seconds: 3600,
            burst: 1,
        }),
        ..Rules::default()
    };
    let nobody = RouteAccess {
        host: false,
        allow: Vec::new(),
        deny: Vec::new(),
    };
    let denied = changed(backend.address, |web| web.access = Some(nobody));
    for (routes, status, said) in [
        (denied, 403, "denied PR"),
        (ruled(maintenance), 503, "maintenance LR"),
        (ruled(redirect), 308, "redirect LR"),
    ] {
        logged.front.front.publish(&routes, &logs());
        let (line, length) = line(&logged, |front| front.ask(GET));
        let expected = format!(r#""GET / HTTP/1.1" {status} {length} {said} web - - 0 0 - - - T"#);
        assert_eq!(line, expected);
    }
    assert!(backend.seen().is_empty());
    logged.front.front.publish(&ruled(rate), &logs());
    let (first, _) = line(&logged, |front| front.ask(GET));
    assert!(first.contains(" 200 1 ok -- web "), "{first}");
    let (second, length) = line(&logged, |front| front.ask(GET));
    let expected = format!(r#""GET / HTTP/1.1" 429 {length} rate_limited PR web - - 0 0 - - - T"#);
    assert_eq!(second, expected);
}

/// A client whose request has the only place.
fn busy(logged: &Logged, backend: &Backend) -> Client {
    let mut client = logged.front.client();
    client.send(GET);
    eventually("it has the place", || {
        (backend.seen().len() == 1).then_some(())
    });
    client
}

#[test]
fn what_waits_for_too_long_or_may_not_has_its_line() {
    for (queued, said) in [(0, "limit PC"), (1, "queue_timeout sQ")] {
        let backend = Backend::start(|_| Reply::Stall(Vec::new()));
        let limits = Limits {
            backend_connections: 1,
            queue: Duration::from_millis(100),
            queued,
            ..Limits::default()
        };
        let logged = Logged::start(logs().log, limits, &[backend.address]);
        let _busy = busy(&logged, &backend);
        let (line, length) = line(&logged, |front| front.ask(GET));
        let expected = format!(r#""GET / HTTP/1.1" 503 {length} {said} web - - 0 0 T - - T"#);
        assert_eq!(line, expected);
    }
}

#[test]
fn what_takes_too_long_has_its_line_wherever_it_was() {
    let backend = Backend::start(|seen| match seen.head.contains("/half") {
        true => Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()),
        false => Reply::Stall(Vec::new()),
    });
    let hole = BlackHole::dig();
    let limits = |backend_connections| Limits {
        backend_connections,
        request: Some(Duration::from_millis(300)),
        ..Limits::default()
    };
    let logged = |connections, address| Logged::start(logs().log, limits(connections), &[address]);
    // Who has the place came when there was no limit.
    let one = Limits {
        request: None,
        ..limits(1)
    };
    let waits = Logged::start(logs().log, one, &[backend.address]);
    let _busy = busy(&waits, &backend);
    let settings = Settings {
        limits: LimitSettings {
            request: limits(1).request,
            ..LimitSettings::default()
        },
        ..logs()
    };
    let front = &waits.front.front;
    front.publish(&routes(&[backend.address]), &settings);
    let queued = " 504 43 request_timeout sQ web - ";
    eventually("the limit holds", || {
        let (line, _) = line(&waits, |front| front.ask(GET));
        line.contains(queued).then_some(())
    });

    let (connecting, _) = line(&logged(9, hole.address), |front| front.ask(GET));
    assert!(
        connecting.contains(" 504 43 request_timeout sC web "),
        "{connecting}"
    );

    let sent = logged(9, backend.address);
    let (asked, _) = line(&sent, |front| front.ask(GET));
    assert!(asked.contains(" 504 43 request_timeout sH web "), "{asked}");
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\n";
    let (uploading, _) = line(&sent, |front| front.ask(post));
    assert!(
        uploading.contains(" 408 43 request_timeout cD web "),
        "{uploading}"
    );
    let known = sent.now();
    let mut client = sent.front.client();
    client.send("GET /half HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(client.head().contains(" 200 OK"));
    assert_eq!(client.rest(), b"half");
    let half = golden(&sent.lines(known + 1)[known]);
    assert!(half.contains(" 200 4 request_timeout PD web "), "{half}");
}

#[test]
fn a_backend_that_does_not_accept_has_its_line() {
    let hole = BlackHole::dig();
    let limits = Limits {
        connect: Duration::from_millis(100),
        ..Limits::default()
    };
    let logged = Logged::start(logs().log, limits, &[hole.address]);
    let (line, length) = line(&logged, |front| front.ask(GET));
    let address = hole.address;
    let expected =
        format!(r#""GET / HTTP/1.1" 504 {length} connect_timeout sC web {address} - 0 0 T - - T"#);
    assert_eq!(line, expected);
}
