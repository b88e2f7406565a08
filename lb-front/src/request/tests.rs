use std::borrow::Cow;

use hyper::Request;
use proptest::prelude::*;

use super::{host::HOST_LIMIT, *};

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[track_caller]
fn host(field: &str, expect: Option<&str>) {
    let found = check(&parts("GET", "/", &[("host", field)]));
    let found = found.ok().map(|checked| checked.host);
    assert_eq!(found.as_deref(), expect, "{field:?}");
}

#[track_caller]
fn status(method: &str, uri: &str, fields: &[(&str, &str)], expect: u16) {
    let status =
        check(&parts(method, uri, fields)).map_or_else(|refusal| refusal.status.as_u16(), |_| 200);
    assert_eq!(status, expect, "{method} {uri} {fields:?}");
}

#[test]
fn a_host_is_compared_in_lower_case_without_port_and_trailing_dot() {
    host("WWW.Hello", Some("www.hello"));
    host("www_hello:8080", Some("www_hello"));
    host("www.hello.:80", Some("www.hello"));
    host("[::1]:8080", Some("[::1]"));
    host("127.0.0.1", Some("127.0.0.1"));
}

#[test]
fn a_host_that_is_none_is_refused() {
    for field in [
        "", " ", "a b", "a/b", "u@a", "a, b", "[::1", "[x]", "[::1]x", "a:b", "a:99999", "a:0",
        "a:", "a:+1", ":80", ".", "a%41", "a..", "a..b", "..",
    ] {
        status("GET", "/", &[("host", field)], 400);
    }
    let mut high = parts("GET", "/", &[]);
    high.headers
        .insert(header::HOST, HeaderValue::from_bytes(b"\xc3\xa4").unwrap());
    assert!(check(&high).is_err());
}

#[test]
fn exactly_one_host_in_http_1_1_and_at_most_one_in_1_0() {
    status("GET", "/", &[], 400);
    status("GET", "/", &[("host", "a"), ("host", "a")], 400);
    status("GET", "http://a/", &[], 400);
    let mut old = parts("GET", "/", &[]);
    old.version = Version::HTTP_10;
    assert_eq!(check(&old).unwrap().host, "");
}

#[test]
fn targets_must_have_the_form_of_their_method() {
    let a = [("host", "a")];
    status("GET", "foo", &a, 400);
    status("GET", "a:80", &a, 400);
    status("GET", "*", &a, 400);
    status("OPTIONS", "*", &a, 200);
    status("GET", "http://b/", &a, 400);
    status("GET", "http://A:80/x", &a, 200);
    status("GET", "http://u@a/", &a, 400);
    status("GET", "ftp://a/", &a, 400);
    status("CONNECT", "a:80", &a, 405);
    status("TRACE", "/", &a, 405);
    status("GET", &format!("/{}", "a".repeat(TARGET_LIMIT)), &a, 414);
}

#[test]
fn only_one_expectation_exists() {
    status(
        "POST",
        "/",
        &[("host", "a"), ("expect", "100-Continue")],
        200,
    );
    status("POST", "/", &[("host", "a"), ("expect", "foo")], 417);
}

#[test]
fn names_that_imitate_others_are_refused_and_other_odd_ones_dropped() {
    for name in [
        "transfer_encoding",
        "content_length",
        "x_forwarded_for",
        "x-forwarded_for",
        "proxy_connection",
        "via_",
    ] {
        let expect = if name == "via_" { 200 } else { 400 };
        status("GET", "/", &[("host", "a"), (name, "x")], expect);
    }
    assert_eq!(
        rewritten("GET", "/", &[("my_field", "x")], BodyKind::Empty)
            .headers
            .get("my_field"),
        None
    );
}

