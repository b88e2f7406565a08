//! What the front accepts from clients, what it refuses, and what the backend gets to see.

use std::io::Write;

use lb_front::{Limits, Reason, Settings};

use crate::kit::{Backend, Client, GET, Reply, TestFront, eventually, ok, routes};

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
fn legal_oddities_reach_the_backend_in_one_plain_form() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let body = |at: usize| {
        let seen = backend.seen()[at].clone();
        let length = seen.field("content-length").map(str::to_owned);
        (length, String::from_utf8(seen.body).unwrap())
    };
    let post = |fields: &str, body: &str| {
        let request = format!("POST / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n{body}");
        assert_eq!(front.ask(request).status, 200, "{fields}");
    };
    post("Content-Length: 003", "abc");
    assert_eq!(body(0), (Some("3".into()), "abc".into()));
    post("Content-Length: 3\r\nContent-Length: 3", "abc");
    assert_eq!(body(1), (Some("3".into()), "abc".into()));
    post("Transfer-Encoding: CHUNKED", "3 ;x=y\r\nabc\r\n0\r\n\r\n");
    assert_eq!(body(2), (None, "3\r\nabc\r\n0\r\n\r\n".into()));
    post("A: b", "");
    assert_eq!(body(3), (Some("0".into()), String::new()));
    let get = "\r\nGET / HTTP/1.1\r\nHost: WEB.:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(front.ask(get).status, 200);
    assert_eq!(body(4), (None, "3\r\nabc\r\n0\r\n\r\n".into()));
    assert_eq!(
        front
            .ask("GET http://web/%00/../x?y HTTP/1.1\r\nHost: web\r\n\r\n")
            .status,
        200
    );
    assert!(
        backend.seen()[5]
            .head
            .starts_with("GET /%00/../x?y HTTP/1.1\r\n")
    );
    assert_eq!(
        front.ask("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n").status,
        200
    );
    assert!(backend.seen()[6].head.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[test]
fn the_backend_sees_the_clients_host_and_where_it_comes_from() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let request = "GET / HTTP/1.1\r\nHost: Alias.Example:8080\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: x-a\r\nX-A: b\r\nMy_Field: c\r\nX-Bytes: \u{e4}\r\n\r\n";
    assert_eq!(front.ask(request).body, "a");
    let seen = &backend.seen()[0];
    assert_eq!(seen.field("host"), Some("Alias.Example:8080"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("Alias.Example:8080"));
    assert_eq!(seen.field("via"), Some("1.1 lb-agent"));
    assert_eq!(seen.field("x-bytes"), Some("\u{e4}"));
    for gone in ["x-a", "my_field", "connection"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
}

#[test]
fn an_unknown_name_and_a_service_without_instance_get_different_answers() {
    let front = TestFront::with(&[]);
    let unknown = front.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
    let down = front.ask("GET / HTTP/1.1\r\nHost: down.localhost:8080\r\n\r\n");
    assert_eq!((unknown.status, down.status), (503, 503));
    assert!(unknown.body.contains("no such name"), "{unknown:?}");
    assert!(down.body.contains("no healthy instance"), "{down:?}");
    let stats = front.stats();
    assert_eq!(
        (stats.ended(Reason::NoRoute), stats.ended(Reason::NoBackend)),
        (1, 1)
    );
    let settings = Settings {
        no_route_status: 404,
        ..Settings::default()
    };
    front.front.publish(&routes(&[]), &settings);
    assert_eq!(
        front.ask("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").status,
        404
    );
    assert_eq!(
        front.ask("GET / HTTP/1.1\r\nHost: down\r\n\r\n").status,
        503
    );
}

#[test]
fn before_the_first_routes_it_says_so() {
    let front = TestFront::start(Limits::default(), 1);
    let answer = front.ask(GET);
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("starting"), "{answer:?}");
}

#[test]
fn an_answer_without_reading_the_body_ends_the_connection() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for pieces in [1, 2] {
        for host in ["nobody", "down"] {
            let smuggled = GET;
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
                smuggled.len()
            );
            let mut client = front.client();
            if pieces == 1 {
                client.send([&head, smuggled, GET].concat());
            } else {
                client.send(head);
                client.send(smuggled).send(GET);
            }
            let answer = client.answer();
            assert_eq!(answer.status, 503);
            assert_eq!(answer.field("connection"), Some("close"));
            assert_eq!(client.rest(), b"");
        }
    }
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn a_client_that_is_still_sending_when_it_is_answered_is_not_reset() {
    let front = TestFront::with(&[]);
    let mut client = front.client();
    client.send("POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 20480\r\n\r\n");
    assert_eq!(client.answer().status, 503);
    for _ in 0..20 {
        // A closed socket would answer the first with a reset, and fail the next.
        client.stream.write_all(&[b'a'; 1024]).unwrap();
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn http_1_0_is_served_and_closed() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let answer = client.send("GET / HTTP/1.0\r\nHost: web\r\n\r\n").answer();
    assert_eq!((answer.status, answer.body.as_str()), (200, "a"));
    assert_eq!(client.rest(), b"");
    assert!(backend.seen()[0].head.starts_with("GET / HTTP/1.1\r\n"));
    let mut client = front.client();
    assert_eq!(client.send("GET / HTTP/1.0\r\n\r\n").answer().status, 503);
    assert_eq!(client.rest(), b"");
}

#[test]
fn an_answer_to_head_keeps_its_length_and_the_connection() {
    let backend = Backend::start(|seen| {
        let head = seen.head.starts_with("HEAD");
        Reply::Keep(if head {
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec()
        } else {
            ok("a")
        })
    });
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let head = client.send("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").head();
    assert!(
        head.to_ascii_lowercase().contains("content-length: 7\r\n"),
        "{head:?}"
    );
    assert_eq!(client.send(GET).answer().body, "a");
}

#[test]
fn a_request_that_has_been_here_is_a_loop() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let request = "GET / HTTP/1.1\r\nHost: web\r\nVia: 1.1 elsewhere, 1.1 lb-agent\r\n\r\n";
    assert_eq!(front.ask(request).status, 508);
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn continue_is_sent_once_a_backend_is_there_to_take_the_body() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    let head = "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert!(client.send(head).head().starts_with("HTTP/1.1 100 "));
    assert_eq!(client.send("abc").answer().status, 200);
    let seen = &backend.seen()[0];
    assert_eq!((seen.field("expect"), &seen.body[..]), (None, &b"abc"[..]));
    let mut client = front.client();
    let nobody = head.replace("web", "nobody");
    assert_eq!(client.send(nobody).answer().status, 503);
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

#[test]
fn a_client_that_leaves_is_counted_and_the_backend_is_told() {
    let backend = Backend::start(|_| Reply::Stall(Vec::new()));
    let front = TestFront::with(&[&backend]);
    let mut client: Client = front.client();
    client.send(GET);
    eventually("the request is there", || {
        (backend.seen().len() == 1).then_some(())
    });
    drop(client);
    eventually("it is counted", || {
        (front.stats().ended(Reason::ClientAbort) == 1).then_some(())
    });
    eventually("the backend is free", || {
        (backend.open() == 0).then_some(())
    });
}
