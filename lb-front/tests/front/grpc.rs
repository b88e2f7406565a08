//! Calls of gRPC, message by message: a length before each, and the outcome in trailers.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream, SendStream};
use hyper::{HeaderMap, Request, Response};
use lb_front::{Limits, Reason, Settings, rules};

use crate::{
    kit::{Backend, Reply, TestFront, eventually, refusing},
    kit_h2::{Call, H2Answer, H2Backend, H2Client, front, h2c_routes, post, take, whole, within},
};

/// A message as gRPC frames it: not compressed, its length, itself.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap();
    let length = length.to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

/// The next message of a call; `None` at its end.
async fn next(body: &mut RecvStream) -> Option<String> {
    // Each comes in a frame of its own here, since each is waited for.
    let data = body.data().await?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    if data.is_empty() {
        return None; // The end has a frame of its own.
    }
    assert_eq!(data[..5], message(&"x".repeat(data.len() - 5))[..5]);
    Some(String::from_utf8(data[5..].to_vec()).unwrap())
}

fn call() -> Request<()> {
    let call = post()
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("grpc-timeout", "7S");
    call.body(()).unwrap()
}

fn began() -> Response<()> {
    let began = Response::builder().header("content-type", "application/grpc");
    began.body(()).unwrap()
}

fn outcome(status: &'static str) -> HeaderMap {
    let fields = [("grpc-status", status), ("x-left", "7")];
    let fields = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    HeaderMap::from_iter(fields)
}

/// Says everything back, message by message.
async fn echo(mut call: Call) {
    let mut answer = call.answer.send_response(began(), false).unwrap();
    while let Some(text) = next(call.request.body_mut()).await {
        answer.send_data(message(&text), false).unwrap();
    }
    answer.send_trailers(outcome("0")).unwrap();
}

/// A status that came instead of messages.
fn is_head_alone(answer: &H2Answer, status: &str) {
    assert_eq!(answer.head.status(), 200);
    let headers = answer.head.headers();
    assert_eq!(headers["grpc-status"], status, "{headers:?}");
    assert_eq!(headers["content-type"], "application/grpc");
    assert!(answer.body.is_empty() && answer.trailers.is_none());
}

#[test]
fn a_call_and_its_outcome_pass_unchanged() {
    let backend = H2Backend::start(echo);
    let front = front(Limits::default(), &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        for _ in 0..2 {
            let answer = client.ask(call(), &message("hello"), None).await.unwrap();
            assert_eq!(answer.head.status(), 200);
            assert_eq!(answer.body, message("hello"));
            assert_eq!(answer.trailers, Some(outcome("0")));
            // Not among the fields of the head.
            assert_eq!(answer.head.headers().get("grpc-status"), None);
        }
    });
    let seen = backend.seen();
    for (name, value) in [
        ("te", "trailers"),
        ("grpc-timeout", "7S"),
        ("content-type", "application/grpc+proto"),
    ] {
        assert_eq!(seen[0].headers()[name], value);
    }
    assert_eq!(seen[0].uri(), "http://web/say");
    assert_eq!(backend.connections(), 1);
    assert_eq!(front.stats().ended(Reason::Ok), 2);
}

#[test]
fn both_sides_may_talk_at_once() {
    let backend = H2Backend::start(echo);
    let front = front(Limits::default(), &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, mut stream) = client.begin(call()).await;
        let mut answer = answer.await.unwrap();
        for round in 0..100 {
            let text = round.to_string();
            stream.send_data(message(&text), false).unwrap();
            assert_eq!(next(answer.body_mut()).await, Some(text));
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(next(answer.body_mut()).await, None);
        let trailers = answer.body_mut().trailers().await.unwrap();
        assert_eq!(trailers, Some(outcome("0")));
    });
    eventually("it is counted", || {
        (front.stats().ended(Reason::Ok) == 1).then_some(())
    });
}

#[test]
fn a_talk_outlives_a_silence_that_ends_other_bodies() {
    let backend = H2Backend::start(echo);
    let limits = Limits {
        body_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = front(limits, &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, mut stream) = client.begin(call()).await;
        let mut answer = answer.await.unwrap();
        tokio::time::sleep(limits.body_idle * 5).await;
        stream.send_data(message("still"), false).unwrap();
        assert_eq!(next(answer.body_mut()).await.unwrap(), "still");
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(next(answer.body_mut()).await, None);
    });
    // As long as a tunnel may be silent.
    let limits = Limits {
        tunnel_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let front = crate::kit_h2::front(limits, &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, _stream) = client.begin(call()).await;
        let mut answer = answer.await.unwrap();
        let cut = answer.body_mut().data().await.unwrap();
        assert_eq!(cut.unwrap_err().reason(), Some(Code::INTERNAL_ERROR));
    });
    eventually("nothing is under way", || {
        (front.stats().backends[0].in_flight == 0).then_some(())
    });
}