/// The head that the backend gets.
fn rewritten(method: &str, uri: &str, fields: &[(&str, &str)], body: BodyKind) -> Parts {
    let fields: Vec<_> = [("host", "a:8080")].iter().chain(fields).copied().collect();
    let parts = parts(method, uri, &fields);
    let checked = check(&parts).unwrap();
    let sender = Sender {
        peer: Peer {
            address: [192, 0, 2, 1].into(),
            text: &HeaderValue::from_static("192.0.2.1"),
            secure: false,
        },
        forwarding: &Forwarding::default(),
        id: Some(&HeaderValue::from_static("1f")),
        via: &Via::new("here").unwrap(),
    };
    rewrite(&parts, &checked, &sender, body)
}

#[track_caller]
fn field(parts: &Parts, name: &str, expect: Option<&str>) {
    let all: Vec<_> = parts
        .headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(all.join("|"), expect.unwrap_or_default(), "{name}");
}

#[test]
fn the_backend_learns_who_asks_from_us_alone() {
    let forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=x"),
        ("via", "1.0 there"),
    ];
    let parts = rewritten("GET", "/", &forged, BodyKind::Empty);
    field(&parts, "x-forwarded-for", Some("192.0.2.1"));
    field(&parts, "x-forwarded-host", Some("a:8080"));
    field(&parts, "x-forwarded-proto", Some("http"));
    field(&parts, "x-forwarded-port", Some("8080"));
    field(&parts, "forwarded", None);
    field(&parts, "via", Some("1.0 there|1.1 here"));
}

#[test]
fn a_loop_is_seen_by_our_own_name_only() {
    let via = Via::new("here").unwrap();
    let is_in = |field: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::VIA, HeaderValue::from_static(field));
        via.is_in(&headers)
    };
    assert!(is_in("1.1 there, 1.0 here (comment)"));
    assert!(is_in("HTTP/1.1  here"));
    assert!(!is_in("1.1 there, here 1.1"));
    assert!(!is_in("1.1 here.too"));
}

#[test]
fn what_concerns_one_connection_stays_on_it() {
    let fields = [
        ("connection", "close, X-Secret, Host, Cookie"),
        ("x-secret", "1"),
        ("cookie", "c"),
        ("keep-alive", "9"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("transfer-encoding", "chunked"),
        ("expect", "100-continue"),
        ("proxy-authorization", "p"),
    ];
    let parts = rewritten("POST", "/", &fields, BodyKind::Unknown);
    for name in [
        "connection",
        "x-secret",
        "keep-alive",
        "te",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
        "expect",
        "proxy-authorization",
    ] {
        field(&parts, name, None);
    }
    field(&parts, "host", Some("a:8080"));
    field(&parts, "cookie", Some("c"));
}

#[test]
fn framing_is_told_to_hyper_where_it_would_lose_a_body() {
    field(
        &rewritten("GET", "/", &[], BodyKind::Unknown),
        "transfer-encoding",
        Some("chunked"),
    );
    field(
        &rewritten("GET", "/", &[], BodyKind::Empty),
        "content-length",
        None,
    );
    field(
        &rewritten("POST", "/", &[("content-length", "0")], BodyKind::Empty),
        "content-length",
        Some("0"),
    );
    field(
        &rewritten("POST", "/", &[("content-length", "003")], BodyKind::Known),
        "content-length",
        None,
    );
}

#[test]
fn targets_are_sent_in_origin_form_and_unchanged() {
    assert_eq!(
        rewritten("GET", "http://a:8080/%00/../x?y", &[], BodyKind::Empty).uri,
        "/%00/../x?y"
    );
    assert_eq!(rewritten("OPTIONS", "*", &[], BodyKind::Empty).uri, "*");
    assert_eq!(
        rewritten("OPTIONS", "http://a:8080", &[], BodyKind::Empty).uri,
        "*"
    );
}

#[test]
fn an_upgrade_needs_both_fields_and_keeps_them() {
    let asked = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
    ];
    let parts = rewritten("GET", "/", &asked, BodyKind::Empty);
    field(&parts, "connection", Some("upgrade"));
    field(&parts, "upgrade", Some("websocket"));
    field(
        &rewritten("GET", "/", &asked[1..], BodyKind::Empty),
        "upgrade",
        None,
    );
}

