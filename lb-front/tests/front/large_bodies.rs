//! Bodies of requests that are longer than they may be, and what hides in what nobody reads of them.

use std::sync::Arc;

use hyper::StatusCode;
use lb_front::{LimitSettings, Limits, Reason, Settings, rules::Rules};

use crate::{
    kit::{Backend, Client, GET, TestFront, eventually, routes},
    kit_h2::{self, H2Backend, H2Client, within},
};

const MOST: usize = 1000;

const TOO_LONG: &str = "body_too_large: the request body is too long\n";

fn settings() -> Settings {
    Settings {
        limits: LimitSettings {
            max_body: Some(MOST as u64),
            ..LimitSettings::default()
        },
        ..Settings::default()
    }
}

fn front(backend: &Backend) -> TestFront {
    let front = TestFront::start(Limits::default(), 1);
    front
        .front
        .publish(&routes(&[backend.address]), &settings());
    front
}

/// A body that is full of requests.
fn hidden(length: usize) -> String {
    let mut body = "GET /hidden HTTP/1.1\r\nHost: web\r\n\r\n".repeat(length / 30);
    body.truncate(length);
    body
}

fn chunked(body: &str) -> String {
    let chunks = body.as_bytes().chunks(100).map(|chunk| {
        let text = std::str::from_utf8(chunk).unwrap();
        format!("{:x}\r\n{text}\r\n", chunk.len())
    });
    chunks.collect::<String>() + "0\r\n\r\n"
}

fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n")
}

#[track_caller]
fn refused(client: &mut Client, why: &str) {
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.field("connection")),
        (413, Some("close")),
        "{why}"
    );
    assert_eq!(answer.body, TOO_LONG, "{why}");
    assert_eq!(client.rest(), b"", "{why}");
}

#[test]
fn one_that_says_so_is_refused_before_anything_reaches_a_backend() {
    let backend = Backend::named("a");
    let front = front(&backend);
    for (fields, body) in [
        ("", hidden(MOST + 1)),
        ("", hidden(60_000)),
        ("Expect: 100-continue\r\n", String::new()),
        ("Expect: 100-continue\r\n", hidden(MOST + 1)),
    ] {
        let length = body.len().max(MOST + 1);
        let head = post(&format!("{fields}Content-Length: {length}"));
        // In one piece and in two, with a request behind it.
        refused(front.client().send(format!("{head}{body}{GET}")), fields);
        let mut client = front.client();
        client.send(head);
        client.send(format!("{body}{GET}"));
        refused(&mut client, fields);
    }
    assert!(backend.seen().is_empty());
    let stats = front.stats();
    assert_eq!(stats.ended(Reason::BodyTooLarge), 8);
    assert_eq!((stats.connects, stats.ended(Reason::Ok)), (0, 0));
}

#[test]
fn one_that_may_be_as_long_goes_on_and_so_does_its_connection() {
    let backend = Backend::named("a");
    let front = front(&backend);
    let body = hidden(MOST);
    let mut client = front.client();
    let known = post(&format!("Content-Length: {MOST}"));
    let unknown = post("Transfer-Encoding: chunked");
    client.send(format!("{known}{body}"));
    assert_eq!(client.answer().body, "a");
    client.send(format!("{unknown}{}{GET}", chunked(&body)));
    assert_eq!(client.answer().body, "a");
    assert_eq!(client.answer().body, "a");
    let seen = backend.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].body, body.as_bytes());
}

#[test]
fn one_of_unknown_length_is_refused_once_it_is_too_long() {
    // It would answer once it has all of it.
    let backend = Backend::named("a");
    let front = front(&backend);
    let head = post("Transfer-Encoding: chunked");
    for length in [MOST + 1, 60_000] {
        let body = chunked(&hidden(length));
        refused(
            front.client().send(format!("{head}{body}{GET}")),
            "one piece",
        );
        let mut client = front.client();
        client.send(&head);
        client.send(format!("{body}{GET}"));
        refused(&mut client, "two pieces");
    }
    let stats = front.stats();
    assert_eq!(stats.ended(Reason::BodyTooLarge), 4);
    assert!(stats.backends.iter().all(|it| it.failures == 0));
    eventually("no connection with half a request stays", || {
        (backend.open() == 0).then_some(())
    });
    assert_eq!(front.ask(GET).body, "a");
    // Nothing of what was hidden there became a request.
    assert_eq!(
        front
            .stats()
            .requests
            .iter()
            .map(|it| it.count)
            .sum::<u64>(),
        5
    );
}

#[test]
fn one_that_is_answered_already_is_cut() {
    let early = H2Backend::start(|mut call| async move {
        let mut body = call
            .answer
            .send_response(hyper::Response::new(()), false)
            .unwrap();
        body.send_data("a".into(), false).unwrap();
        let _ = kit_h2::whole(call.request.body_mut()).await;
        std::future::pending::<()>().await;
    });
    let front = TestFront::start(Limits::default(), 1);
    let routes = kit_h2::h2c_routes(&[early.address]);
    front.front.publish(&routes, &settings());
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, mut stream) = client.begin(kit_h2::post().body(()).unwrap()).await;
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "a");
        stream.send_data(hidden(MOST + 1).into(), false).unwrap();
        assert!(answer.body_mut().data().await.unwrap().is_err());
    });
    assert_eq!(front.stats().ended(Reason::BodyTooLarge), 1);
    eventually("the backend is free", || {
        (front.stats().backends[0].in_flight == 0).then_some(())
    });
}

#[test]
fn over_http_2_it_is_the_same_with_and_without_a_length() {
    let backend = Backend::named("a");
    let front = front(&backend);
    within(async {
        let client = H2Client::connect(&front).await;
        for length in [Some(MOST + 1), None] {
            let head = kit_h2::post();
            let head = match length {
                Some(length) => head.header("content-length", length),
                None => head,
            };
            let (answer, mut stream) = client.begin(head.body(()).unwrap()).await;
            // It may have been reset by then.
            let _ = stream.send_data(hidden(MOST + 1).into(), false);
            let answer = kit_h2::take(answer.await.unwrap()).await.unwrap();
            assert_eq!(answer.head.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(answer.body, TOO_LONG.as_bytes());
            // Others on the connection go on.
            assert_eq!(client.get().await.unwrap().body, b"a");
        }
    });
    let stats = front.stats();
    assert_eq!(stats.ended(Reason::BodyTooLarge), 2);
    assert!(
        backend
            .seen()
            .iter()
            .all(|seen| !seen.head.contains("/hidden"))
    );
}

#[test]
fn a_service_may_take_more_or_less_than_the_front() {
    let backend = Backend::named("a");
    let front = TestFront::start(Limits::default(), 1);
    let ask = |length: usize| {
        let head = post(&format!("Content-Length: {length}"));
        front.ask(head + &hidden(length)).status
    };
    for (most, expect) in [
        (None, [200, 413, 413]),
        (Some(10), [413, 413, 413]),
        (Some(2 * MOST as u64), [200, 200, 413]),
        (Some(u64::MAX), [200, 200, 200]),
    ] {
        let mut ruled = routes(&[backend.address]);
        let web = Arc::make_mut(ruled.services[0].1.as_mut().unwrap());
        web.rules = most.map(|most| {
            Arc::new(Rules {
                max_body: Some(most),
                ..Rules::default()
            })
        });
        front.front.publish(&ruled, &settings());
        let expected = [MOST, MOST + 1, 2 * MOST + 1].map(ask);
        assert_eq!(expected, expect, "{most:?}");
    }
}