#[test]
fn trailers_pass_in_both_directions() {
    let got: &_ = Box::leak(Box::new(std::sync::Mutex::new(None)));
    let backend = H2Backend::start(move |mut call| async move {
        whole(call.request.body_mut()).await.unwrap();
        let trailers = call.request.body_mut().trailers().await.unwrap();
        *got.lock().unwrap() = trailers;
        let mut answer = call.answer.send_response(began(), false).unwrap();
        answer.send_trailers(outcome("5")).unwrap();
    });
    let two = front(Limits::default(), &[backend.address]);
    let sum = || HeaderMap::from_iter([("x-sum".parse().unwrap(), "9".parse().unwrap())]);
    within(async {
        let client = H2Client::connect(&two).await;
        let answer = client.ask(call(), b"abc", Some(sum())).await.unwrap();
        assert_eq!(answer.trailers, Some(outcome("5")));
    });
    assert_eq!(got.lock().unwrap().take(), Some(sum()));
    // From a client of HTTP/1, and to it as far as the answer declares them.
    let mut client = two.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\na\r\n0\r\nX-Sum: 9\r\nHost: other\r\n\r\n",
    );
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.bytes(5), b"0\r\n\r\n");
    let got = got.lock().unwrap().take().unwrap();
    assert_eq!(got["x-sum"], "9");
}

#[test]
fn trailers_of_a_request_reach_a_backend_of_http_1_if_they_are_declared() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    within(async {
        let client = H2Client::connect(&front).await;
        for declared in [true, false] {
            let mut request = post();
            if declared {
                request = request.header("trailer", "x-sum");
            }
            let sum = [("x-sum", "9"), ("host", "other")];
            let sum = sum.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let sum = Some(HeaderMap::from_iter(sum));
            let answer = client.ask(request.body(()).unwrap(), b"abc", sum).await;
            assert_eq!(answer.unwrap().head.status(), 200);
        }
    });
    let seen = backend.seen();
    assert_eq!(seen[0].body, b"3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n");
    assert_eq!(seen[1].body, b"3\r\nabc\r\n0\r\n\r\n");
    for seen in seen {
        assert_eq!(seen.field("host"), Some("web"));
    }
}

#[test]
fn a_backend_that_resets_is_told_to_the_client() {
    for (code, told) in [
        (Code::CANCEL, Code::CANCEL),
        (Code::ENHANCE_YOUR_CALM, Code::ENHANCE_YOUR_CALM),
        (Code::INADEQUATE_SECURITY, Code::INADEQUATE_SECURITY),
        (Code::INTERNAL_ERROR, Code::INTERNAL_ERROR),
        (Code::PROTOCOL_ERROR, Code::INTERNAL_ERROR),
        (Code::REFUSED_STREAM, Code::INTERNAL_ERROR),
    ] {
        let backend = H2Backend::start(move |mut call| async move {
            let mut answer = call.answer.send_response(began(), false).unwrap();
            answer.send_data(message("half"), false).unwrap();
            // Only what was taken can be taken back.
            assert!(next(call.request.body_mut()).await.is_some());
            answer.send_reset(code);
        });
        let front = front(Limits::default(), &[backend.address]);
        within(async {
            let client = H2Client::connect(&front).await;
            let (answer, mut stream) = client.begin(call()).await;
            let mut answer = answer.await.unwrap();
            assert_eq!(next(answer.body_mut()).await.unwrap(), "half");
            stream.send_data(message("go"), false).unwrap();
            let error = match answer.body_mut().data().await {
                Some(data) => data.unwrap_err(),
                None => panic!("{code:?} is no end"),
            };
            assert!(error.is_reset() && error.is_remote());
            assert_eq!(error.reason(), Some(told), "{code:?}");
        });
        eventually("it is counted", || {
            (front.stats().ended(Reason::ResponseTruncated) == 1).then_some(())
        });
    }
}

