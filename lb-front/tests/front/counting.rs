//! What is counted of a backend.

use std::time::Duration;

use lb_front::{BackendStats, Limits};

use crate::kit::{Backend, GET, Reply, TestFront, eventually, ok, refusing};

/// The figures of `backend` once it has as many requests.
fn figures(front: &TestFront, backend: &Backend, requests: u64) -> BackendStats {
    eventually("they are counted", || {
        let all = front.stats().backends.into_iter();
        let mut its = all.filter(|it| it.address == backend.address);
        its.next().filter(|it| it.requests == requests)
    })
}

#[test]
fn a_backend_has_the_figures_of_the_requests_that_ended_with_it() {
    let backend = Backend::start(|seen| match seen.head.split(' ').nth(1) {
        Some("/fails") => Reply::Keep(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno".to_vec()),
        Some("/missing") => Reply::Keep(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno".to_vec()),
        Some("/dies") => Reply::Close(Vec::new()),
        Some("/stalls") => Reply::Stall(Vec::new()),
        _ => Reply::Keep(ok("answer")),
    });
    let front = TestFront::with(&[&backend]);
    let get = |path: &str| front.ask(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"));
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(get("/missing").status, 404);
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nabcde";
    assert_eq!(front.ask(post).status, 200);
    let fine = figures(&front, &backend, 3);
    assert_eq!((fine.errors, fine.received, fine.sent), (0, 5, 14));
    assert_eq!(fine.buckets.iter().sum::<u64>(), 3);
    assert!(fine.micros > 0);
    assert_ne!(fine.buckets.last(), Some(&0));
    assert_eq!(get("/fails").status, 500);
    assert_eq!(get("/dies").status, 502);
    let failed = figures(&front, &backend, 5);
    // A 500 is an answer of the application's.
    assert_eq!((failed.errors, failed.failures), (2, 1));
    // One whose client leaves is nobody's error.
    let mut leaving = front.client();
    leaving.send("GET /stalls HTTP/1.1\r\nHost: web\r\n\r\n");
    eventually("it is there", || {
        let seen = backend.seen();
        (seen.last().unwrap().head.contains("/stalls")).then_some(())
    });
    drop(leaving);
    assert_eq!(figures(&front, &backend, 6).errors, 2);
}

#[test]
fn a_request_is_counted_for_the_backend_that_was_tried_last() {
    let backend = Backend::named("a");
    let limits = Limits {
        connect: Duration::from_secs(1),
        ..Limits::default()
    };
    let front = TestFront::start(limits, 1);
    let dead = refusing();
    front.publish(&[dead, backend.address]);
    // Whoever has the first turn, both are tried within two.
    for _ in 0..2 {
        assert_eq!(front.ask(GET).status, 200);
    }
    assert_eq!(figures(&front, &backend, 2).errors, 0);
    let all = front.stats().backends;
    let dead = all.iter().find(|it| it.address == dead).unwrap();
    assert_eq!((dead.requests, dead.errors), (0, 0));
    assert!(dead.failures > 0);
}
