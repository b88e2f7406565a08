//! `lb_rate`.

use std::net::SocketAddr;

use lb_front::{
    Forwarding, Limits, Reason, Settings,
    rules::{Cors, Rate, Rules},
};

use super::{changed, ruled};
use crate::kit::{Backend, Client, GET, TestFront};

/// So slow that no request becomes free during a test.
fn at_once(burst: u32) -> Rules {
    Rules {
        rate: Some(Rate {
            requests: 1,
            seconds: 3600,
            burst,
        }),
        ..Rules::default()
    }
}

/// A front with four workers.
fn wide(rules: Rules, backend: &Backend, settings: &Settings) -> TestFront {
    let front = TestFront::start(Limits::default(), 4);
    front.front.publish(&ruled(rules, backend), settings);
    front
}

fn trusting() -> Settings {
    Settings {
        forwarding: Forwarding {
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
            ..Forwarding::default()
        },
        ..Settings::default()
    }
}

fn from(client: &str) -> String {
    GET.replace(
        "\r\n\r\n",
        &format!("\r\nX-Forwarded-For: {client}\r\n\r\n"),
    )
}

#[test]
fn a_client_that_asks_too_fast_is_told_when_to_come_again() {
    let backend = Backend::named("a");
    let front = super::front(at_once(2), &backend);
    let mut client = front.client();
    for _ in 0..2 {
        assert_eq!(client.send(GET).answer().status, 200);
    }
    let answer = client.send(GET).answer();
    assert_eq!(answer.status, 429);
    assert_eq!(
        answer.body,
        "rate_limited: too many requests of this client\n"
    );
    assert_eq!(answer.field("retry-after"), Some("3600"));
    // The connection stays, and other services have nothing to do with it.
    assert_eq!(client.send(GET.replace("web", "down")).answer().status, 503);
    assert_eq!(front.stats().ended(Reason::RateLimited), 1);
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn the_limit_is_one_for_all_workers_and_connections() {
    let backend = Backend::named("a");
    let front = wide(at_once(20), &backend, &Settings::default());
    let answers: Vec<_> = (0..60).map(|_| front.ask(GET).status).collect();
    let served = answers.iter().filter(|status| **status == 200).count();
    assert_eq!(served, 20, "{answers:?}");
    assert_eq!(front.stats().ended(Reason::RateLimited), 40);
}

#[test]
fn a_change_of_the_service_forgets_nobody() {
    let backend = Backend::named("a");
    let front = super::front(at_once(1), &backend);
    assert_eq!(front.ask(GET).status, 200);
    let other = Backend::named("b");
    front.front.change(&changed(at_once(1), &other));
    assert_eq!(front.ask(GET).status, 429);
    // Nor do all routes of another agent.
    front
        .front
        .publish(&ruled(at_once(1), &other), &Settings::default());
    assert_eq!(front.ask(GET).status, 429);
    front.front.change(&changed(Rules::default(), &other));
    assert_eq!(front.ask(GET).body, "b");
}

#[test]
fn a_client_is_whom_a_trusted_proxy_names_and_in_ipv6_a_64() {
    let backend = Backend::named("a");
    let front = wide(at_once(1), &backend, &trusting());
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("192.0.2.1", 429),
        // What the client itself wrote before its proxy.
        ("198.51.100.9, 192.0.2.2", 429),
        ("2001:db8::1", 200),
        ("2001:db8::ffff:2", 429),
        ("2001:db8:0:1::1", 200),
    ] {
        assert_eq!(front.ask(from(client)).status, status, "{client}");
    }
    // Nobody else is believed.
    front
        .front
        .publish(&ruled(at_once(1), &backend), &Settings::default());
    assert_eq!(front.ask(from("192.0.2.7")).status, 200);
    assert_eq!(front.ask(from("192.0.2.8")).status, 429);
    let elsewhere: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&elsewhere.into()).unwrap();
    socket.connect(&front.address.into()).unwrap();
    assert_eq!(Client::over(socket.into()).send(GET).answer().status, 200);
}

#[test]
fn a_page_is_told_and_its_preflights_do_not_count() {
    let backend = Backend::named("a");
    let page = "https://a.example";
    let rules = Rules {
        cors: Some(Cors {
            origins: Some([page.to_owned()].into()),
            credentials: false,
        }),
        ..at_once(1)
    };
    let front = super::front(rules, &backend);
    let asking = GET.replace("\r\n\r\n", &format!("\r\nOrigin: {page}\r\n\r\n"));
    let preflight = asking.replace("GET", "OPTIONS");
    let preflight = preflight.replace("\r\n\r\n", "\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
    for _ in 0..3 {
        let head = front.client().send(&preflight).head();
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    }
    assert_eq!(front.ask(&asking).status, 200);
    let answer = front.ask(&asking);
    assert_eq!(answer.status, 429);
    assert_eq!(answer.field("access-control-allow-origin"), Some(page));
}
