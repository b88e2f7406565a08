//! What the front refuses, and that nothing of it reaches a backend.

use lb_front::Reason;

use crate::kit::{Backend, GET, TestFront, eventually};

/// Sends `request` and expects `status` with `Connection: close`, the end of the stream, and that the backend
/// saw nothing of it.
#[track_caller]
pub(crate) fn refused(
    front: &TestFront,
    backend: &Backend,
    request: impl AsRef<[u8]>,
    status: u16,
) {
    let shown = String::from_utf8_lossy(request.as_ref());
    let mut client = front.client();
    // Whatever follows on the connection must be lost with it.
    let answer = client.send(&request).send(GET).answer();
    assert_eq!(answer.status, status, "{shown:?}");
    assert_eq!(answer.field("connection"), Some("close"), "{shown:?}");
    assert_eq!(String::from_utf8_lossy(&client.rest()), "", "{shown:?}");
    assert_eq!(backend.seen().len(), 0, "{shown:?}");
}

#[test]
fn requests_that_may_hide_another_one_are_refused_and_the_connection_ends() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n");
    let cases = [
        // Host and target.
        get("A: b"),
        get("Host: web\r\nHost: web"),
        get("Host: web\r\nHost: other"),
        get("Host:"),
        get("Host: a b"),
        get("Host: a/b"),
        get("Host: u@a"),
        get("Host: web, web"),
        get("Host: [::1"),
        get("Host: web:b"),
        get("Host: web:99999"),
        get("Host: w\u{e4}b"),
        get(&format!("Host: {}1.1.1.1.nip.io", "1.".repeat(150))),
        get(&format!("Host: web:{:0>300}", 80)),
        "GET http://web/ HTTP/1.1\r\n\r\n".into(),
        "GET http://web/ HTTP/1.1\r\nHost: other\r\n\r\n".into(),
        "GET http://u@web/ HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET ftp://web/ HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET foo HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET web:80 HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET * HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET /a#b HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        // Framing.
        post("Content-Length: 3\r\nTransfer-Encoding: chunked"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 3"),
        post("Transfer-Encoding: chunked, chunked"),
        post("Transfer-Encoding: gzip, chunked"),
        post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        post("Transfer-Encoding: ,chunked"),
        post("Transfer-Encoding: xchunked"),
        post("Transfer-Encoding: identity"),
        post("Content-Length: 3\r\nContent-Length: 4"),
        post("Content-Length: 3, 3"),
        post("Content-Length: +3"),
        // Bytes.
        "GET / HTTP/1.1\nHost: web\n\n".into(),
        "GET / HTTP/1.1\r\nHost: web\n\r\n".into(),
        get("Host: web\r\nTransfer_Encoding: chunked"),
        get("Host: web\r\nX_Forwarded_For: 6.6.6.6"),
        get("Host : web"),
        get("Host: web\r\n folded"),
        get("Host: web\r\nA: \0"),
        get("Host: web\r\nA: b\rc"),
        "GET  / HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET / HTTP/1.2\r\nHost: web\r\n\r\n".into(),
        "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
    ];
    for case in &cases {
        refused(&front, &backend, case, 400);
    }
    let stats = front.stats();
    let counted = stats.ended(Reason::BadRequest) + stats.rejected.values().sum::<u64>();
    assert_eq!(counted, cases.len() as u64, "{stats:?}");
    for reason in [
        "bare_lf",
        "fragment",
        "two_framings",
        "transfer_encoding",
        "content_length",
    ] {
        assert!(stats.rejected.contains_key(reason), "{reason} in {stats:?}");
    }
}

#[test]
fn other_requests_are_refused_with_a_status_of_their_own() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let long = "a".repeat(40_000);
    let many = "A: b\r\n".repeat(120);
    for (request, status) in [
        (
            "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n".into(),
            405,
        ),
        ("TRACE / HTTP/1.1\r\nHost: web\r\n\r\n".into(), 405),
        (
            "POST / HTTP/1.1\r\nHost: web\r\nExpect: foo\r\nContent-Length: 0\r\n\r\n".into(),
            417,
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", &long[..9_000]),
            414,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: web\r\nA: {long}\r\n\r\n"),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nHost: web\r\n{many}\r\n"), 431),
    ] {
        refused(&front, &backend, &request, status);
    }
}

#[test]
fn a_refusal_does_not_depend_on_how_the_bytes_arrive() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for request in [
        "GET /a#b HTTP/1.1\r\nHost: web\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web\n\n",
    ] {
        let mut client = front.client();
        client.stream.set_nodelay(true).unwrap();
        for byte in request.as_bytes() {
            client.send([*byte]);
        }
        assert_eq!(client.answer().status, 400, "{request:?}");
    }
}

#[test]
fn a_refused_request_does_not_swallow_the_answers_before_it() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    client.send([GET, GET, "GET / HTTP/1.1\nHost: web\n\n"].concat());
    let statuses = [
        client.answer().status,
        client.answer().status,
        client.answer().status,
    ];
    assert_eq!(statuses, [200, 200, 400]);
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn a_malformed_body_is_answered_and_the_backends_connection_is_not_used_again() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for chunks in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "0x1\r\n",
        "ffffffffffffffffff\r\n",
        "3\r\nabc\r\n0\r\nX: y\n\r\n",
    ] {
        let mut client = front.client();
        client
            .send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
            .send(chunks);
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.field("connection")),
            (400, Some("close")),
            "{chunks:?}"
        );
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(front.ask(GET).body, "a");
    eventually("only the good connection is left", || {
        (backend.open() == 1).then_some(())
    });
}
