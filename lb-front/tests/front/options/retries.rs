//! `lb_retries`.

use std::sync::Arc;

use lb_front::{Reason, Settings, rules::Rules};

use super::ruled;
use crate::kit::{Backend, GET, Reply, TestFront, ok, refusing, routes};

/// A front whose service `web` is on five backends that refuse and on `backend`, and asks for `retries`.
fn with_five_that_refuse(retries: Option<u8>, backend: &Backend) -> TestFront {
    let rules = Rules {
        retries,
        ..Rules::default()
    };
    let mut change = ruled(rules, backend);
    let refusing: Vec<_> = std::iter::repeat_with(refusing).take(5).collect();
    let others = routes(&refusing).services.remove(0).1.unwrap();
    let web = Arc::make_mut(change.services[0].1.as_mut().unwrap());
    web.backends.extend(others.backends.iter().cloned());
    let front = TestFront::with(&[]);
    front.front.publish(&change, &Settings::default());
    front
}

#[test]
fn a_request_is_tried_on_as_many_backends_as_the_service_says() {
    for (retries, served) in [(Some(0), 1), (Some(1), 2), (None, 3), (Some(5), 6)] {
        let backend = Backend::named("a");
        let front = with_five_that_refuse(retries, &backend);
        // Each backend has one turn.
        let answers: Vec<_> = (0..6).map(|_| front.ask(GET)).collect();
        let good = answers.iter().filter(|answer| answer.status == 200);
        assert_eq!(good.count(), served, "{retries:?}");
        assert_eq!(backend.seen().len(), served);
        let refused = front.stats().ended(Reason::ConnectRefused);
        assert_eq!(refused, 6 - served as u64);
    }
}

#[test]
fn what_was_sent_is_not_sent_again_whatever_the_service_says() {
    let rules = || Rules {
        retries: Some(5),
        ..Rules::default()
    };
    for request in [
        GET,
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n",
    ] {
        let backends = [(), ()].map(|()| Backend::start(|_| Reply::Close(Vec::new())));
        let mut change = ruled(rules(), &backends[0]);
        let other = routes(&[backends[1].address]).services.remove(0).1.unwrap();
        let web = Arc::make_mut(change.services[0].1.as_mut().unwrap());
        web.backends.extend(other.backends.iter().cloned());
        let front = TestFront::with(&[]);
        front.front.publish(&change, &Settings::default());
        assert_eq!(front.ask(request).status, 502);
        let seen: usize = backends.iter().map(|backend| backend.seen().len()).sum();
        assert_eq!(seen, 1, "{request}");
    }
}

#[test]
fn a_stale_connection_is_not_counted() {
    // Answers once, and takes a second request for the end.
    let backend =
        Backend::start(
            |seen| match seen.head.starts_with("GET /again") && seen.connection == 0 {
                true => Reply::Close(Vec::new()),
                false => Reply::Keep(ok("a")),
            },
        );
    let rules = Rules {
        retries: Some(0),
        ..Rules::default()
    };
    let front = super::front(rules, &backend);
    assert_eq!(front.ask(GET).body, "a");
    assert_eq!(front.ask(GET.replace("/ ", "/again ")).body, "a");
    assert_eq!(front.stats().reused, 1);
}
