//! `lb_auth`.

use std::{fs::File, io::ErrorKind, io::Read as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lb_front::{
    Reason, Settings,
    log::{LogFormat, LogSettings},
    routes::RoutesChange,
    rules::{Cors, Rate, Rules},
    users::Users,
};

use super::{changed, ruled};
use crate::kit::{Backend, GET, TestFront, eventually};

fn of_staff() -> Rules {
    Rules {
        auth: Some("staff".to_owned()),
        ..Rules::default()
    }
}

/// The list `staff` from now on, with these users, their passwords, and the cost of their hashes.
fn staff(users: &[(&str, &str)], cost: u32) -> RoutesChange {
    let hashed = users.iter().map(|(name, password)| {
        let hash = bcrypt::hash(password, cost).unwrap();
        ((*name).to_owned(), hash)
    });
    RoutesChange {
        users: vec![(
            "staff".to_owned(),
            Some(Arc::new(Users::new(hashed.collect()))),
        )],
        ..RoutesChange::default()
    }
}

/// A front whose `web`, on `backend`, has these rules, and whose `staff` is Ann alone.
fn guarded(rules: Rules, backend: &Backend) -> TestFront {
    let front = super::front(rules, backend);
    front.front.change(&staff(&[("ann", "secret")], 4));
    front
}

fn with(field: &str) -> String {
    GET.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"))
}

fn by(name: &str, password: &str) -> String {
    let token = STANDARD.encode(format!("{name}:{password}"));
    with(&format!("Authorization: Basic {token}"))
}

#[test]
fn only_users_are_let_in_and_backends_are_told_who_they_are() {
    let backend = Backend::named("a");
    let front = guarded(of_staff(), &backend);
    let mut client = front.client();
    for (request, count) in [
        (GET.to_owned(), 1),
        (by("ann", "other"), 2),
        (by("eve", "secret"), 3),
        (by("", ""), 4),
        (with("Authorization: Bearer x"), 5),
        (with("X-Forwarded-User: ann"), 6),
    ] {
        let answer = client.send(&request).answer();
        assert_eq!(answer.status, 401, "{request}");
        assert_eq!(
            answer.field("www-authenticate"),
            Some("Basic realm=\"staff\", charset=\"UTF-8\"")
        );
        assert_eq!(
            answer.body,
            "unauthorized: give the name and the password of a user\n"
        );
        assert_eq!(front.stats().ended(Reason::Unauthorized), count);
    }
    assert!(backend.seen().is_empty());
    // At first by its hash, then from memory.
    for _ in 0..2 {
        let request = by("ann", "secret").replace("\r\n\r\n", "\r\nX-Forwarded-User: root\r\n\r\n");
        assert_eq!(client.send(&request).answer().body, "a");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.field("x-forwarded-user"), Some("ann"));
        assert_eq!(seen.head.matches("x-forwarded-user").count(), 1);
        assert_eq!(seen.field("authorization"), None, "{}", seen.head);
    }
    // It is nobody else's business.
    front.front.change(&changed(Rules::default(), &backend));
    assert_eq!(client.send(by("ann", "other")).answer().body, "a");
    let seen = backend.seen().pop().unwrap();
    assert!(seen.field("authorization").is_some() && seen.field("x-forwarded-user").is_none());
}

#[test]
fn a_service_whose_users_are_not_known_is_closed() {
    let backend = Backend::named("a");
    let front = super::front(of_staff(), &backend);
    let mut client = front.client();
    let closed = |answer: crate::kit::Answer| {
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.body,
            "no_users: the users of this service are not known\n"
        );
    };
    closed(client.send(by("ann", "secret")).answer());
    front.front.change(&staff(&[("ann", "secret")], 4));
    assert_eq!(client.send(by("ann", "secret")).answer().body, "a");
    // What was right is not remembered beyond its list.
    let gone = RoutesChange {
        users: vec![("staff".to_owned(), None)],
        ..RoutesChange::default()
    };
    front.front.change(&gone);
    closed(client.send(by("ann", "secret")).answer());
    front.front.change(&staff(&[], 4));
    assert_eq!(client.send(by("ann", "secret")).answer().status, 401);
    // All routes of another agent say anew which lists there are.
    front.front.change(&staff(&[("ann", "secret")], 4));
    front
        .front
        .publish(&ruled(of_staff(), &backend), &Settings::default());
    closed(client.send(by("ann", "secret")).answer());
    assert_eq!(front.stats().ended(Reason::NoUsers), 3);
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn a_new_password_counts_at_once_and_the_old_one_no_more() {
    let backend = Backend::named("a");
    let front = guarded(of_staff(), &backend);
    let mut client = front.client();
    assert_eq!(client.send(by("ann", "secret")).answer().status, 200);
    front
        .front
        .change(&staff(&[("ann", "new"), ("bob", "secret")], 4));
    assert_eq!(client.send(by("ann", "secret")).answer().status, 401);
    assert_eq!(client.send(by("ann", "new")).answer().status, 200);
    assert_eq!(client.send(by("bob", "secret")).answer().status, 200);
}

