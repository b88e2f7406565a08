//! What hyper refuses by itself, so that nobody notices too late when it no longer does; and where the limits lie.

use crate::{
    bytes::refused,
    kit::{
        Backend, GET,
        Reply::{self, Close, Keep},
        TestFront, ok,
    },
};

#[test]
fn what_hyper_refuses_stays_refused() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n");
    let coded = |coding: &str| post(&format!("Transfer-Encoding: {coding}"));
    let long = |length: &str| post(&format!("Content-Length: {length}"));
    let cases: Vec<Vec<u8>> = [
        // Codings.
        coded("xchunked"),
        coded("identity"),
        coded("\x0bchunked"),
        coded("\x0cchunked"),
        coded("chunked, gzip"),
        coded("\"chunked\""),
        coded("chunked;q=1"),
        "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: gzip\r\n\r\n".into(),
        // Lengths.
        long("3\r\nContent-Length: 4"),
        long("3, 3"),
        long("+3"),
        long("-3"),
        long("0x3"),
        long("c"),
        long("3 3"),
        long(""),
        long("18446744073709551616"),
        // Fields.
        post("A : b"),
        post("A\t: b"),
        post("A: b\r\n c"),
        post("A: b\r\n\tc"),
        " Host: web\r\n".to_owned() + GET,
        "GET / HTTP/1.1\r\n Host: web\r\nA: b\r\n\r\n".into(),
        post(": b"),
        post("A"),
        post("A: b\0"),
        post("A\0: b"),
        post("A: b\x7f"),
        post("A: b\rc"),
        post("A(b): c"),
        // Request lines.
        "GET / HTTP/1.2\r\nHost: web\r\n\r\n".into(),
        "GET / HTTP/2.0\r\nHost: web\r\n\r\n".into(),
        "GET / HTTP/0.9\r\nHost: web\r\n\r\n".into(),
        "GET /\r\nHost: web\r\n\r\n".into(),
        "GET / http/1.1\r\nHost: web\r\n\r\n".into(),
        "GET / HTTP/1.1 \r\nHost: web\r\n\r\n".into(),
        "GET  / HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET\t/ HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "G(T / HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET /a b HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET /\x7f HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        "GET / HTTP/1.1\rHost: web\r\n\r\n".into(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([b"GET /\xff HTTP/1.1\r\nHost: web\r\n\r\n".to_vec()])
    .collect();
    for request in &cases {
        refused(&front, &backend, request, 400);
    }
    // More than hyper can count, but a number.
    refused(&front, &backend, long(&u64::MAX.to_string()), 431);
    let stats = front.stats();
    let counted: u64 = stats.rejected.values().sum();
    assert_eq!(counted, cases.len() as u64 + 1, "{stats:?}");
}

/// Too much to be read to its end, so that nothing is asked of the end of the stream.
#[track_caller]
fn too_long(front: &TestFront, backend: &Backend, request: &str, status: u16) {
    let answer = front.ask(request);
    assert_eq!(answer.status, status);
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn heads_and_targets_beyond_the_limits_are_refused_by_what_is_too_long_in_them() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for length in [8 * 1024, 9 * 1024, 20_000, 40_000, 70_000, 500_000] {
        let request = format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "a".repeat(length));
        too_long(&front, &backend, &request, 414);
    }
    for (name, count) in [
        ("A: b\r\n", 100),
        ("A: bbbbbbbbbbbbbbbbbbbbbbbbb\r\n", 17_000),
    ] {
        let request = GET.replace("\r\n\r\n", "\r\n") + &name.repeat(count) + "\r\n";
        too_long(&front, &backend, &request, 431);
    }
    for length in [33_000, 70_000, 500_000] {
        let request = GET.replace("\r\n\r\n", "\r\nA: ") + &"a".repeat(length) + "\r\n\r\n";
        too_long(&front, &backend, &request, 431);
    }
    let stats = front.stats();
    assert_eq!(stats.rejected.get("target_too_long"), Some(&5), "{stats:?}");
    assert_eq!(stats.rejected.get("head_too_long"), Some(&5), "{stats:?}");
}

#[test]
fn heads_and_targets_up_to_the_limits_are_served() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let target = "/".to_owned() + &"a".repeat(8 * 1024 - 1);
    let in_full = format!("GET http://web{target} HTTP/1.1\r\nHost: web\r\n\r\n");
    assert_eq!(front.ask(in_full).status, 200);
    let fields = "A: b\r\n".repeat(99);
    let many = format!("GET {target} HTTP/1.1\r\nHost: web\r\n{fields}\r\n");
    assert_eq!(front.ask(many).status, 200);
    let long = "a".repeat(30_000);
    let long = format!("GET / HTTP/1.1\r\nHost: web\r\nA: {long}\r\n\r\n");
    assert_eq!(front.ask(long).status, 200);
    assert_eq!(backend.seen().len(), 3);
}