#[test]
fn the_name_in_via_must_be_a_token() {
    assert!(Via::new("lb-host.example").is_some());
    for name in ["", "a b", "a,b", "\u{e4}"] {
        assert!(Via::new(name).is_none(), "{name:?}");
    }
}

/// What a Host field names, by the grammar alone: each way to cut it in name and port is tried.
fn plainly_normal(field: &[u8]) -> Option<String> {
    let field: String = field.iter().map(|&byte| char::from(byte)).collect();
    let ports = 1..=u32::from(u16::MAX);
    let is_port = |text: &str| {
        let number = text.chars().try_fold(0, |number: u32, digit| {
            let digit = digit.to_digit(10)?;
            Some((number * 10 + digit).min(1_000_000))
        });
        !text.is_empty() && number.is_some_and(|number| ports.contains(&number))
    };
    let is_name = |text: &str| {
        let labels: Vec<_> = text.split('.').collect();
        let inner = &labels[1..];
        // The first may be empty, which no name has but some ask for; all but the last otherwise not.
        let gap = inner.iter().rev().skip(1).any(|label| label.is_empty());
        let mut letters = text.chars().filter(|&letter| letter != '.');
        let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        !gap && !text.trim_end_matches('.').is_empty() && letters.all(legal)
    };
    let is_literal = |text: &str| {
        let inner = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let colons = field.match_indices(':').map(|(at, _)| (at, Some(at + 1)));
    let mut cuts = colons.chain([(field.len(), None)]).filter(|&(end, port)| {
        let name = &field[..end];
        (is_name(name) || is_literal(name)) && port.is_none_or(|port| is_port(&field[port..]))
    });
    let (end, _) = cuts.next()?;
    assert_eq!(cuts.next(), None, "{field:?} can be read in two ways");
    let name = &field[..end];
    let name = name.strip_suffix('.').unwrap_or(name);
    (field.len() <= HOST_LIMIT).then(|| name.to_lowercase())
}

/// Host fields made of what is likely to matter.
fn host_fields() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "web",
        "WWW",
        "hello",
        ".",
        "..",
        ":",
        ":80",
        ":0",
        ":065535",
        ":65536",
        ":+1",
        "[",
        "]",
        "[::1]",
        "::1",
        "[fe80::1%25a]",
        "[::FFFF:1.2.3.4]",
        "_",
        "-",
        "@",
        " ",
        "/",
        "%41",
        ",",
        "10.0.0.7",
        ".nip.io",
        "\u{e4}",
        "\t",
    ];
    let piece = prop_oneof![
        9 => prop::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9.:-]{0,150}",
    ];
    let pieces = prop::collection::vec(piece, 0..6);
    prop_oneof![
        9 => pieces.prop_map(|pieces| pieces.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #[test]
    fn a_host_is_what_the_grammar_says(field in host_fields()) {
        let found = normal_host(&field).map(Cow::into_owned);
        prop_assert_eq!(&found, &plainly_normal(&field));
        if let Some(host) = found {
            let again = normal_host(host.as_bytes()).map(Cow::into_owned);
            prop_assert_eq!(again, Some(host));
        }
    }

    #[test]
    fn a_request_reaches_one_service_however_its_name_is_written(field in host_fields(), target in 0..3) {
        let host = String::from_utf8_lossy(&field);
        let stream = match target {
            0 => format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            1 => format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            _ => format!("OPTIONS http://{host} HTTP/1.0\r\n\r\n"),
        };
        crate::fuzz::front_route(stream.as_bytes());
    }
}

#[test]
fn trailers_pass_without_what_heads_are_trusted_for() {
    let names = [
        "connection",
        "te",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "host",
        "authorization",
        "cookie",
        "forwarded",
        "x-forwarded-for",
        "x-request-id",
        "x-real-ip",
        "content_length",
        "via",
        "checksum",
        "grpc-status",
    ];
    let trailers = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
    let passed = passable_trailers(trailers.into_iter().collect());
    let passed: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
    assert_eq!(passed, ["checksum", "grpc-status"]);
}
