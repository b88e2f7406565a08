//! Bodies that are made as they go: each piece arrives before the next one exists, in either direction and between all protocols.

use std::future::Future;

use bytes::Bytes;
use lb_front::{Limits, Reason};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    kit::{PATIENCE, TestFront, eventually},
    sides::{Asked, Asking, Origin, PAIRS, Protocol},
};

/// Runs a test's part beside the drivers of its connections.
#[track_caller]
fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async { timeout(PATIENCE, what).await.expect("in time") })
}

/// A front before one origin.
fn front(protocol: Protocol) -> (TestFront, Origin) {
    let origin = Origin::start(protocol);
    let front = TestFront::start(Limits::default(), 1);
    origin.publish(&front);
    (front, origin)
}

fn event(number: usize) -> String {
    let text = "x".repeat(number * number);
    format!("id: {number}\ndata: {text}\n\n")
}

const EVENTS: usize = 30;

#[test]
fn an_event_reaches_its_client_before_the_next_one_is_made() {
    for (client, backend) in PAIRS {
        let (front, origin) = front(backend);
        run(async {
            let asking = Asking::begin(&front, client, false).await;
            let mut peer = origin.asked().answer();
            // The head comes before any event is made.
            let (mut client, _alive) = asking.answered().await;
            for number in 0..EVENTS {
                peer.say(event(number).into()).await;
                client.hears(&event(number)).await;
            }
            peer.end().await;
            assert_eq!(client.hear().await, None);
        });
        eventually("it has ended well", || {
            (front.stats().ended(Reason::Ok) == 1).then_some(())
        });
    }
}

#[test]
fn a_piece_of_an_upload_reaches_the_backend_while_the_rest_is_held() {
    for (client, backend) in PAIRS {
        let (front, origin) = front(backend);
        run(async {
            let mut asking = Asking::begin(&front, client, true).await;
            // The head comes before any piece is made.
            let mut asked = origin.asked();
            for number in 0..EVENTS {
                asking.say(event(number).into()).await;
                let mut heard = Vec::new();
                while heard.len() < event(number).len() {
                    heard.extend(asked.hear().await.expect("more to come"));
                }
                assert_eq!(heard, event(number).as_bytes());
            }
            asking.end().await;
            let mut peer = asked.answer();
            assert_eq!(peer.hear().await, None, "{client:?} {backend:?}");
            peer.say(Bytes::from_static(b"thanks")).await;
            peer.end().await;
            let (mut client, _alive) = asking.answered().await;
            client.hears("thanks").await;
            assert_eq!(client.hear().await, None);
        });
    }
}

#[test]
fn both_sides_send_at_once() {
    for (client, backend) in PAIRS {
        let (front, origin) = front(backend);
        run(async {
            let asking = Asking::begin(&front, client, true).await;
            let mut peer = origin.asked().answer();
            let (mut client, _alive) = asking.answered().await;
            for number in 0..EVENTS {
                client.say(event(number).into()).await;
                peer.hears(&event(number)).await;
                peer.say(event(number + 1).into()).await;
                client.hears(&event(number + 1)).await;
            }
            // The upload ends first.
            client.end().await;
            assert_eq!(peer.hear().await, None);
            peer.say(Bytes::from_static(b"bye")).await;
            client.hears("bye").await;
            peer.end().await;
            assert_eq!(client.hear().await, None);
        });
        eventually("it has ended well", || {
            (front.stats().ended(Reason::Ok) == 1).then_some(())
        });
    }
}

#[test]
fn a_client_of_http_1_0_gets_what_has_no_length_up_to_the_end_of_its_connection() {
    for backend in [Protocol::One, Protocol::Two] {
        let (front, origin) = front(backend);
        run(async {
            let mut client = front.client();
            // It may not be kept, whatever the client asks for (RFC 9112 section 6.3).
            client.send("GET / HTTP/1.0\r\nHost: web\r\nConnection: keep-alive\r\n\r\n");
            let mut peer = origin.asked().answer();
            let head = client.head().to_ascii_lowercase();
            for field in ["transfer-encoding", "content-length", "keep-alive"] {
                assert!(!head.contains(field), "{head}");
            }
            for number in 0..EVENTS {
                peer.say(event(number).into()).await;
                let heard = client.bytes(event(number).len());
                assert_eq!(heard, event(number).as_bytes());
            }
            peer.end().await;
            assert_eq!(client.rest(), b"");
        });
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_streams_too() {
    for protocol in [Protocol::One, Protocol::Two] {
        let (front, origin) = front(Protocol::One);
        run(async {
            let asking = Asking::begin(&front, protocol, false).await;
            let Asked::One(mut wire) = origin.asked() else {
                unreachable!("it speaks HTTP/1");
            };
            wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
            let (mut client, _alive) = asking.answered().await;
            for number in 0..EVENTS {
                wire.send(event(number));
                client.hears(&event(number)).await;
            }
            drop(wire);
            assert_eq!(client.hear().await, None);
        });
    }
}

/// Of an answer whose length is known each piece arrives as soon.
#[test]
fn a_known_length_delays_nothing() {
    let (front, origin) = front(Protocol::One);
    run(async {
        let mut client = front.client();
        client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
        let Asked::One(mut wire) = origin.asked() else {
            unreachable!("it speaks HTTP/1");
        };
        let length: usize = (0..EVENTS).map(|number| event(number).len()).sum();
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.head();
        for number in 0..EVENTS {
            wire.send(event(number));
            assert_eq!(client.bytes(event(number).len()), event(number).as_bytes());
        }
        // And both connections stay.
        client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
        wire.head();
    });
}
