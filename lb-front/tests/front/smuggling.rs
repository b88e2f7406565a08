//! What smuggled requests past other proxies, one case each: a stream may hide [`HIDDEN`], and no backend must see it.

use lb_front::Limits;

use crate::kit::{Backend, Client, GET, Reply, TestFront, ok};

/// What a stream hides in something else.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: web\r\n\r\n";

/// A stream and what becomes of it.
struct Case {
    /// Where it is from.
    name: &'static str,
    stream: String,
    /// The answers, after which the connection ends.
    answers: &'static [u16],
}

fn case(name: &'static str, stream: impl Into<String>, answers: &'static [u16]) -> Case {
    Case {
        name,
        stream: stream.into(),
        answers,
    }
}

/// A request with `fields` and [`HIDDEN`] as its body, or behind it.
fn hides(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n{HIDDEN}")
}

/// The same as a body of the length that it has, to `host`.
fn posted(host: &str, fields: &str) -> String {
    let length = HIDDEN.len();
    format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}\r\n{HIDDEN}{GET}"
    )
}

fn cases() -> Vec<Case> {
    let length = HIDDEN.len();
    let chunked = "Transfer-Encoding: chunked";
    let in_chunks = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n{GET}");
    let mut cases = vec![
        // Pingora, CVE-2025-4366: an answer of our own, and the body read as the next request.
        case("4366: no route", posted("nobody", ""), &[503]),
        case("4366: no backend", posted("down", ""), &[503]),
        case("4366: loop", posted("web", "Via: 1.1 lb-agent\r\n"), &[508]),
        case("4366: expectation", posted("web", "Expect: x\r\n"), &[417]),
        case(
            "4366: field name",
            posted("web", "Keep_Alive: x\r\n"),
            &[400],
        ),
        case(
            "4366: method",
            posted("web", "").replace("POST", "TRACE"),
            &[405],
        ),
        case(
            "4366: in chunks",
            format!("POST / HTTP/1.1\r\nHost: nobody\r\n{chunked}\r\n\r\n{in_chunks}"),
            &[503],
        ),
        // Pingora, CVE-2026-2835, hyper#4124: which of two framings counts.
        case(
            "2835: CL.TE",
            hides(&format!("Content-Length: 4\r\n{chunked}")),
            &[400],
        ),
        case(
            "2835: TE.CL",
            hides(&format!("{chunked}\r\nContent-Length: 4")),
            &[400],
        ),
        case(
            "2835: CL.0",
            hides(&format!("Content-Length: 0\r\n{chunked}")),
            &[400],
        ),
        case(
            "2835: a coding in HTTP/1.0",
            format!(
                "POST / HTTP/1.0\r\nHost: web\r\nConnection: keep-alive\r\n{chunked}\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
            &[400],
        ),
        // hyper, RUSTSEC-2021-0020, -0078, -0079.
        case(
            "0020: two codings",
            hides("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            &[400],
        ),
        case(
            "0020: in one line",
            hides("Transfer-Encoding: identity, chunked"),
            &[400],
        ),
        case("0078: a sign", hides("Content-Length: +4"), &[400]),
        case(
            "0079: a chunk's size overflows",
            hides(chunked).replace(
                HIDDEN,
                &format!("f0000000000000003\r\nabc\r\n0\r\n\r\n{HIDDEN}"),
            ),
            &[400],
        ),
        case(
            "0079: to zero",
            hides(chunked).replace(HIDDEN, &format!("10000000000000000\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        // Where two readers see two ends of a line.
        case(
            "LF in a head",
            hides("A: b\nTransfer-Encoding: chunked"),
            &[400],
        ),
        case(
            "LF ends a head",
            format!("GET / HTTP/1.1\r\nHost: web\n\n{HIDDEN}"),
            &[400],
        ),
        case(
            "CR in a value",
            hides("A: b\rTransfer-Encoding: chunked"),
            &[400],
        ),
        case(
            "LF in a chunk's extension",
            hides(chunked).replace(
                HIDDEN,
                &format!("2;\nxx\r\n{length:x}\r\n0\r\n\r\n{HIDDEN}\r\n0\r\n\r\n"),
            ),
            &[400],
        ),
        case(
            "LF behind a chunk's size",
            hides(chunked).replace(HIDDEN, &format!("1\nx\r\n0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        case(
            "no line end behind a chunk",
            hides(chunked).replace(HIDDEN, &format!("1\r\nxy0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        case(
            "LF behind the last chunk",
            hides(chunked).replace(HIDDEN, &format!("0\n\r\n{HIDDEN}")),
            &[400],
        ),
        case(
            "LF ends the trailers",
            hides(chunked).replace(HIDDEN, &format!("0\r\nA: b\n\n{HIDDEN}")),
            &[400],
        ),
        // Where two readers see two names.
        case(
            "a space before the colon",
            hides("Transfer-Encoding : chunked"),
            &[400],
        ),
        case(
            "a folded line",
            hides("A: b\r\n Transfer-Encoding: chunked"),
            &[400],
        ),
        case(
            "a space before the first field",
            format!("POST / HTTP/1.1\r\n Host: web\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        case(
            "an underscore in the coding",
            hides("Transfer_Encoding: chunked"),
            &[400],
        ),
        case(
            "an underscore in the length",
            hides(&format!("Content_Length: {length}")),
            &[400],
        ),
        case(
            "NUL in a name",
            hides("Transfer-Encoding\0: chunked"),
            &[400],
        ),
        case(
            "VT before a value",
            hides("Transfer-Encoding: \x0bchunked"),
            &[400],
        ),
        // Where two readers see two numbers or two codings.
        case(
            "a length twice",
            hides("Content-Length: 0\r\nContent-Length: 5"),
            &[400],
        ),
        case("a list of lengths", hides("Content-Length: 0, 0"), &[400]),
        case("a hexadecimal length", hides("Content-Length: 0x0"), &[400]),
        case(
            "a signed chunk",
            hides(chunked).replace(HIDDEN, &format!("+0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        case(
            "a prefixed chunk",
            hides(chunked).replace(HIDDEN, &format!("0x0\r\n\r\n{HIDDEN}")),
            &[400],
        ),
        case(
            "a coding in quotes",
            hides("Transfer-Encoding: \"chunked\""),
            &[400],
        ),
        case(
            "an unknown coding",
            hides("Transfer-Encoding: xchunked"),
            &[400],
        ),
        case(
            "chunked, but not last",
            hides("Transfer-Encoding: chunked, identity"),
            &[400],
        ),
        case("an empty coding", hides("Transfer-Encoding:"), &[400]),
        // Where two readers see two hosts or two targets.
        case(
            "two hosts",
            format!("GET / HTTP/1.1\r\nHost: nobody\r\nHost: web\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        case(
            "Host and target",
            format!("GET http://nobody/ HTTP/1.1\r\nHost: web\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        case(
            "a target with a request in it",
            format!("GET /%20HTTP/1.1\rHost: web HTTP/1.1\r\nHost: web\r\n\r\n{HIDDEN}"),
            &[400],
        ),
        case("no version", format!("GET /\r\n\r\n{HIDDEN}"), &[400]),
    ];
    // What was well before is answered first.
    for case in &mut cases[..12] {
        case.stream.insert_str(0, GET);
        case.answers = match case.answers {
            [400] => &[200, 400],
            [405] => &[200, 405],
            [417] => &[200, 417],
            [503] => &[200, 503],
            [508] => &[200, 508],
            _ => unreachable!(),
        };
    }
    cases
}

/// Expects `answers`, then the end.
#[track_caller]
fn expect(mut client: Client, case: &Case) {
    for (place, status) in case.answers.iter().enumerate() {
        let answer = client.answer();
        assert_eq!(answer.status, *status, "{} {place}", case.name);
        let close = (place + 1 == case.answers.len()).then_some("close");
        assert_eq!(answer.field("connection"), close, "{}", case.name);
    }
    assert_eq!(client.rest(), b"", "{}", case.name);
}

#[test]
fn no_backend_sees_what_a_stream_hides() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for case in &cases() {
        let mut client = front.client();
        client.send(&case.stream);
        expect(client, case);
        // In as many packets as there are bytes.
        let mut client = front.client();
        client.stream.set_nodelay(true).unwrap();
        for byte in case.stream.as_bytes() {
            client.send([*byte]);
        }
        expect(client, case);
        let seen = backend.seen();
        let hidden = seen.iter().find(|seen| seen.head.contains("/hidden"));
        assert!(hidden.is_none(), "{}: {hidden:?}", case.name);
    }
    // And no connection to the backend was left in a state in which the next request would suffer.
    assert_eq!(front.ask(GET).body, "a");
}

#[test]
fn the_body_of_a_request_beyond_the_limit_is_not_the_next_one() {
    let backend = Backend::named("a");
    let limits = Limits {
        backend_connections: 0,
        ..Limits::default()
    };
    let front = TestFront::limited(limits, &[&backend]);
    let mut client = front.client();
    client.send(posted("web", ""));
    expect(client, &case("4366: limit", "", &[503]));
    // The body comes after the answer.
    let mut client = front.client();
    client.send(posted("web", "").split_at(60).0);
    let rest = posted("web", "").split_off(60);
    client.send(rest);
    expect(client, &case("4366: limit, in two", "", &[503]));
    assert_eq!(backend.seen().len(), 0);
}

/// Pingora, CVE-2026-2833: what follows a request for an upgrade is nobody's before the answer.
#[test]
fn what_follows_a_request_to_leave_http_waits_for_the_answer() {
    let backend =
        Backend::start(|seen| Reply::Keep(ok(seen.head.split(' ').nth(1).unwrap_or_default())));
    let front = TestFront::with(&[&backend]);
    for upgrade in ["websocket", "h2c", "x\r\nUpgrade: h2c", "h2c\r\nUpgrade: x"] {
        for method in ["GET", "OPTIONS", "POST"] {
            let mut client = front.client();
            client.send(format!(
                "{method} /up HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.1\r\nHost: web\r\n\r\n{}{HIDDEN}",
                HIDDEN.replace("web", "nobody").replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n", HIDDEN.len())),
            ));
            let bodies = [client.answer().body, client.answer().body];
            assert_eq!(bodies, ["/up", "/next"], "{method} {upgrade}");
            assert_eq!(client.answer().status, 503, "{method} {upgrade}");
            assert_eq!(client.rest(), b"", "{method} {upgrade}");
        }
    }
    let seen = backend.seen();
    assert!(
        seen.iter().all(|seen| !seen.head.contains("/hidden")),
        "{seen:?}"
    );
}
