//! `lb_cors`.

use lb_front::{
    Reason,
    rules::{Cors, Rules},
};

use super::{changed, front};
use crate::kit::{Answer, Backend, GET, Reply};

fn cors(origins: Option<&[&str]>, credentials: bool) -> Rules {
    let origins = origins.map(|origins| origins.iter().map(ToString::to_string).collect());
    Rules {
        cors: Some(Cors {
            origins,
            credentials,
        }),
        ..Rules::default()
    }
}

/// A backend that has its own idea of who may read its answers.
fn open_minded() -> Backend {
    Backend::start(|_| {
        Reply::Keep(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
              Vary: accept\r\nContent-Length: 1\r\n\r\na"
                .to_vec(),
        )
    })
}

fn from(origin: &str) -> String {
    GET.replace("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"))
}

fn preflight(origin: &str) -> String {
    from(origin).replace("GET", "OPTIONS").replace(
        "\r\n\r\n",
        "\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a, x-b\r\n\r\n",
    )
}

/// Whom the answer lets read it, and whether with cookies.
fn allowed(answer: &Answer) -> (Option<&str>, bool) {
    let credentials = answer.field("access-control-allow-credentials");
    (
        answer.field("access-control-allow-origin"),
        credentials == Some("true"),
    )
}

fn varies(answer: &Answer) -> bool {
    answer
        .head
        .to_ascii_lowercase()
        .contains("\r\nvary: origin\r\n")
}

#[test]
fn pages_of_the_origins_that_a_service_names_may_read_its_answers() {
    let backend = open_minded();
    let near = "https://a.example";
    let front = front(cors(Some(&[near, "http://b.example:81"]), true), &backend);
    for origin in [near, "http://b.example:81"] {
        let answer = front.ask(from(origin));
        assert_eq!((answer.status, &*answer.body), (200, "a"));
        assert_eq!(allowed(&answer), (Some(origin), true));
        assert!(varies(&answer), "{}", answer.head);
    }
    // What the backend says does not count; nor is anything said to other pages, or to no page.
    for request in [
        from("https://c.example"),
        from("null"),
        from("https://a.example.c"),
        GET.to_owned(),
    ] {
        let answer = front.ask(request);
        assert_eq!(answer.status, 200);
        assert_eq!(allowed(&answer), (None, false));
        assert!(varies(&answer), "{}", answer.head);
    }
    front.front.change(&changed(cors(None, false), &backend));
    let answer = front.ask(from("https://c.example"));
    assert_eq!(allowed(&answer), (Some("*"), false));
    assert!(!varies(&answer), "{}", answer.head);
    assert_eq!(answer.field("vary"), Some("accept"));
}

#[test]
fn a_browser_that_asks_whether_it_may_is_answered_by_the_front() {
    let backend = open_minded();
    let near = "https://a.example";
    let front = front(cors(Some(&[near]), false), &backend);
    let answer = front.client().send(preflight(near)).head();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    for line in [
        "access-control-allow-origin: https://a.example",
        "access-control-allow-methods: PUT",
        "access-control-allow-headers: x-a, x-b",
        "access-control-max-age: 600",
        "vary: origin",
    ] {
        assert!(
            answer.contains(&format!("\r\n{line}\r\n")),
            "{line}: {answer}"
        );
    }
    assert!(!answer.contains("credentials"), "{answer}");
    let refused = front.client().send(preflight("https://c.example")).head();
    assert!(refused.starts_with("HTTP/1.1 204 "), "{refused}");
    assert!(!refused.contains("access-control"), "{refused}");
    assert!(backend.seen().is_empty());
    assert_eq!(front.stats().ended(Reason::Preflight), 2);
    // Any other OPTIONS is the service's.
    let plain = from(near).replace("GET", "OPTIONS");
    assert_eq!(front.ask(plain).body, "a");
    assert_eq!(
        front.ask("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n").body,
        "a"
    );
}
