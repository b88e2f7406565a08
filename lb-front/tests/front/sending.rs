//! Which backend a request goes to, and what happens when that fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, GET, Reply, TestFront, ok, refusing};

#[test]
fn backends_take_turns_whichever_worker_a_client_meets() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let front = TestFront::start(Limits::default(), 2);
    front.publish(&backends.each_ref().map(|backend| backend.address));
    let answers: String = (0..9).map(|_| front.ask(GET).body).collect();
    assert_eq!(answers, "abcabcabc");
    // A change of the set does not begin the turn anew.
    front.publish(&[backends[0].address, backends[1].address]);
    let answers: String = (0..4).map(|_| front.ask(GET).body).collect();
    assert!(answers == "abab" || answers == "baba", "{answers}");
}

#[test]
fn a_refused_connection_is_followed_by_another_backend_for_any_method() {
    let backend = Backend::named("a");
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[refusing(), backend.address, refusing()]);
    for _ in 0..6 {
        assert_eq!(front.ask(GET).status, 200);
        let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(front.ask(post).status, 200);
    }
    assert!(front.stats().retries > 0);
}

#[test]
fn without_any_backend_that_accepts_the_answer_is_502() {
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[refusing(), refusing(), refusing(), refusing()]);
    assert_eq!(front.ask(GET).status, 502);
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::ConnectRefused), stats.retries), (1, 2));
}

#[test]
fn an_idempotent_request_survives_a_connection_that_went_stale() {
    // Each connection answers once; the second request on it finds it closed, before or after it is sent.
    let backend = Backend::start(|seen| match seen.head.split(' ').nth(1) {
        Some("/close") => Reply::Close(ok("a")),
        _ => Reply::Keep(ok("a")),
    });
    let front = TestFront::with(&[&backend]);
    for _ in 0..20 {
        assert_eq!(
            front.ask("GET /close HTTP/1.1\r\nHost: web\r\n\r\n").status,
            200
        );
        assert_eq!(front.ask(GET).status, 200);
    }
}

#[test]
fn a_request_dies_once_and_is_repeated_only_if_that_is_harmless() {
    let count = AtomicUsize::new(0);
    // Every second request of a connection is read and then lost.
    let backend = Backend::start(move |_| match count.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => Reply::Keep(ok("a")),
        _ => Reply::Close(Vec::new()),
    });
    let front = TestFront::with(&[&backend]);
    assert_eq!(front.ask(GET).status, 200);
    // Lost on the old connection, answered on a new one.
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(backend.seen().len(), 3);
    // The same with a request that may have had an effect.
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(front.ask(post).status, 502);
    assert_eq!(backend.seen().len(), 4);
    assert_eq!(front.stats().ended(Reason::BackendReset), 1);
}

#[test]
fn a_request_is_not_repeated_once_part_of_an_answer_came() {
    let count = AtomicUsize::new(0);
    let backend = Backend::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        1 => Reply::Close(b"HTTP/1.1 200 OK\r\nX-A".to_vec()),
        _ => Reply::Keep(ok("a")),
    });
    let front = TestFront::with(&[&backend]);
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(front.ask(GET).status, 502);
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::BackendReset), stats.retries), (1, 0));
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn a_backend_without_a_way_to_it_has_not_refused() {
    let front = TestFront::start(Limits::default(), 1);
    // TCP knows no broadcast: the kernel finds no route, and sends nothing.
    front.publish(&["255.255.255.255:80".parse().unwrap()]);
    assert_eq!(front.ask(GET).status, 504);
    assert_eq!(front.stats().ended(Reason::ConnectTimeout), 1);
}
