//! Legal requests in every form, and the one form in which the backend gets them.

use crate::kit::{Backend, GET, Seen, TestFront};

/// What the backend sees of `request`, which is answered.
#[track_caller]
fn passed(request: impl AsRef<[u8]>) -> Seen {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    let answer = front.ask(&request);
    let shown = String::from_utf8_lossy(request.as_ref());
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "a"),
        "{shown:?}"
    );
    let mut seen = backend.seen();
    assert_eq!(seen.len(), 1, "{shown:?}");
    seen.remove(0)
}

#[test]
fn the_target_reaches_the_backend_in_origin_form_and_otherwise_unchanged() {
    for (asked, got) in [
        ("GET /", "GET /"),
        ("GET /%00/../x", "GET /%00/../x"),
        ("GET //x/./..//y", "GET //x/./..//y"),
        ("GET /?a=b?c&%0d%0a", "GET /?a=b?c&%0d%0a"),
        ("GET /a;b=c,d(e)'f'!*", "GET /a;b=c,d(e)'f'!*"),
        ("GET http://web", "GET /"),
        ("GET http://web?q", "GET /?q"),
        ("GET HTTP://WEB.:81/x?y", "GET /x?y"),
        ("GET https://web/x", "GET /x"),
        ("OPTIONS *", "OPTIONS *"),
        ("OPTIONS http://web", "OPTIONS *"),
        ("OPTIONS /x", "OPTIONS /x"),
        ("OPTIONS http://web/x", "OPTIONS /x"),
        // Any token is a method, and means itself alone.
        ("get /", "get /"),
        ("FOO!#$ /", "FOO!#$ /"),
        ("PROPFIND /", "PROPFIND /"),
    ] {
        let seen = passed(format!("{asked} HTTP/1.1\r\nHost: web\r\n\r\n"));
        let line = seen.head.lines().next();
        assert_eq!(line, Some(format!("{got} HTTP/1.1").as_str()), "{asked}");
    }
}

#[test]
fn any_way_to_write_a_name_leads_to_its_service() {
    for (target, host, got) in [
        ("/", "web", "web"),
        ("/", "WEB", "WEB"),
        ("/", "web:8080", "web:8080"),
        ("/", "web.:1", "web.:1"),
        ("/", "Web.LocalHost.", "Web.LocalHost."),
        ("/", "web:65535", "web:65535"),
        ("/", "web.10.0.0.7.nip.io:80", "web.10.0.0.7.nip.io:80"),
        ("/", "web-10-0-0-7.sslip.io", "web-10-0-0-7.sslip.io"),
        ("/", "WEB.7F000001.XIP.IO.", "WEB.7F000001.XIP.IO."),
        // RFC 9112 section 3.2.2: the target wins, and Host is written anew from it.
        ("http://WEB:81/", "web", "WEB:81"),
        ("http://web/", "web:9", "web"),
    ] {
        let seen = passed(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(seen.field("host"), Some(got), "{target} {host}");
        assert_eq!(seen.field("x-forwarded-host"), Some(got), "{target} {host}");
        assert_eq!(
            seen.head.to_ascii_lowercase().matches("\r\nhost:").count(),
            1
        );
    }
}

#[test]
fn a_body_reaches_the_backend_in_framing_of_our_own() {
    let chunked = "3\r\nabc\r\n0\r\n\r\n";
    for (method, fields, body, length, got) in [
        // Lengths.
        ("POST", "Content-Length: 3", "abc", Some("3"), "abc"),
        ("POST", "Content-Length: 003", "abc", Some("3"), "abc"),
        (
            "POST",
            "Content-Length:3\r\nContent-Length: \t3 ",
            "abc",
            Some("3"),
            "abc",
        ),
        ("GET", "Content-Length: 3", "abc", Some("3"), "abc"),
        ("HEAD", "Content-Length: 3", "abc", Some("3"), "abc"),
        ("DELETE", "Content-Length: 3", "abc", Some("3"), "abc"),
        // None at all, which some methods must say.
        ("POST", "A: b", "", Some("0"), ""),
        ("PUT", "A: b", "", Some("0"), ""),
        ("PATCH", "Content-Length: 0", "", Some("0"), ""),
        ("GET", "A: b", "", None, ""),
        ("GET", "Content-Length: 0", "", None, ""),
        ("DELETE", "A: b", "", None, ""),
        // Chunks.
        ("POST", "Transfer-Encoding: chunked", chunked, None, chunked),
        (
            "POST",
            "Transfer-Encoding:\tChunked ",
            chunked,
            None,
            chunked,
        ),
        ("GET", "Transfer-Encoding: chunked", chunked, None, chunked),
        ("HEAD", "Transfer-Encoding: chunked", chunked, None, chunked),
        (
            "POST",
            "Transfer-Encoding: chunked",
            "3 ;x=y\r\nabc\r\n0\r\n\r\n",
            None,
            chunked,
        ),
        (
            "POST",
            "Transfer-Encoding: chunked",
            "0003\t;\r\nabc\r\n000\r\n\r\n",
            None,
            chunked,
        ),
        (
            "POST",
            "Transfer-Encoding: chunked",
            "3\r\nabc\r\n0;x=y\r\nA: b\r\n\r\n",
            None,
            chunked,
        ),
        (
            "POST",
            "Transfer-Encoding: chunked",
            "0\r\n\r\n",
            None,
            "0\r\n\r\n",
        ),
    ] {
        let case = format!("{method} {fields:?} {body:?}");
        let backend = Backend::named("a");
        let front = TestFront::with(&[&backend]);
        let mut client = front.client();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n{body}"
        ));
        if method == "HEAD" {
            assert!(client.head().starts_with("HTTP/1.1 200 "), "{case}");
        } else {
            assert_eq!(client.answer().status, 200, "{case}");
            // Nothing of the body is left over.
            assert_eq!(client.send(GET).answer().status, 200, "{case}");
        }
        let seen = &backend.seen()[0];
        assert_eq!(seen.field("content-length"), length, "{case}");
        assert_eq!(String::from_utf8_lossy(&seen.body), got, "{case}");
        let coding = seen.field("transfer-encoding");
        assert_eq!(coding.is_some(), got.contains("\r\n"), "{case}");
    }
}

