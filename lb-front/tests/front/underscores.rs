//! `[front] underscores`: fields with `_` in their names.

use lb_front::{Forwarding, Settings, rules::Rules};

use crate::kit::{Backend, TestFront, routes};

const HEAD: &str = "GET / HTTP/1.1\r\nHost: web\r\nX_Tenant: blue\r\nSM_USER: ann\r\nX_Request_Id: 7\r\nX_Real-Ip: 192.0.2.1\r\n";

fn settings() -> Settings {
    Settings {
        forwarding: Forwarding {
            underscores: true,
            ..Forwarding::default()
        },
        ..Settings::default()
    }
}

#[test]
fn they_are_left_out_unless_they_are_wanted() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    assert_eq!(front.ask(format!("{HEAD}\r\n")).body, "a");
    let seen = backend.seen().pop().unwrap();
    for name in ["x_tenant", "sm_user", "x_request_id", "x_real-ip"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    front
        .front
        .publish(&routes(&[backend.address]), &settings());
    assert_eq!(front.ask(format!("{HEAD}\r\n")).body, "a");
    let seen = backend.seen().pop().unwrap();
    assert_eq!(seen.field("x_tenant"), Some("blue"));
    assert_eq!(seen.field("sm_user"), Some("ann"));
    // What may be read as ours is not.
    assert_eq!(seen.field("x_request_id"), None);
    assert_eq!(seen.field("x_real-ip"), None);
    assert_eq!(seen.field("x-request-id").unwrap().len(), 32);
}

#[test]
fn one_that_the_front_relies_on_is_refused_all_the_same() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    front
        .front
        .publish(&routes(&[backend.address]), &settings());
    for name in [
        "Content_Length",
        "Transfer_Encoding",
        "X_Forwarded_For",
        "X-Forwarded_User",
        "Keep_Alive",
    ] {
        let answer = front.ask(format!("GET / HTTP/1.1\r\nHost: web\r\n{name}: 5\r\n\r\n"));
        assert_eq!(
            (answer.status, answer.field("connection")),
            (400, Some("close")),
            "{name}"
        );
    }
    assert!(backend.seen().is_empty());
}

#[test]
fn one_that_a_rule_sets_or_removes_has_no_double() {
    let backend = Backend::named("a");
    let rules = Rules {
        request_headers: [
            ("x-tenant".to_owned(), Some("red".to_owned())),
            ("sm-user".to_owned(), None),
        ]
        .into(),
        ..Rules::default()
    };
    let front = TestFront::with(&[&backend]);
    let mut ruled = routes(&[backend.address]);
    let web = std::sync::Arc::make_mut(ruled.services[0].1.as_mut().unwrap());
    web.rules = Some(rules.into());
    front.front.publish(&ruled, &settings());
    assert_eq!(front.ask(format!("{HEAD}A_b: c\r\n\r\n")).body, "a");
    let seen = backend.seen().pop().unwrap();
    assert_eq!(seen.field("x-tenant"), Some("red"));
    assert_eq!(seen.field("x_tenant"), None);
    assert_eq!(seen.field("sm_user"), None);
    assert_eq!(seen.field("a_b"), Some("c"));
}
