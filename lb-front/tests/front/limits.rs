//! Limits as an operator sets them: they come with the settings, to a front that serves.

use std::{
    io::{ErrorKind, Read as _},
    time::Duration,
};

use lb_front::{LimitSettings, Limits, Reason, Settings};

use crate::{
    kit::{Backend, Client, GET, PATIENCE, Reply, TestFront, eventually, ok, routes},
    kit_h2::{self, H2Backend, H2Client, within},
};

const BRIEF: Duration = Duration::from_millis(200);

fn set(front: &TestFront, backend: &Backend, limits: LimitSettings) {
    let settings = Settings {
        limits,
        ..Settings::default()
    };
    front.front.publish(&routes(&[backend.address]), &settings);
}

fn whole_request(time: Duration) -> LimitSettings {
    LimitSettings {
        request: Some(time),
        ..LimitSettings::default()
    }
}

fn limited(limits: LimitSettings, backend: &Backend) -> TestFront {
    let front = TestFront::start(Limits::default(), 1);
    set(&front, backend, limits);
    front
}

#[track_caller]
fn waits(client: &Client) {
    let stream = &client.stream;
    stream.set_read_timeout(Some(BRIEF)).unwrap();
    let waiting = stream.peek(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn other_limits_hold_for_who_comes_and_end_no_connection() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut before = front.client();
    assert_eq!(before.send(GET).answer().body, "a");
    let limits = LimitSettings {
        head: Some(BRIEF),
        ..LimitSettings::default()
    };
    set(&front, &backend, limits);
    eventually("heads have less time", || {
        let mut client = front.client();
        client.send("GET / HTTP/1.1\r\nHost: web\r\n");
        client.stream.set_read_timeout(Some(BRIEF * 5)).unwrap();
        client.stream.peek(&mut [0]).ok()?;
        assert_eq!(client.answer().status, 408);
        Some(())
    });
    assert_eq!(before.send(GET).answer().body, "a");
    // And back, with what is not said.
    set(&front, &backend, LimitSettings::default());
    eventually("heads have their time again", || {
        let mut client = front.client();
        client.send("GET / HTTP/1.1\r\nHost: web\r\n");
        client.stream.set_read_timeout(Some(BRIEF * 5)).unwrap();
        client.stream.peek(&mut [0]).is_err().then_some(())
    });
}

#[test]
fn places_become_more_and_fewer_while_they_are_taken() {
    const FEW: usize = 16;
    let backend = Backend::named("a");
    let connections = |count| LimitSettings {
        connections: Some(count),
        // All of them are one client's.
        connections_per_client: Some(4 * FEW),
        ..LimitSettings::default()
    };
    let front = limited(connections(FEW), &backend);
    let mut clients: Vec<_> = (0..FEW).map(|_| front.client()).collect();
    for client in &mut clients {
        assert_eq!(client.send(GET).answer().body, "a");
    }
    let mut more = front.client();
    more.send(GET);
    waits(&more);
    set(&front, &backend, connections(2 * FEW));
    assert_eq!(more.answer().body, "a");
    clients.push(more);
    // Nobody has to go, and as long as there are too many nobody comes.
    set(&front, &backend, connections(FEW));
    for client in &mut clients {
        assert_eq!(client.send(GET).answer().body, "a");
    }
    let next = loop {
        // What was free before is taken by those that came in time.
        let mut next = front.client();
        next.send(GET);
        next.stream.set_read_timeout(Some(BRIEF)).unwrap();
        match next.stream.peek(&mut [0]) {
            Ok(_) => clients.push(next),
            Err(_) => break next,
        }
        assert!(clients.len() < 3 * FEW);
    };
    assert_eq!(front.stats().accepted, clients.len() as u64);
    // There are still too many without one of them.
    assert!(clients.len() > FEW);
    drop(clients.pop());
    next.stream.set_read_timeout(Some(BRIEF * 5)).unwrap();
    assert!(next.stream.peek(&mut [0]).is_err());
    drop(clients);
    next.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut next = next;
    assert_eq!(next.answer().body, "a");
}

#[test]
fn a_client_has_as_many_connections_and_streams_as_are_set() {
    let backend = Backend::named("a");
    let limits = LimitSettings {
        connections_per_client: Some(2),
        streams: Some(7),
        ..LimitSettings::default()
    };
    let front = limited(limits, &backend);
    within(async {
        let connection = H2Client::connect(&front).await;
        assert_eq!(connection.get().await.unwrap().body, b"a");
        assert_eq!(connection.requests.current_max_send_streams(), 7);
    });
    eventually("it has left", || (front.stats().open == 0).then_some(()));
    let mut clients = [front.client(), front.client()];
    for client in &mut clients {
        assert_eq!(client.send(GET).answer().body, "a");
    }
    let mut third = front.client();
    assert!(!matches!(third.stream.read(&mut [0]), Ok(1)));
    assert_eq!(front.stats().rejected.get("client_connections"), Some(&1));
}

#[test]
fn a_backend_has_as_many_connections_and_a_queue_as_are_set() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let limits = LimitSettings {
        backend_connections: Some(1),
        queue: Some(1),
        queue_time: Some(BRIEF),
        ..LimitSettings::default()
    };
    let front = limited(limits.clone(), &backend);
    let mut first = front.client();
    first.send(GET);
    eventually("the backend is busy", || {
        (!backend.seen().is_empty()).then_some(())
    });
    assert_eq!(
        front.ask(GET).body,
        "queue_timeout: no instance had room in time\n"
    );
    let none = LimitSettings {
        queue: Some(0),
        ..limits
    };
    set(&front, &backend, none);
    eventually("nobody may wait", || {
        front.ask(GET).body.starts_with("limit: ").then_some(())
    });
}

