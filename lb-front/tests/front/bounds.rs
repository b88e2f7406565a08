//! How many connections to backends there are in all, and how much of that one client may have: HTTP/2 has many
//! requests on one connection.

use std::{thread, time::Duration};

use lb_front::{FrontStats, Limits, Reason};

use crate::{
    h2::{connect, get, within},
    kit::{Backend, GET, PATIENCE, Reply, TestFront, eventually, ok},
};

fn narrow(backend_connections_in_all: usize) -> Limits {
    Limits {
        backend_connections_in_all,
        queue: PATIENCE,
        ..Limits::default()
    }
}

/// From within a runtime.
fn stats(front: &TestFront) -> FrontStats {
    thread::scope(|scope| scope.spawn(|| front.stats()).join().unwrap())
}

fn queued(stats: &FrontStats) -> u64 {
    stats.services.iter().map(|service| service.queued).sum()
}

fn open(stats: &FrontStats) -> u64 {
    stats.backends.iter().map(|backend| backend.open).sum()
}

/// Answers HTTP/1 that says so, and nothing else.
fn stalling() -> Backend {
    Backend::start(|seen| match seen.field("x-answer") {
        Some(_) => Reply::Keep(ok("a")),
        None => Reply::Stall(Vec::new()),
    })
}

const ANSWERED: &str = "GET / HTTP/1.1\r\nHost: web\r\nX-Answer: 1\r\n\r\n";

#[test]
fn requests_on_one_connection_have_no_more_connections_to_backends_than_a_worker_may() {
    let backends = [stalling(), stalling()];
    let front = TestFront::limited(narrow(8), &[&backends[0], &backends[1]]);
    within(async {
        let connection = connect(&front).await;
        let mut asked = Vec::new();
        for _ in 0..100 {
            let mut ready = connection.requests.clone().ready().await.unwrap();
            asked.push(ready.send_request(get("web"), true).unwrap());
        }
        while queued(&stats(&front)) < 92 {
            tokio::task::yield_now().await;
        }
        assert_eq!(open(&stats(&front)), 8);
        assert_eq!(backends[0].open() + backends[1].open(), 8);
        connection.driver.abort();
    });
    eventually("nobody waits", || {
        (queued(&front.stats()) == 0).then_some(())
    });
    assert_eq!(front.ask(ANSWERED).body, "a");
    assert_eq!(front.stats().connects, 9);
}

#[test]
fn a_connection_that_idles_makes_room_for_one_to_another_backend() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let front = TestFront::limited(narrow(2), &backends.each_ref());
    let mut client = front.client();
    let mut bodies: Vec<_> = (0..9).map(|_| client.send(GET).answer().body).collect();
    bodies.sort();
    assert_eq!(bodies.concat(), "aaabbbccc");
    eventually("two are left", || (open(&front.stats()) == 2).then_some(()));
    let stats = front.stats();
    // None that idles is closed for no reason.
    assert_eq!(stats.connects + stats.reused, 9);
    assert!(stats.reused > 0, "{stats:?}");
}

#[test]
fn who_waits_for_room_gets_it_from_another_backend() {
    let slow = Backend::start(|_| {
        thread::sleep(Duration::from_millis(300));
        Reply::Keep(ok("slow"))
    });
    let (other, limits) = (Backend::named("other"), narrow(1));
    let front = TestFront::limited(limits, &[&slow, &other]);
    // Whoever comes first has the turn of either.
    let mut bodies: Vec<_> = (0..4)
        .map(|_| {
            let mut client = front.client();
            client.send(GET);
            client
        })
        .collect::<Vec<_>>()
        .iter_mut()
        .map(|client| client.answer().body)
        .collect();
    bodies.sort();
    assert_eq!(bodies, ["other", "other", "slow", "slow"]);
    let stats = front.stats();
    assert!(open(&stats) <= 1, "{stats:?}");
    assert_eq!(stats.ended(Reason::Ok), 4);
}

#[test]
fn requests_of_one_client_count_beside_its_connections() {
    let backend = stalling();
    let limits = Limits {
        connections_per_client: 5,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    within(async {
        let mut connection = connect(&front).await;
        let mut asked = Vec::new();
        for _ in 0..4 {
            let mut ready = connection.requests.clone().ready().await.unwrap();
            asked.push(ready.send_request(get("web"), true).unwrap());
        }
        while backend.open() < 4 {
            tokio::task::yield_now().await;
        }
        let answer = connection.ask(get("web")).await.unwrap();
        assert_eq!(answer.response.status(), 503);
        assert!(answer.body.starts_with(b"limit: this client"));
        // So do its connections, on whichever it asks.
        let refused = std::net::TcpStream::connect(front.address).unwrap();
        while !stats(&front).rejected.contains_key("client_connections") {
            tokio::task::yield_now().await;
        }
        drop(refused);
        let (response, mut stream) = asked.pop().unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        while backend.open() > 3 {
            tokio::task::yield_now().await;
        }
        let mut request = get("web");
        let answered = "1".parse().unwrap();
        request.headers_mut().insert("x-answer", answered);
        assert_eq!(connection.ask(request).await.unwrap().body, b"a");
    });
    assert_eq!(front.stats().ended(Reason::Limit), 1);
}