#[test]
fn a_target_that_is_too_long_does_not_swallow_the_answers_before_it() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let nobody = "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n";
    let long = format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "a".repeat(20_000));
    for pieces in [1, 3] {
        let mut client = front.client();
        if pieces == 1 {
            client.send([GET, nobody, nobody, &long].concat());
        } else {
            client.send([GET, nobody].concat()).send(nobody).send(&long);
        }
        let statuses = [(); 4].map(|()| client.answer().status);
        assert_eq!(statuses, [200, 503, 503, 414]);
        assert_eq!(client.rest(), b"");
    }
}

/// A target, what the backend does with it, and what the client gets.
type Answered = (&'static str, fn() -> Reply, u16, &'static str);

/// What a backend may do to its side of a message, and what the client gets of it.
#[test]
fn answers_of_any_legal_form_reach_the_client_in_a_plain_one() {
    let cases: [Answered; 10] = [
        // Interim answers have no way to the client.
        (
            "/hints",
            || {
                Keep(
                    [
                        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec(),
                        ok("x"),
                    ]
                    .concat(),
                )
            },
            200,
            "x",
        ),
        (
            "/100",
            || Keep([b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ok("x")].concat()),
            200,
            "x",
        ),
        // To the end of the connection.
        (
            "/close",
            || Close(b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()),
            200,
            "A\r\nto the end\r\n0\r\n\r\n",
        ),
        (
            "/lf",
            || Keep(b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx".to_vec()),
            200,
            "x",
        ),
        (
            "/twice",
            || Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".to_vec()),
            200,
            "x",
        ),
        (
            "/differ",
            || Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_vec()),
            502,
            "response_invalid: the answer is not valid HTTP\n",
        ),
        (
            "/plus",
            || Keep(b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx".to_vec()),
            502,
            "response_invalid: the answer is not valid HTTP\n",
        ),
        (
            "/fold",
            || Keep(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 1\r\n\r\nx".to_vec()),
            502,
            "response_invalid: the answer is not valid HTTP\n",
        ),
        (
            "/0.9",
            || Close(b"plain words".to_vec()),
            502,
            "response_invalid: the answer is not valid HTTP\n",
        ),
        // The framing of the connection to the client is ours.
        (
            "/both",
            || {
                Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n1;e\r\nx\r\n0\r\n\r\n".to_vec())
            },
            200,
            "1\r\nx\r\n0\r\n\r\n",
        ),
    ];
    let backend = Backend::start(move |seen| {
        let target = seen.head.split(' ').nth(1).unwrap_or_default().to_owned();
        let case = cases.iter().find(|(at, ..)| *at == target);
        case.map_or_else(|| Keep(ok("next")), |(_, reply, ..)| reply())
    });
    let front = TestFront::with(&[&backend]);
    for (target, _, status, body) in cases {
        let mut client = front.client();
        let answer = client
            .send(GET.replace("GET / ", &format!("GET {target} ")))
            .answer();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{target}"
        );
        // The next answer on this connection is the next request's.
        assert_eq!(client.send(GET).answer().body, "next", "{target}");
    }
}

#[test]
fn answers_without_body_have_none_whatever_they_say() {
    let backend = Backend::start(|seen| {
        let bodiless = ["/204", "/304"]
            .into_iter()
            .find(|at| seen.head.contains(at));
        Keep(match bodiless {
            Some(at) => format!(
                "HTTP/1.1 {} X\r\nETag: \"e\"\r\nContent-Length: 5\r\n\r\n",
                &at[1..]
            )
            .into(),
            None => ok("next"),
        })
    });
    let front = TestFront::with(&[&backend]);
    for target in ["/204", "/304"] {
        let mut client = front.client();
        let head = client
            .send(GET.replace("GET / ", &format!("GET {target} ")))
            .head()
            .to_ascii_lowercase();
        assert!(head.contains("etag: \"e\"\r\n"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(client.send(GET).answer().body, "next");
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys() {
    let surplus = [ok("a"), ok("smuggled")].concat();
    let backend = Backend::start(move |seen| {
        Keep(if seen.connection == 0 {
            surplus.clone()
        } else {
            ok("own")
        })
    });
    let front = TestFront::with(&[&backend]);
    let mut client = front.client();
    assert_eq!(client.send(GET).answer().body, "a");
    assert_eq!(client.send(GET).answer().body, "own");
    assert_eq!(front.ask(GET).body, "own");
}
