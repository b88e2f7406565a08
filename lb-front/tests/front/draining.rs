//! What a drain does to clients.

use std::time::{Duration, Instant};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, GET, PATIENCE, Reply, TestFront, eventually, ok};

#[test]
fn draining_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        Reply::Keep(ok("late"))
    });
    let mut front = TestFront::with(&[&backend]);
    let mut idle = front.client();
    idle.send(GET).answer();
    let mut busy = front.client();
    busy.send(GET);
    eventually("it is in flight", || {
        (backend.seen().len() == 2).then_some(())
    });
    let drain = front.drain();
    assert_eq!(idle.rest(), b"");
    let answer = busy.answer();
    assert_eq!(
        (answer.body.as_str(), answer.field("connection")),
        ("late", Some("close"))
    );
    assert_eq!(busy.rest(), b"");
    drop((idle, busy));
    drain.join().unwrap();
    assert!(std::net::TcpStream::connect(front.address).is_err());
}

#[test]
fn a_client_taken_just_before_the_drain_is_still_answered() {
    let backend = Backend::named("a");
    let mut front = TestFront::with(&[&backend]);
    let mut client = front.client();
    eventually("it is accepted", || {
        (front.stats().accepted == 1).then_some(())
    });
    let drain = front.drain();
    eventually("it drains", || {
        std::net::TcpStream::connect(front.address).err()
    });
    let answer = client.send(GET).answer();
    assert_eq!(
        (answer.body.as_str(), answer.field("connection")),
        ("a", Some("close"))
    );
    drop(client);
    drain.join().unwrap();
}

#[test]
fn a_drain_at_the_limit_of_clients_ends_with_its_grace() {
    let backend = Backend::start(|_| Reply::Stall(vec![]));
    let limits = Limits {
        client_connections: 1,
        ..Limits::default()
    };
    let grace = Duration::from_millis(300);
    let mut front = TestFront::start_for(limits, 1, grace);
    front.publish(&[backend.address]);
    let mut stalled = front.client();
    stalled.send(GET);
    eventually("it is in flight", || {
        (backend.seen().len() == 1).then_some(())
    });
    let begun = Instant::now();
    let last = front.drain().join().unwrap();
    assert_eq!(last.ended(Reason::Draining), 1, "{last:?}");
    assert!((grace..PATIENCE).contains(&begun.elapsed()));
}