#[test]
fn a_backend_may_have_enough_of_a_request_and_answer_all_the_same() {
    let backend = H2Backend::start(|mut call| async move {
        let mut answer = call.answer.send_response(began(), false).unwrap();
        answer.send_trailers(outcome("8")).unwrap();
        // Dropped with the request unread: RST_STREAM with NO_ERROR.
    });
    let front = front(Limits::default(), &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, mut stream) = client.begin(call()).await;
        let answer = take(answer.await.unwrap()).await.unwrap();
        assert_eq!(answer.trailers, Some(outcome("8")));
        let end = poll_fn(|cx| stream.poll_reset(cx)).await;
        assert_eq!(end.unwrap(), Code::NO_ERROR);
    });
    assert_eq!(front.stats().ended(Reason::Ok), 1);
}

/// Sends as fast as the window opens, and counts the bytes.
async fn flood(stream: &mut SendStream<Bytes>, sent: &std::sync::atomic::AtomicUsize) {
    loop {
        stream.reserve_capacity(16 * 1024);
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else {
            return;
        };
        if stream.send_data(vec![0; room].into(), false).is_err() {
            return;
        }
        sent.fetch_add(room, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits until nothing more is sent, and tells how much was.
async fn settled(sent: &std::sync::atomic::AtomicUsize) -> usize {
    let read = || sent.load(std::sync::atomic::Ordering::Relaxed);
    let mut before = read();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match read() {
            now if now == before && now > 0 => return now,
            now => before = now,
        }
    }
}

#[test]
fn neither_side_is_asked_for_more_than_the_other_takes() {
    let sent: &_ = Box::leak(Box::default());
    let backend = H2Backend::start(move |mut call| async move {
        let mut answer = call.answer.send_response(began(), false).unwrap();
        // Takes nothing of the request meanwhile.
        flood(&mut answer, sent).await;
    });
    let front = front(Limits::default(), &[backend.address]);
    within(async {
        let client = H2Client::connect(&front).await;
        let (answer, mut stream) = client.begin(call()).await;
        let answer = answer.await.unwrap();
        // Windows of 128 KiB and 64 KiB, the front's own buffer of 128, and what is in a frame.
        let down = settled(sent).await;
        assert!(down < 512 * 1024, "{down}");
        let up: &_ = Box::leak(Box::default());
        let uploading = tokio::spawn(async move { flood(&mut stream, up).await });
        // Windows of 256 KiB and 64 KiB, and the front's own buffer.
        let up = settled(up).await;
        assert!(up < 768 * 1024, "{up}");
        uploading.abort();
        drop(answer);
    });
    eventually("nothing is under way", || {
        (front.stats().backends[0].in_flight == 0).then_some(())
    });
}

#[test]
fn what_the_front_answers_by_itself_is_a_status_of_grpc() {
    let backend = Backend::start(|_| Reply::Close(Vec::new()));
    let refusing = refusing();
    let closed = front(Limits::default(), &[refusing]);
    let none = front(Limits::default(), &[]);
    let broken = TestFront::with(&[&backend]);
    within(async {
        for (front, message) in [
            (&closed, "connect_refused: no instance accepts connections"),
            (&none, "no_backend: no healthy instance"),
            (&broken, "backend_reset: the instance closed the connection"),
        ] {
            let client = H2Client::connect(front).await;
            let answer = client.ask(call(), &self::message("x"), None).await.unwrap();
            is_head_alone(&answer, "14");
            assert_eq!(answer.head.headers()["grpc-message"], message);
            // Everybody else gets HTTP's.
            let other = post().header("content-type", "application/grpc-web");
            let answer = client.ask(other.body(()).unwrap(), b"x", None).await;
            assert!(answer.unwrap().head.status().is_server_error());
        }
    });
    for (front, reason) in [
        (&closed, Reason::ConnectRefused),
        (&none, Reason::NoBackend),
        (&broken, Reason::BackendReset),
    ] {
        assert_eq!(front.stats().ended(reason), 2);
    }
    let mut routes = h2c_routes(&[refusing]);
    let service = routes.services[0].1.as_mut().unwrap();
    std::sync::Arc::make_mut(service).rules = Some(std::sync::Arc::new(rules::Rules {
        maintenance: Some(rules::Maintenance::default()),
        ..rules::Rules::default()
    }));
    none.front.publish(&routes, &Settings::default());
    within(async {
        let client = H2Client::connect(&none).await;
        let answer = client.ask(call(), b"", None).await.unwrap();
        is_head_alone(&answer, "14");
        assert_eq!(
            answer.head.headers()["grpc-message"],
            "maintenance: the service is being worked on"
        );
    });
}
