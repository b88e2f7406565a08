//! Backends that speak HTTP/2: requests, answers and connections to them.

use std::time::Duration;

use bytes::Bytes;
use h2::server::Builder;
use hyper::{Request, Response, StatusCode};
use lb_front::{Limits, Reason, Settings};
use tokio::sync::Semaphore;

use crate::{
    kit::{GET, TestFront, eventually},
    kit_h2::{Call, H2Backend, H2Client, answer, front, get, h2c_routes, post, whole, within},
};

const POST: &str = "POST /say?a HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc";

fn field<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
    let value = request.headers().get(name)?;
    value.to_str().ok()
}

/// Answers with what came.
async fn echo(mut call: Call) {
    let Ok(all) = whole(call.request.body_mut()).await else {
        return;
    };
    let mut body = call.answer.send_response(Response::new(()), false).unwrap();
    body.send_data(all.into(), true).unwrap();
}

#[test]
fn clients_of_http_1_are_served() {
    let backend = H2Backend::start(echo);
    let front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    client.send(POST);
    let answer = client.answer();
    assert_eq!(
        (answer.status, &*answer.body),
        (200, "3\r\nabc\r\n0\r\n\r\n")
    );
    client.send(
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.body, "2\r\nhi\r\n0\r\n\r\n");
    client.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    client.send(
        "OPTIONS * HTTP/1.1\r\nHost: WEB.\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: gzip\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
    let seen = backend.seen();
    assert_eq!(seen[0].uri(), "http://web/say?a");
    assert_eq!(field(&seen[0], "host"), None);
    assert_eq!(field(&seen[0], "content-length"), Some("3"));
    assert_eq!(field(&seen[0], "x-forwarded-host"), Some("web"));
    assert_eq!(field(&seen[0], "via"), Some("1.1 lb-agent"));
    assert_eq!(field(&seen[1], "content-length"), None);
    assert_eq!(field(&seen[2], "content-length"), Some("0"));
    assert_eq!(seen[3].uri().path(), "*");
    assert_eq!(seen[3].uri().authority().unwrap(), "WEB.");
    for gone in ["connection", "x-hop", "te", "transfer-encoding"] {
        assert_eq!(field(&seen[3], gone), None, "{gone}");
    }
    assert_eq!(backend.connections(), 1);
    let stats = front.stats();
    assert_eq!((stats.ended(Reason::Ok), stats.reused), (4, 3));
}

#[test]
fn trailers_that_http_2_does_not_know_keep_no_request_from_its_end() {
    let backend = H2Backend::start(echo);
    let front = front(Limits::default(), &[backend.address]);
    for trailers in [
        "Connection: x",
        "TE: gzip",
        "X-Forwarded-For: 6.6.6.6\r\nSum: 1",
    ] {
        let mut client = front.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailers}\r\n\r\n"
        ));
        assert_eq!(client.answer().body, "2\r\nhi\r\n0\r\n\r\n", "{trailers}");
    }
}

#[test]
fn an_answer_keeps_its_length_and_head_has_no_body() {
    let backend = H2Backend::start(|mut call| async move {
        let known = Response::builder().header("content-length", 5).body(());
        let is_head = call.request.method() == "HEAD";
        let mut body = call.answer.send_response(known.unwrap(), is_head).unwrap();
        if !is_head {
            body.send_data("hello".into(), true).unwrap();
        }
    });
    let front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    client.send(GET);
    let answer = client.answer();
    assert_eq!(answer.field("content-length"), Some("5"));
    assert_eq!(answer.body, "hello");
    client.send("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n");
    assert!(client.head().contains("\r\ncontent-length: 5\r\n"));
    client.send(GET);
    assert_eq!(client.answer().body, "hello");
    within(async {
        let client = H2Client::connect(&front).await;
        let answer = client.get().await.unwrap();
        assert_eq!(answer.head.headers()["content-length"], "5");
        assert_eq!(answer.body, b"hello");
    });
}

#[test]
fn an_answer_that_is_all_head_is_all_head_for_the_client() {
    let backend = H2Backend::start(|mut call| async move {
        let status = match call.request.uri().path() {
            "/say" => StatusCode::NO_CONTENT,
            _ => StatusCode::NOT_MODIFIED,
        };
        let head = Response::builder().status(status).body(()).unwrap();
        call.answer.send_response(head, true).unwrap();
    });
    let front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    client.send(GET);
    assert!(client.head().starts_with("HTTP/1.1 304"));
    client.send(POST);
    assert!(client.head().starts_with("HTTP/1.1 204"));
    within(async {
        let client = H2Client::connect(&front).await;
        let answer = client.get().await.unwrap();
        assert_eq!(answer.head.status(), 304);
        assert_eq!(answer.head.headers().get("content-length"), None);
    });
}

