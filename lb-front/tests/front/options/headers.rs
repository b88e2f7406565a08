//! `lb_header_*`.

use std::collections::BTreeMap;

use lb_front::rules::Rules;

use super::{changed, front};
use crate::kit::{Backend, GET, Reply};

fn fields(fields: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    let owned = |(name, value): &(&str, Option<&str>)| {
        let value = value.map(str::to_owned);
        (str::to_owned(name), value)
    };
    fields.iter().map(owned).collect()
}

#[test]
fn fields_of_a_request_are_set_and_removed_on_the_way_to_the_backend() {
    let backend = Backend::named("a");
    let rules = Rules {
        request_headers: fields(&[
            ("x-tenant", Some("blue")),
            ("authorization", Some("Basic Zm9v")),
            ("cookie", None),
            ("x-gone", None),
        ]),
        ..Rules::default()
    };
    let front = front(rules, &backend);
    // Nobody can have a field removed that the service sets: it is set after those that Connection names are gone.
    let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: x-tenant\r\nX-Tenant: red\r\nX-Tenant: green\r\n\
                   Cookie: a=b\r\nX-Other: c\r\n\r\n";
    assert_eq!(front.ask(request).status, 200);
    let seen = backend.seen().remove(0);
    let count = seen.head.matches("x-tenant: ").count();
    assert_eq!(
        (seen.field("x-tenant"), count),
        (Some("blue"), 1),
        "{}",
        seen.head
    );
    assert_eq!(seen.field("authorization"), Some("Basic Zm9v"));
    assert_eq!(seen.field("cookie"), None);
    assert_eq!(seen.field("x-other"), Some("c"));
    assert_eq!(seen.field("host"), Some("web"));
}

#[test]
fn fields_of_an_answer_are_set_and_removed_on_the_way_to_the_client() {
    let backend = Backend::start(|_| {
        Reply::Keep(
            b"HTTP/1.1 200 OK\r\nServer: app/1\r\nX-Frame-Options: ALLOW\r\nX-Frame-Options: X\r\n\
              Content-Length: 1\r\n\r\na"
                .to_vec(),
        )
    });
    let rules = Rules {
        response_headers: fields(&[("server", None), ("x-frame-options", Some("DENY"))]),
        ..Rules::default()
    };
    let front = front(rules, &backend);
    let mut client = front.client();
    let answer = client.send(GET).answer();
    assert_eq!((answer.status, &*answer.body), (200, "a"));
    assert_eq!(answer.field("server"), None);
    assert_eq!(answer.field("x-frame-options"), Some("DENY"));
    assert_eq!(
        answer
            .head
            .to_ascii_lowercase()
            .matches("x-frame-options")
            .count(),
        1
    );
    // Without the rules it is the backend's word, on the same connection.
    front.front.change(&changed(Rules::default(), &backend));
    let answer = client.send(GET).answer();
    assert_eq!(answer.field("server"), Some("app/1"));
    assert_eq!(answer.field("x-frame-options"), Some("ALLOW"));
}
