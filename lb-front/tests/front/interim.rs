//! What comes before an answer: `Expect: 100-continue`, and interim answers of backends.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use hyper::Response;
use lb_front::{Limits, Reason};

use crate::{
    kit::{Backend, GET, PATIENCE, Reply, TestFront, eventually, refusing},
    kit_h2::{Call, H2Backend, H2Client, answer, front, post, within},
};

const EXPECTS: &str =
    "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";

/// A backend that takes a place for as long as its client likes.
fn occupied() -> (Limits, Backend) {
    let limits = Limits {
        backend_connections: 1,
        queue: PATIENCE,
        ..Limits::default()
    };
    (limits, Backend::start(|_| Reply::Stall(Vec::new())))
}

#[test]
fn a_client_is_not_told_to_go_on_before_a_backend_has_a_place() {
    let (limits, backend) = occupied();
    let front = TestFront::limited(limits, &[&backend]);
    let mut first = front.client();
    first.send(GET);
    eventually("it has the place", || {
        (!backend.seen().is_empty()).then_some(())
    });
    let mut second = front.client();
    second.send(EXPECTS);
    eventually("it waits", || {
        let services = front.stats().services;
        (services.iter().map(|it| it.queued).sum::<u64>() == 1).then_some(())
    });
    second.stream.set_nonblocking(true).unwrap();
    let early = second.stream.read(&mut [0]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    second.stream.set_nonblocking(false).unwrap();
    drop(first);
    assert!(second.head().starts_with("HTTP/1.1 100 "));
}

/// A backend that answers each request at its head, and keeps the connection.
fn hasty() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or_default() == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
            // The rest, until the front has enough.
            let _ = stream.read_to_end(&mut head);
        }
    });
    address
}

#[test]
fn an_answer_before_the_body_reaches_a_client_that_still_holds_it() {
    let one = TestFront::start(Limits::default(), 1);
    one.publish(&[hasty()]);
    let backend = H2Backend::start(|mut call| async move {
        let head = Response::builder().status(413).header("content-length", 2);
        let head = head.body(()).unwrap();
        let mut body = call.answer.send_response(head, false).unwrap();
        body.send_data("no".into(), true).unwrap();
    });
    let two = front(Limits::default(), &[backend.address]);
    for front in [one, two] {
        let mut client = front.client();
        // It may have been told to go on by then: the backend took the request.
        let mut head = client.send(EXPECTS).head();
        if head.starts_with("HTTP/1.1 100 ") {
            head = client.head();
        }
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert_eq!(client.rest(), b"no");
        assert_eq!(front.stats().ended(Reason::Ok), 1);
    }
}

#[test]
fn a_body_that_is_waited_for_reaches_a_backend_over_http_2() {
    let backend = H2Backend::named("took it");
    let front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    assert!(client.send(EXPECTS).head().starts_with("HTTP/1.1 100 "));
    assert!(client.send("abc").answer().body.contains("took it"));
    let seen = backend.seen();
    assert!(seen[0].headers().get("expect").is_none());
    assert_eq!(seen[0].headers()["content-length"], "3");
    let closed = crate::kit_h2::front(Limits::default(), &[refusing()]);
    assert_eq!(closed.ask(EXPECTS).status, 502);
}

#[test]
fn a_client_over_http_2_need_not_wait() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    within(async {
        let client = H2Client::connect(&front).await;
        let expects = post().header("expect", "100-continue").body(()).unwrap();
        let answer = client.ask(expects, b"abc", None).await.unwrap();
        assert_eq!(answer.body, b"a");
        let other = post().header("expect", "200-ok").body(()).unwrap();
        let answer = client.ask(other, b"abc", None).await.unwrap();
        assert_eq!(answer.head.status(), 417);
    });
    assert_eq!(backend.seen()[0].field("expect"), None);
}

/// Says something before it answers.
async fn hints(mut call: Call) {
    for status in [103, 100, 103] {
        let hint = Response::builder().status(status).header("link", "x");
        let hint = hint.body(()).unwrap();
        call.answer.send_informational(hint).unwrap();
    }
    answer(call, "after all").await;
}

#[test]
fn interim_answers_of_a_backend_over_http_2_have_no_way_to_the_client() {
    let backend = H2Backend::start(hints);
    let front = front(Limits::default(), &[backend.address]);
    let got = front.ask(GET);
    assert_eq!((got.status, got.field("link")), (200, None));
    assert!(got.body.contains("after all"));
    within(async {
        let client = H2Client::connect(&front).await;
        let got = client.get().await.unwrap();
        assert_eq!(
            (got.head.status().as_u16(), &got.body[..]),
            (200, &b"after all"[..])
        );
    });
}
