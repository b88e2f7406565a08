//! Connections to backends: which are used again, and which are not.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use lb_front::{Limits, Reason};

use crate::kit::{Backend, GET, PATIENCE, Reply, TestFront, eventually, ok};

#[test]
fn connections_to_backends_are_used_again() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for _ in 0..5 {
        assert_eq!(front.ask(GET).body, "a");
    }
    assert!(backend.seen().iter().all(|seen| seen.connection == 0));
    let stats = front.stats();
    assert_eq!(
        (stats.connects, stats.reused, stats.ended(Reason::Ok)),
        (1, 4, 5),
        "{stats:?}"
    );
}

#[test]
fn a_connection_with_an_unfinished_request_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[listener.local_addr().unwrap()]);
    // Answers once it has seen a head, whatever body that announces.
    let accept = || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(&ok("early")).unwrap();
        stream
    };
    let mut uploading = front.client();
    uploading.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nabc");
    let _first = accept();
    assert_eq!(uploading.answer().body, "early");
    let mut other = front.client();
    other.send(GET);
    let _second = accept();
    assert_eq!(other.answer().body, "early");
    assert_eq!(front.stats().reused, 0);
}

#[test]
fn the_pool_forgets_a_backend_that_left() {
    let backends = ["a", "b"].map(Backend::named);
    let front = TestFront::with(&[&backends[0]]);
    assert_eq!(front.ask(GET).body, "a");
    assert_eq!(backends[0].open(), 1);
    front.publish(&[backends[1].address]);
    eventually("its connection is closed", || {
        (backends[0].open() == 0).then_some(())
    });
    assert_eq!(front.ask(GET).body, "b");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let backend = Backend::named("a");
    let limits = Limits {
        pool_idle: Duration::ZERO,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    for _ in 0..3 {
        assert_eq!(front.ask(GET).body, "a");
    }
    assert_eq!(front.stats().reused, 0);
}

#[test]
fn a_connection_whose_backend_left_meanwhile_is_not_kept() {
    let (answer, answers) = std::sync::mpsc::channel::<()>();
    let answers = std::sync::Mutex::new(answers);
    let leaving = Backend::start(move |seen| {
        if seen.head.starts_with("GET /slow ") {
            answers.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        Reply::Keep(ok("a"))
    });
    let staying = Backend::named("b");
    let front = TestFront::with(&[&leaving]);
    let mut client = front.client();
    client.send("GET /slow HTTP/1.1\r\nHost: web\r\n\r\n");
    eventually("it is in flight", || {
        (leaving.seen().len() == 1).then_some(())
    });
    assert_eq!(front.ask(GET).body, "a");
    assert_eq!(leaving.open(), 2);
    front.publish(&[staying.address]);
    eventually("the idle connection is closed", || {
        (leaving.open() == 1).then_some(())
    });
    answer.send(()).unwrap();
    assert_eq!(client.answer().body, "a");
    eventually("the other one is, too", || {
        (leaving.open() == 0).then_some(())
    });
}
