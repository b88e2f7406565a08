//! Backends that fail again and again, and what happens when there is no other.

use std::sync::atomic::{AtomicUsize, Ordering};

use lb_front::{Limits, Reason, ServiceStats};

use crate::kit::{Backend, GET, Reply, TestFront, eventually, ok, refusing};

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";

/// A backend whose first `count` answers are `status`.
fn failing(status: &'static str, count: usize) -> Backend {
    let answers = AtomicUsize::new(0);
    Backend::start(move |_| {
        let answer = answers.fetch_add(1, Ordering::Relaxed);
        if answer < count {
            Reply::Keep(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into())
        } else {
            Reply::Keep(ok("good again"))
        }
    })
}

fn ejected(front: &TestFront) -> Vec<(std::net::SocketAddr, String)> {
    let services = front.stats().services;
    let ejected = services.iter().flat_map(|service| &service.ejected);
    ejected.map(|it| (it.address, it.why.clone())).collect()
}

#[test]
fn a_backend_that_refuses_five_times_in_a_row_is_asked_no_more() {
    let (dead, living) = (refusing(), Backend::named("a"));
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[dead, living.address]);
    for _ in 0..40 {
        assert_eq!(front.ask(POST).body, "a");
    }
    let stats = front.stats();
    assert_eq!(stats.retries, 5);
    let failures = stats.backends.iter().map(|it| (it.address, it.failures));
    let failures: std::collections::BTreeMap<_, _> = failures.collect();
    assert_eq!(failures, [(dead, 5), (living.address, 0)].into());
    let [
        ServiceStats {
            service, ejections, ..
        },
    ] = &stats.services[..]
    else {
        panic!("{:?}", stats.services);
    };
    assert_eq!((service.as_str(), *ejections), ("web", 1));
    assert_eq!(ejected(&front), [(dead, "connect_refused".into())]);
}

#[test]
fn answers_that_say_that_nothing_can_be_served_eject_too_and_others_do_not() {
    for (status, why) in [
        ("502 Bad Gateway", Some("status_502")),
        ("503 Service Unavailable", Some("status_503")),
        ("504 Gateway Timeout", Some("status_504")),
        ("500 Internal Server Error", None),
        ("404 Not Found", None),
    ] {
        let (bad, good) = (failing(status, usize::MAX), Backend::named("a"));
        let front = TestFront::with(&[&bad, &good]);
        for _ in 0..20 {
            front.ask(GET);
        }
        let asked = bad.seen().len();
        assert_eq!(asked, if why.is_some() { 5 } else { 10 }, "{status}");
        let expected = why.map(|why| (bad.address, why.to_owned()));
        assert_eq!(ejected(&front), Vec::from_iter(expected), "{status}");
    }
}

#[test]
fn failures_with_an_answer_in_between_are_not_in_a_row() {
    let count = AtomicUsize::new(0);
    let flaky = Backend::start(move |_| match count.fetch_add(1, Ordering::Relaxed) % 5 {
        4 => Reply::Keep(ok("b")),
        _ => Reply::Keep(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()),
    });
    let good = Backend::named("a");
    let front = TestFront::with(&[&flaky, &good]);
    for _ in 0..60 {
        front.ask(GET);
    }
    assert_eq!(flaky.seen().len(), 30);
    assert_eq!(ejected(&front), []);
}

#[test]
fn of_two_that_fail_one_is_still_asked_and_the_only_one_always_is() {
    let bad = [(); 2].map(|()| failing("503 Service Unavailable", usize::MAX));
    let front = TestFront::with(&[&bad[0], &bad[1]]);
    for _ in 0..30 {
        assert_eq!(front.ask(GET).status, 503);
    }
    assert_eq!(front.stats().ended(Reason::Ok), 30);
    assert_eq!(ejected(&front).len(), 1);
    let front = TestFront::with(&[&bad[0]]);
    let before = bad[0].seen().len();
    for _ in 0..30 {
        assert_eq!(front.ask(GET).status, 503);
    }
    assert_eq!(bad[0].seen().len() - before, 30);
    assert_eq!(ejected(&front), []);
}

#[test]
fn an_ejected_backend_is_asked_when_no_other_can_serve() {
    let (was_bad, good) = (failing("503 Service Unavailable", 5), Backend::named("a"));
    let front = TestFront::with(&[&was_bad, &good]);
    for _ in 0..20 {
        front.ask(GET);
    }
    assert_eq!(ejected(&front).len(), 1);
    assert_eq!(was_bad.seen().len(), 5);
    // The other one is gone, and nobody has noticed.
    front.publish(&[was_bad.address, refusing()]);
    for _ in 0..20 {
        assert_eq!(front.ask(POST).body, "good again");
    }
    // Out of the set and back in it, nothing is held against it.
    front.publish(&[good.address]);
    eventually("it is forgotten", || {
        ejected(&front).is_empty().then_some(())
    });
}

#[test]
fn a_backend_that_says_how_long_it_keeps_connections_is_believed() {
    for (field, reused) in [
        ("Keep-Alive: timeout=100, max=9\r\n", 2),
        ("Keep-Alive: timeout=1\r\n", 0),
        ("Keep-Alive: timeout=0\r\n", 0),
        ("", 2),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n");
        let backend = Backend::start(move |_| Reply::Keep(answer.clone().into()));
        let front = TestFront::with(&[&backend]);
        for _ in 0..3 {
            assert_eq!(front.ask(GET).status, 200);
        }
        assert_eq!(front.stats().reused, reused, "{field}");
    }
}