#[test]
fn an_upgrade_is_not_offered_to_a_backend_that_has_none() {
    let backend = H2Backend::named("plain");
    let front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.send(GET);
    assert!(client.answer().body.contains("plain"));
    assert!(client.answer().body.contains("plain"));
    assert_eq!(field(&backend.seen()[0], "upgrade"), None);
}

#[test]
fn a_target_without_a_path_has_one_there() {
    let backend = H2Backend::named("a");
    let front = front(Limits::default(), &[backend.address]);
    for target in ["http://web?x=1", "http://web/?x=1", "/?x=1"] {
        let answer = front.ask(format!("GET {target} HTTP/1.1\r\nHost: web\r\n\r\n"));
        assert_eq!(answer.status, 200, "{target}");
    }
    for seen in backend.seen() {
        let path = seen.uri().path_and_query().unwrap();
        assert_eq!(path.as_str(), "/?x=1");
    }
}

/// Answers once there is a permit.
fn gated(builder: Builder) -> (H2Backend, &'static Semaphore) {
    let gate: &_ = Box::leak(Box::new(Semaphore::new(0)));
    let backend = H2Backend::start_with(builder, move |call| async move {
        gate.acquire().await.unwrap().forget();
        answer(call, "a").await;
    });
    (backend, gate)
}