#[test]
fn a_request_that_takes_too_long_is_504_whether_or_not_it_waits() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let mut limits = whole_request(BRIEF);
    limits.backend_connections = Some(1);
    let front = limited(limits, &backend);
    // The second one waits for the first, and neither waits any longer than that.
    let mut clients = [front.client(), front.client()];
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(answer.status, 504);
        assert_eq!(answer.body, "request_timeout: the request took too long\n");
        // It was whole: the next one has a time of its own.
        assert_eq!(client.send(GET).answer().status, 504);
    }
    assert_eq!(front.stats().ended(Reason::RequestTimeout), 4);
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_client_that_keeps_its_request_waiting_is_408() {
    let backend = Backend::named("a");
    let front = limited(whole_request(BRIEF), &backend);
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = front.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: web\r\n{head}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.field("connection")),
            (408, Some("close")),
            "{head}"
        );
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(front.stats().ended(Reason::RequestTimeout), 2);
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
    assert!(front.stats().backends.iter().all(|it| it.failures == 0));
}

#[test]
fn an_answer_that_goes_on_for_too_long_is_cut() {
    // It is never silent for long, and never ends.
    let backend = Backend::start(|seen| {
        assert!(seen.head.starts_with("GET"));
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        Reply::Stall(head.to_vec())
    });
    let front = limited(whole_request(BRIEF), &backend);
    let mut client = front.client();
    let head = client.send(GET).head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(client.rest(), b"1\r\na\r\n");
    let stats = front.stats();
    assert_eq!(stats.ended(Reason::RequestTimeout), 1);
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_reader_that_takes_too_long_is_cut_though_it_takes_something() {
    let large = "x".repeat(64 * 1024 * 1024);
    let backend = Backend::start(move |_| Reply::Keep(ok(&large)));
    let front = limited(whole_request(BRIEF * 3), &backend);
    let mut client = front.client();
    let head = client.send(GET).head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut piece = vec![0; 64 * 1024];
    eventually("it is cut", || {
        let _ = client.stream.read(&mut piece);
        (front.stats().ended(Reason::RequestTimeout) == 1).then_some(())
    });
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn over_http_2_a_request_ends_alone() {
    let backend = H2Backend::start(|mut call| async move {
        match call.request.uri().path() {
            "/" => kit_h2::answer(call, "a").await,
            "/say" => {
                let begun = hyper::Response::new(());
                let mut body = call.answer.send_response(begun, false).unwrap();
                body.send_data("b".into(), false).unwrap();
                std::future::pending::<()>().await;
            }
            _ => std::future::pending().await,
        }
    });
    let front = TestFront::start(Limits::default(), 1);
    let settings = Settings {
        limits: whole_request(BRIEF),
        ..Settings::default()
    };
    let routes = kit_h2::h2c_routes(&[backend.address]);
    front.front.publish(&routes, &settings);
    within(async {
        let client = H2Client::connect(&front).await;
        let never = hyper::Request::get("http://web/never").version(hyper::Version::HTTP_2);
        let mut ready = client.requests.clone().ready().await.unwrap();
        let (never, _) = ready.send_request(never.body(()).unwrap(), true).unwrap();
        assert_eq!(never.await.unwrap().status(), 504);
        let (answer, _stream) = client.begin(kit_h2::post().body(()).unwrap()).await;
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "b");
        assert!(answer.body_mut().data().await.unwrap().is_err());
        assert_eq!(client.get().await.unwrap().body, b"a");
    });
    assert_eq!(front.stats().ended(Reason::RequestTimeout), 2);
    assert_eq!(front.stats().accepted, 1);
}

#[test]
fn a_tunnel_is_no_request() {
    let backend = Backend::start(|_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        Reply::Echo(head.into())
    });
    let front = limited(whole_request(BRIEF), &backend);
    let mut client = front.client();
    let head = "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    assert!(client.send(head).head().starts_with("HTTP/1.1 101"));
    waits(&client);
    waits(&client);
    client.send("still");
    assert_eq!(client.bytes(5), b"still");
}