#[test]
fn a_browser_may_ask_whether_it_may_and_its_page_learns_that_it_may_not() {
    let backend = Backend::named("a");
    let page = "https://a.example";
    let rules = Rules {
        cors: Some(Cors {
            origins: Some([page.to_owned()].into()),
            credentials: true,
        }),
        ..of_staff()
    };
    let front = guarded(rules, &backend);
    let asking = with(&format!("Origin: {page}"));
    let preflight = asking.replace("GET", "OPTIONS");
    let preflight = preflight.replace("\r\n\r\n", "\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
    let head = front.client().send(preflight).head();
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    for request in [
        asking,
        by("ann", "no").replace("\r\n\r\n", &format!("\r\nOrigin: {page}\r\n\r\n")),
    ] {
        let answer = front.ask(request);
        assert_eq!(answer.status, 401);
        assert_eq!(answer.field("access-control-allow-origin"), Some(page));
    }
}

#[test]
fn whoever_guesses_is_stopped_by_the_rate() {
    let backend = Backend::named("a");
    let rules = Rules {
        rate: Some(Rate {
            requests: 1,
            seconds: 3600,
            burst: 3,
        }),
        ..of_staff()
    };
    let front = guarded(rules, &backend);
    let guesses = ["1", "2", "3", "secret"].map(|guess| front.ask(by("ann", guess)).status);
    assert_eq!(guesses, [401, 401, 401, 429]);
}

#[test]
fn an_upload_waits_for_its_user_and_is_not_read_for_nobody() {
    let backend = Backend::named("a");
    let front = guarded(of_staff(), &backend);
    let upload = |password: &str| {
        let request = by("ann", password).replace("GET", "POST");
        request.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc")
    };
    let answer = front.ask(upload("no"));
    assert_eq!(answer.status, 401);
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(front.ask(upload("secret")).status, 200);
    assert_eq!(backend.seen()[0].body, b"abc");
}

#[test]
fn others_are_served_while_a_password_is_looked_at() {
    let backend = Backend::named("a");
    let front = super::front(of_staff(), &backend);
    // A good second, at the speed of a debug build.
    front.front.change(&staff(&[("ann", "secret")], 11));
    let mut slow = front.client();
    slow.send(by("ann", "secret"));
    for _ in 0..10 {
        assert_eq!(front.ask(GET.replace("web", "down")).status, 503);
    }
    slow.stream.set_nonblocking(true).unwrap();
    let early = slow.stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    slow.stream.set_nonblocking(false).unwrap();
    assert_eq!(slow.answer().body, "a");
}

#[test]
fn the_log_names_users_and_no_password() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[]);
    let path = std::env::temp_dir().join(format!("lb-front-auth-{}", std::process::id()));
    front.front.log().write_to(File::create(&path).unwrap());
    for format in [LogFormat::Common, LogFormat::Json] {
        let settings = Settings {
            log: LogSettings {
                format: Some(format),
                headers: vec!["authorization".to_owned()],
                ..LogSettings::default()
            },
            ..Settings::default()
        };
        front.front.publish(&ruled(of_staff(), &backend), &settings);
        front.front.change(&staff(&[("ann \u{fc}", "secret")], 4));
        assert_eq!(front.ask(by("ann \u{fc}", "secret")).status, 200);
        assert_eq!(front.ask(by("ann \u{fc}", "wrong")).status, 401);
    }
    let text = eventually("the lines are there", || {
        let text = std::fs::read_to_string(&path).unwrap();
        (text.lines().count() >= 4).then_some(text)
    });
    std::fs::remove_file(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("127.0.0.1 - ann\\x20\\xc3\\xbc ["),
        "{text}"
    );
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{text}");
    assert!(lines[2].contains("\"user\":\"ann \u{fc}\""), "{text}");
    assert!(!lines[3].contains("\"user\""), "{text}");
    for password in ["secret", "wrong"] {
        let token = STANDARD.encode(format!("ann \u{fc}:{password}"));
        assert!(!text.contains(password) && !text.contains(&token), "{text}");
    }
}
