//! Backends over HTTP/2 where there are as many connections as a worker may have: one that idles makes room, and whoever
//! finds none waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use h2::server::Builder;
use lb_front::{FrontStats, Limits, Reason, Settings};
use tokio::sync::Semaphore;

use crate::{
    kit::{Backend, Client, GET, PATIENCE, TestFront, eventually, routes},
    kit_h2::{H2Backend, answer, front, h2c_routes},
};

/// One connection to all backends.
fn one() -> Limits {
    Limits {
        backend_connections_in_all: 1,
        queue: PATIENCE,
        ..Limits::default()
    }
}

/// A backend that takes one request at a time, and answers it once there is a permit.
fn narrow() -> (H2Backend, &'static Semaphore) {
    let gate: &_ = Box::leak(Box::new(Semaphore::new(0)));
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let backend = H2Backend::start_with(builder, move |call| async move {
        gate.acquire().await.unwrap().forget();
        answer(call, "a").await;
    });
    (backend, gate)
}

fn queued(stats: &FrontStats) -> u64 {
    stats.services.iter().map(|service| service.queued).sum()
}

fn ask(front: &TestFront) -> Client {
    let mut client = front.client();
    client.send(GET);
    client
}

#[test]
fn one_that_idles_makes_room_for_one_to_another_backend() {
    let backends = ["a", "b"].map(H2Backend::named);
    let addresses = backends.each_ref().map(|it| it.address);
    let front = front(one(), &addresses);
    let mut client = front.client();
    let mut bodies = Vec::new();
    for _ in 0..6 {
        let answer = client.send(GET).answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        bodies.push(answer.body);
    }
    let of = |name| bodies.iter().filter(|it| it.contains(name)).count();
    assert_eq!((of('a'), of('b')), (3, 3));
    eventually("one is left", || {
        (backends[0].open() + backends[1].open() == 1).then_some(())
    });
    assert_eq!(front.stats().connects, 6);
}

#[test]
fn one_that_idles_makes_room_for_one_over_http_1_and_the_other_way_round() {
    let (two, one_at_a_time) = (H2Backend::named("two"), Backend::named("one"));
    let front = TestFront::start(one(), 1);
    let mut all = h2c_routes(&[two.address]);
    let mut down = routes(&[one_at_a_time.address]).services[0]
        .1
        .take()
        .unwrap();
    Arc::make_mut(&mut down).label = "down".into();
    all.services[1].1 = Some(down);
    front.front.publish(&all, &Settings::default());
    let other = "GET / HTTP/1.1\r\nHost: down\r\n\r\n";
    for _ in 0..3 {
        assert!(front.ask(GET).body.contains("two"));
        assert_eq!(front.ask(other).body, "one");
    }
    eventually("it has ended", || (two.open() == 0).then_some(()));
    assert_eq!(front.stats().connects, 6);
}

#[test]
fn one_with_a_request_under_way_stays_and_who_finds_no_room_waits_for_it() {
    let (slow, gate) = narrow();
    let other = Backend::named("other");
    let front = TestFront::start(one(), 1);
    let mut all = h2c_routes(&[slow.address]);
    let mut down = routes(&[other.address]).services[0].1.take().unwrap();
    Arc::make_mut(&mut down).label = "down".into();
    all.services[1].1 = Some(down);
    front.front.publish(&all, &Settings::default());
    let mut clients = vec![ask(&front)];
    eventually("it is there", || (slow.seen().len() == 1).then_some(()));
    // Over either protocol, of either service.
    clients.push(ask(&front));
    eventually("one waits", || (queued(&front.stats()) == 1).then_some(()));
    let mut client = front.client();
    client.send("GET / HTTP/1.1\r\nHost: down\r\n\r\n");
    eventually("two wait", || (queued(&front.stats()) == 2).then_some(()));
    assert_eq!((slow.seen().len(), slow.open(), other.open()), (1, 1, 0));
    gate.add_permits(2);
    for client in &mut clients {
        assert!(client.answer().body.contains('a'));
    }
    assert_eq!(client.answer().body, "other");
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::Ok), stats.retries), (3, 0));
    assert_eq!(queued(&stats), 0);
}

#[test]
fn those_who_come_before_a_connection_stands_wait_for_their_turn_on_it() {
    let (backend, gate) = narrow();
    let front = front(one(), &[backend.address]);
    let mut clients: Vec<_> = (0..5).map(|_| ask(&front)).collect();
    eventually("all but one wait", || {
        (queued(&front.stats()) == 4 && backend.seen().len() == 1).then_some(())
    });
    gate.add_permits(5);
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(backend.connections(), 1);
    let stats = front.stats();
    assert_eq!((stats.connects, stats.reused, stats.retries), (1, 4, 0));
}

#[test]
fn nobody_waits_for_longer_than_may_be_and_no_more_than_may() {
    let (backend, gate) = narrow();
    let limits = Limits {
        queue: Duration::from_millis(500),
        queued: 1,
        ..one()
    };
    let front = front(limits, &[backend.address]);
    let mut first = ask(&front);
    eventually("it is there", || (backend.seen().len() == 1).then_some(()));
    let begun = Instant::now();
    let mut second = ask(&front);
    eventually("it waits", || (queued(&front.stats()) == 1).then_some(()));
    let third = front.ask(GET);
    assert_eq!(third.status, 503);
    assert!(third.body.starts_with("limit:"), "{}", third.body);
    let late = second.answer();
    assert_eq!(late.status, 503);
    assert!(late.body.starts_with("queue_timeout:"), "{}", late.body);
    assert!((limits.queue..PATIENCE).contains(&begun.elapsed()));
    gate.add_permits(2);
    assert_eq!(first.answer().status, 200);
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(backend.seen().len(), 2);
}
