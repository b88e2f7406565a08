//! Clients that come without TLS are told to come with it.

use lb_front::{
    HttpsSettings, Limits, Settings,
    rules::{Redirect, Target},
};

use super::{connect, front};
use crate::kit::{Backend, GET, Reply, routes};

#[test]
fn plain_http_is_sent_to_https_and_told_to_stay_there() {
    let backend = Backend::named("a");
    let front = front(Limits::default(), &[&backend]);
    let https = HttpsSettings {
        redirect: Some(Redirect {
            status: 308,
            to: Target::Https(Some(8443)),
        }),
        hsts: Some("max-age=600".into()),
    };
    let mut settings = Settings {
        https,
        ..Settings::default()
    };
    let routes = routes(&[backend.address]);
    front.front.publish(&routes, &settings);
    let answer = front.ask("GET /a?b HTTP/1.1\r\nHost: web:8080\r\n\r\n");
    assert_eq!(answer.status, 308);
    assert_eq!(answer.field("location"), Some("https://web:8443/a?b"));
    // Whoever listens in could have written it (RFC 6797 section 7.2).
    assert_eq!(answer.field("strict-transport-security"), None);
    // No name, no place to go.
    assert_eq!(
        front.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status,
        503
    );
    assert_eq!(backend.seen().len(), 0);
    let mut client = connect(&front);
    let answer = client.send(GET).answer();
    assert_eq!((answer.status, &*answer.body), (200, "a"));
    assert_eq!(
        answer.field("strict-transport-security"),
        Some("max-age=600")
    );
    let refused = client
        .send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")
        .answer();
    assert_eq!(
        refused.field("strict-transport-security"),
        Some("max-age=600")
    );
    // Behind a proxy that is believed.
    settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    front.front.publish(&routes, &settings);
    let told = "GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(front.ask(told).status, 200);
    let told = "GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Proto: http\r\n\r\n";
    assert_eq!(connect(&front).send(told).answer().status, 308);
}

#[test]
fn a_service_that_says_more_itself_is_left_to_it() {
    let own =
        "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n";
    let backend = Backend::start(move |_| Reply::Keep(own.into()));
    let front = front(Limits::default(), &[&backend]);
    let mut settings = Settings::default();
    settings.https.hsts = Some("max-age=600".into());
    front.front.publish(&routes(&[backend.address]), &settings);
    let answer = connect(&front).send(GET).answer();
    let all = answer.head.matches("trict-").count();
    assert_eq!(
        (answer.field("strict-transport-security"), all),
        (Some("max-age=1"), 1)
    );
}
