//! What a backend learns of the client, and from whom.

use lb_front::{Forwarding, Settings};

use crate::kit::{Backend, Seen, TestFront, routes};

const FORGED: &str = "GET / HTTP/1.1\r\nHost: web:8080\r\nX-Forwarded-For: 127.0.0.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\nX-Forwarded-Port: 443\r\nForwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Request-Id: abc\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

/// What the backend sees of [`FORGED`] while the proxies in `trusted` are.
fn seen(trusted: &str) -> Seen {
    let backend = Backend::named("hello");
    let front = TestFront::with(&[&backend]);
    let settings = Settings {
        forwarding: Forwarding {
            trusted_proxies: vec![trusted.parse().unwrap()],
            forwarded: true,
            ..Forwarding::default()
        },
        ..Settings::default()
    };
    front.front.publish(&routes(&[backend.address]), &settings);
    assert_eq!(front.ask(FORGED).status, 200);
    backend.seen().remove(0)
}

#[track_caller]
fn has(seen: &Seen, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(seen.field(name), Some(*value), "{name}");
    }
    let lower = seen.head.to_ascii_lowercase();
    for (name, _) in fields {
        assert_eq!(lower.matches(&format!("\r\n{name}: ")).count(), 1, "{name}");
    }
}

const TRACE: (&str, &str) = (
    "traceparent",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
);

#[test]
fn a_stranger_is_not_believed() {
    let seen = seen("10.0.0.0/8");
    has(
        &seen,
        &[
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "web:8080"),
            ("x-forwarded-port", "8080"),
            ("forwarded", "for=127.0.0.1;host=\"web:8080\";proto=http"),
            TRACE,
        ],
    );
    assert_eq!(seen.field("x-real-ip"), None);
    let id = seen.field("x-request-id").unwrap();
    assert_eq!((id.len(), id == "abc"), (32, false));
}

#[test]
fn a_trusted_proxy_is() {
    let seen = seen("127.0.0.0/8");
    has(
        &seen,
        &[
            ("x-forwarded-for", "127.0.0.1, 192.0.2.7, 127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("x-forwarded-port", "443"),
            (
                "forwarded",
                "for=192.0.2.7, for=127.0.0.1;host=\"web:8080\";proto=http",
            ),
            ("x-real-ip", "192.0.2.7"),
            ("x-request-id", "abc"),
            TRACE,
        ],
    );
}

#[test]
fn rules_of_addresses_mean_the_client_that_a_trusted_proxy_names_and_no_other() {
    let backend = Backend::named("hello");
    let front = TestFront::with(&[&backend]);
    let status = |trusted: &[&str], from: &str| {
        let mut routes = routes(&[backend.address]);
        let service = routes.services[0].1.as_mut().unwrap();
        std::sync::Arc::make_mut(service).access = Some(lb_front::routes::RouteAccess {
            host: true,
            allow: vec!["0.0.0.0/0".parse().unwrap()],
            deny: vec!["192.0.2.0/24".parse().unwrap()],
        });
        let settings = Settings {
            forwarding: Forwarding {
                trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
                ..Forwarding::default()
            },
            ..Settings::default()
        };
        front.front.publish(&routes, &settings);
        let request = format!("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: {from}\r\n\r\n");
        front.ask(request).status
    };
    let trusted = ["127.0.0.0/8"];
    assert_eq!(status(&trusted, "192.0.2.7"), 403);
    assert_eq!(status(&trusted, "198.51.100.7"), 200);
    // What the client itself has written comes before what the proxy saw.
    assert_eq!(status(&trusted, "198.51.100.7, 192.0.2.7"), 403);
    assert_eq!(status(&[], "192.0.2.7"), 200);
}