#[test]
fn requests_share_a_connection_as_far_as_the_backend_lets_them() {
    let mut three = Builder::new();
    three.max_concurrent_streams(3);
    let (backend, gate) = gated(three);
    let front = front(Limits::default(), &[backend.address]);
    let mut clients: Vec<_> = (0..7).map(|_| front.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    eventually("all are there", || {
        (backend.seen().len() == 7).then_some(())
    });
    assert_eq!(backend.connections(), 3);
    let stats = &front.stats().backends[0];
    assert_eq!((stats.in_flight, stats.open, stats.idle), (7, 3, 0));
    gate.add_permits(7);
    for client in &mut clients {
        assert!(client.answer().body.contains('a'));
    }
    eventually("none is under way", || {
        let stats = &front.stats().backends[0];
        ((stats.in_flight, stats.open, stats.idle) == (0, 3, 3)).then_some(())
    });
    assert_eq!(front.stats().retries, 0);
    // The first ones are taken again.
    gate.add_permits(1);
    assert_eq!(clients[0].send(GET).answer().status, 200);
    assert_eq!(backend.connections(), 3);
}

#[test]
fn requests_beyond_the_limit_wait_for_a_place() {
    let (backend, gate) = gated(Builder::new());
    let limits = Limits {
        backend_connections: 2,
        ..Limits::default()
    };
    let front = front(limits, &[backend.address]);
    let mut clients: Vec<_> = (0..3).map(|_| front.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    eventually("one waits", || {
        let stats = front.stats();
        let queued = stats.services.iter().map(|it| it.queued).sum::<u64>();
        (queued == 1 && backend.seen().len() == 2).then_some(())
    });
    gate.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn one_that_idles_or_leaves_the_routes_is_closed() {
    let (backend, gate) = gated(Builder::new());
    gate.add_permits(100);
    let limits = Limits {
        pool_idle: Duration::from_millis(10),
        ..Limits::default()
    };
    let idling = front(limits, &[backend.address]);
    assert_eq!(idling.ask(GET).status, 200);
    eventually("it is closed", || (backend.open() == 0).then_some(()));

    let other = H2Backend::named("other");
    let front = front(Limits::default(), &[backend.address]);
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(backend.open(), 1);
    gate.forget_permits(100);
    let mut busy = front.client();
    busy.send(GET);
    eventually("it is there", || (backend.seen().len() == 3).then_some(()));
    let routes = h2c_routes(&[other.address]);
    front.front.publish(&routes, &Settings::default());
    assert!(front.ask(GET).body.contains("other"));
    gate.add_permits(1);
    assert!(busy.answer().body.contains('a'));
    eventually("it is closed", || (backend.open() == 0).then_some(()));
}

#[test]
fn a_backend_without_http_2_is_an_invalid_answer() {
    let backend = crate::kit::Backend::start(|_| {
        crate::kit::Reply::Close(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n".to_vec())
    });
    let front = front(Limits::default(), &[backend.address]);
    let answer = front.ask(POST);
    assert_eq!(answer.status, 502);
    assert!(answer.body.starts_with("response_invalid"), "{answer:?}");
}

#[test]
fn a_large_body_is_carried_each_way_and_no_more_of_it_than_is_taken() {
    let large = "0123456789abcdef".repeat(64 * 1024);
    let body: &'static str = Box::leak(large.clone().into_boxed_str());
    let backend = H2Backend::start(move |mut call| async move {
        let all = whole(call.request.body_mut()).await.unwrap();
        assert!(all == body.as_bytes());
        answer_slowly(call, body).await;
    });
    let front = front(Limits::default(), &[backend.address]);
    let length = large.len();
    let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n");
    let mut client = front.client();
    client.send(head).send(&large);
    assert!(client.answer().body == large);
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, mut stream) = client.begin(post().body(()).unwrap()).await;
        stream
            .send_data(Bytes::from_static(body.as_bytes()), true)
            .unwrap();
        let mut answer = answer.await.unwrap();
        assert!(whole(answer.body_mut()).await.unwrap() == body.as_bytes());
    });
}

/// Sends as the window opens.
async fn answer_slowly(mut call: Call, text: &'static str) {
    let known = Response::builder().header("content-length", text.len());
    let known = known.body(()).unwrap();
    let mut body = call.answer.send_response(known, false).unwrap();
    body.send_data(Bytes::from_static(text.as_bytes()), true)
        .unwrap();
}

#[test]
fn a_client_that_takes_nothing_keeps_no_other_waiting() {
    let large: &'static str = Box::leak("x".repeat(1024 * 1024).into_boxed_str());
    let backend = H2Backend::start(move |call| answer_slowly(call, large));
    let front = front(Limits::default(), &[backend.address]);
    // What the kernel holds for each is far less than the answer.
    let mut slow: Vec<_> = (0..50).map(|_| front.client()).collect();
    for client in &mut slow {
        client.send(GET);
    }
    eventually("all wait", || (backend.seen().len() == 50).then_some(()));
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(backend.connections(), 1);
    drop(slow);
    eventually("all are given up", || {
        (front.stats().backends[0].in_flight == 0).then_some(())
    });
    assert_eq!(front.ask(GET).status, 200);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn the_workers_of_a_front_drain_with_requests_under_way() {
    let (backend, gate) = gated(Builder::new());
    let mut front = front(Limits::default(), &[backend.address]);
    let mut client = front.client();
    client.send(GET);
    eventually("it is there", || (backend.seen().len() == 1).then_some(()));
    let drained = front.drain();
    gate.add_permits(1);
    assert!(client.answer().body.contains('a'));
    assert_eq!(drained.join().unwrap().ended(Reason::Ok), 1);
    eventually("nothing is left", || (backend.open() == 0).then_some(()));
}

#[test]
fn one_service_may_speak_one_protocol_and_one_the_other() {
    let (one, two) = (crate::kit::Backend::named("one"), H2Backend::named("two"));
    let front = TestFront::start(Limits::default(), 1);
    front.publish(&[one.address]);
    assert_eq!(front.ask(GET).body, "one");
    let routes = h2c_routes(&[two.address]);
    front.front.publish(&routes, &Settings::default());
    assert!(front.ask(GET).body.contains("two"));
    front.publish(&[one.address]);
    assert_eq!(front.ask(GET).body, "one");
}

#[test]
fn a_request_taken_back_is_taken_back_from_the_backend() {
    let reset: &_ = Box::leak(Box::new(std::sync::Mutex::new(Vec::new())));
    let backend = H2Backend::start(move |mut call| async move {
        let reason = if call.request.uri().path() == "/say" {
            let mut body = call.answer.send_response(Response::new(()), false).unwrap();
            std::future::poll_fn(|cx| body.poll_reset(cx)).await
        } else {
            std::future::poll_fn(|cx| call.answer.poll_reset(cx)).await
        };
        reset.lock().unwrap().push(reason.unwrap());
    });
    let front = front(Limits::default(), &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        let mut ready = client.requests.clone().ready().await.unwrap();
        for (count, request) in [(1, get()), (2, post().body(()).unwrap())] {
            let (response, mut stream) = ready.send_request(request, false).unwrap();
            while backend.seen().len() < count {
                tokio::task::yield_now().await;
            }
            // One before its answer, one in the middle of it.
            let _body = match count {
                1 => None,
                _ => Some(response.await.unwrap()),
            };
            stream.send_reset(h2::Reason::CANCEL);
            while reset.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(*reset.lock().unwrap(), [h2::Reason::CANCEL; 2]);
    });
    eventually("both are counted", || {
        (front.stats().ended(Reason::ClientAbort) == 2).then_some(())
    });
    assert_eq!(front.stats().backends[0].in_flight, 0);
    assert_eq!(backend.connections(), 1);
}