#[test]
fn trailers_never_become_fields() {
    let request = "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: X-Sum, Host, Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: evil\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n";
    let seen = passed(request);
    assert_eq!(seen.field("host"), Some("web"));
    assert_eq!(seen.field("x-sum"), None);
    assert_eq!(seen.field("content-length"), None);
    let body = String::from_utf8(seen.body).unwrap().to_ascii_lowercase();
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn trailers_tell_nothing_of_the_client_that_the_front_did_not_see() {
    let names = "X-Forwarded-User, X-Forwarded-For, X_Forwarded_For, Forwarded, Via, X-Real-Ip, X-Request-Id, Authorization, Cookie";
    let forged: String = names
        .split(", ")
        .map(|name| format!("{name}: evil\r\n"))
        .collect();
    for honest in ["", "x-sum: 1\r\n"] {
        let seen = passed(format!(
            "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: X-Sum, {names}\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n{forged}{honest}\r\n"
        ));
        let body = String::from_utf8(seen.body).unwrap();
        assert_eq!(body, format!("3\r\nabc\r\n0\r\n{honest}\r\n"));
    }
}

#[test]
fn fields_that_concern_one_connection_end_there_and_all_others_pass() {
    let seen = passed(
        b"GET / HTTP/1.1\r\nHost: web\r\nConnection: host, close, X-Secret, cookie, authorization\r\nX-Secret: 1\r\nCookie: c\r\nCookie: d\r\nAuthorization: a\r\nMy_Field: b\r\nX-Bytes: \xe4\xff\r\nExpect: 100-continue\r\nX-Empty:\r\n\r\n",
    );
    assert_eq!(seen.field("host"), Some("web"));
    assert_eq!(seen.field("authorization"), Some("a"));
    assert_eq!(seen.field("x-bytes"), Some("\u{fffd}\u{fffd}"));
    let head = seen.head.to_ascii_lowercase();
    assert!(head.contains("\r\ncookie: c\r\ncookie: d\r\n"), "{head}");
    assert!(head.contains("\r\nx-empty: \r\n"), "{head}");
    for gone in [
        "connection",
        "x-secret",
        "my_field",
        "my-field",
        "expect",
        "close",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
}

#[test]
fn methods_that_are_not_passed_on_are_named() {
    let backend = Backend::named("a");
    let front = TestFront::with(&[&backend]);
    for request in [
        "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: web\r\n\r\n",
    ] {
        let answer = front.ask(request);
        assert_eq!(answer.status, 405);
        let allowed = answer.field("allow").unwrap_or_default();
        assert_eq!(allowed, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    assert_eq!(backend.seen().len(), 0);
}

#[test]
fn no_continue_is_sent_where_no_backend_takes_the_body() {
    let front = TestFront::with(&[]);
    front.publish(&[crate::kit::refusing()]);
    let head = "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    for host in ["web", "down", "nobody"] {
        let answer = front.ask(head.replace("Host: web", &format!("Host: {host}")));
        assert!(answer.status > 500, "{answer:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
    }
}
