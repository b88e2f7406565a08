//! `lb_redirect`.

use lb_front::{
    Forwarding, Reason, Settings,
    rules::{Redirect, Rules, Target},
};

use super::{changed, front, ruled};
use crate::kit::{Backend, GET};

fn to(status: u16, to: Target) -> Rules {
    Rules {
        redirect: Some(Redirect { status, to }),
        ..Rules::default()
    }
}

fn site(text: &str) -> Target {
    Target::Site(text.to_owned())
}

#[test]
fn clients_are_sent_where_the_service_says() {
    let backend = Backend::named("a");
    let front = front(Rules::default(), &backend);
    let mut count = 0;
    for (target, line, host, location) in [
        (
            Target::Https(None),
            "GET /a?b=c",
            "web",
            "https://web/a?b=c",
        ),
        (Target::Https(None), "GET /", "WEB.:8080", "https://web/"),
        (
            Target::Https(Some(8443)),
            "POST /x",
            "web:80",
            "https://web:8443/x",
        ),
        (Target::Https(None), "GET http://web", "web", "https://web/"),
        (Target::Https(None), "OPTIONS *", "web", "https://web/"),
        // What looks like another host is a path.
        (
            Target::Https(None),
            "GET //evil.example",
            "web",
            "https://web//evil.example",
        ),
        (
            site("http://b.example:81"),
            "GET /a?b",
            "web",
            "http://b.example:81/a?b",
        ),
        (site("http://web:81"), "GET /", "web", "http://web:81/"),
        (site("http://web"), "GET /", "web.localhost", "http://web/"),
        (
            Target::Url("https://b.example/c?d".to_owned()),
            "GET /a?b",
            "web",
            "https://b.example/c?d",
        ),
    ] {
        for status in [301, 302, 307, 308] {
            let rules = to(status, target.clone());
            front.front.change(&changed(rules, &backend));
            let answer = front.ask(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(answer.status, status, "{line} {host}");
            assert_eq!(answer.field("location"), Some(location));
            count += 1;
        }
    }
    assert!(backend.seen().is_empty());
    assert_eq!(front.stats().ended(Reason::Redirect), count);
}

#[test]
fn a_request_that_is_where_it_should_be_goes_on() {
    let backend = Backend::named("a");
    let front = front(to(308, site("http://alias.example")), &backend);
    let from = |host: &str| GET.replace("web", host);
    for host in ["alias.example", "Alias.Example:80"] {
        assert_eq!(front.ask(from(host)).body, "a", "{host}");
    }
    for host in ["web", "alias.example:8080"] {
        let answer = front.ask(from(host));
        assert_eq!(answer.status, 308);
        assert_eq!(answer.field("location"), Some("http://alias.example/"));
    }
    // By HTTPS it would be somewhere else.
    let rules = to(308, site("https://alias.example"));
    front.front.change(&changed(rules, &backend));
    assert_eq!(front.ask(from("alias.example")).status, 308);
    let rules = to(302, Target::Url("http://web/login".to_owned()));
    front.front.change(&changed(rules, &backend));
    assert_eq!(front.ask(GET).status, 302);
    let there = GET.replace("GET /", "GET /login");
    assert_eq!(front.ask(there).body, "a");
}

#[test]
fn a_request_by_https_to_a_proxy_that_is_believed_goes_on() {
    let backend = Backend::named("a");
    let front = front(Rules::default(), &backend);
    let request = GET.replace("\r\n\r\n", "\r\nX-Forwarded-Proto: https\r\n\r\n");
    for (trusted, status) in [("192.0.2.0/24", 308), ("127.0.0.0/8", 200)] {
        let settings = Settings {
            forwarding: Forwarding {
                trusted_proxies: vec![trusted.parse().unwrap()],
                ..Forwarding::default()
            },
            ..Settings::default()
        };
        let routes = ruled(to(308, Target::Https(None)), &backend);
        front.front.publish(&routes, &settings);
        assert_eq!(front.ask(&request).status, status, "{trusted}");
        assert_eq!(front.ask(GET).status, 308);
    }
}
