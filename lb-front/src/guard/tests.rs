use proptest::prelude::*;

use super::*;
use crate::fuzz::framing::{agree, judge, read};

#[track_caller]
fn check(stream: &str, heads: u32, fault: Option<Fault>) {
    let found = judge(stream.as_bytes(), &[]);
    let why = found.fault.map(|(_, fault)| fault);
    assert_eq!((found.heads, why), (heads, fault), "{stream:?}");
}

#[test]
fn what_hyper_normalises_away_is_refused() {
    check("GET / HTTP/1.1\nHost: a\r\n\r\n", 0, Some(Fault::BareLf));
    check("GET / HTTP/1.1\r\nHost: a\n\r\n", 0, Some(Fault::BareLf));
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", 0, Some(Fault::BareLf));
    check("\nGET / HTTP/1.1\r\n\r\n", 0, Some(Fault::BareLf));
    check(
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        0,
        Some(Fault::Fragment),
    );
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 3",
    ] {
        let stream = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        check(&stream, 0, Some(Fault::TwoFramings));
    }
    for coding in [
        "chunked, chunked",
        "gzip, chunked",
        ",chunked",
        "gzip",
        "",
        "chunked\r\nTransfer-Encoding: chunked",
    ] {
        let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: {coding}\r\n\r\n");
        check(&stream, 0, Some(Fault::TransferEncoding));
    }
    for length in [
        "+3",
        "3, 3",
        "0x3",
        "",
        "99999999999999999999",
        "3\r\nContent-Length: 4",
    ] {
        let stream = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        check(&stream, 0, Some(Fault::ContentLength));
    }
}

#[test]
fn what_is_legal_passes() {
    check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1, None);
    check("FOO!#$ / HTTP/1.1\r\nHost: a\r\n\r\n", 1, None);
    check(
        "POST / HTTP/1.1\r\nContent-Length: 003\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n",
        2,
        None,
    );
    check(
        "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n3 ;x=y\r\na\nb\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        2,
        None,
    );
}

#[test]
fn chunks_are_followed_to_the_letter() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "3\nabc\r\n",
        "3;x\n",
        "3\r\nabcd\r\n",
        "0x1\r\n",
        "10000000000000000\r\n",
        "\r\n",
        "3\r\nabc\n",
        "0\r\nX: y\n",
    ] {
        check(&format!("{head}{chunks}"), 1, Some(Fault::Chunk));
    }
}

#[test]
fn endless_lines_end() {
    let endless = "a".repeat(LINES_LIMIT);
    check(&format!("GET /{endless}"), 0, Some(Fault::TargetTooLong));
    let target = "a".repeat(REQUEST_LINE_LIMIT - "GET / HTTP/1.1\r\n".len());
    let fitting = |more: &str| format!("GET /{target}{more} HTTP/1.1\r\nHost: a\r\n\r\n");
    check(&fitting(""), 1, None);
    check(&fitting("a"), 0, Some(Fault::TargetTooLong));
    check(
        &format!("GET / HTTP/1.1\r\nA: {endless}"),
        0,
        Some(Fault::HeadTooLong),
    );
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&format!("{head}1;{endless}"), 1, Some(Fault::Chunk));
}

#[test]
fn one_request_is_judged_at_a_time() {
    for (request, rest) in [
        (
            "GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: keep-alive, Upgrade\r\n\r\n",
            "\x01\n\n\n",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb", "\n"),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "",
        ),
    ] {
        let stream = [request, rest].concat();
        let found = Framing::default().scan(stream.as_bytes());
        assert_eq!(found, Scan::End(request.len()), "{stream:?}");
    }
    assert_eq!(Framing::default().scan(b"\r\nGET"), Scan::Pass);
}

#[test]
fn a_long_line_leaves_no_memory_behind() {
    let mut framing = Framing::default();
    let long = [
        b"GET / HTTP/1.1\r\nA: ".as_slice(),
        &b"a".repeat(LINES_LIMIT / 2),
    ];
    assert_eq!(framing.scan(&long.concat()), Scan::Pass);
    assert!(framing.line.capacity() >= LINES_LIMIT / 2);
    assert_eq!(framing.scan(b"\r\n\r\n"), Scan::End(4));
    assert_eq!(framing.line.capacity(), 0);
}

/// Streams made of pieces that are likely to matter.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /x HTTP/1.1\r\n",
        "GET /a#b HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "content-length:5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content_Length: 1\r\n",
        "Expect: x\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        " ",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "0\r\n",
        "5;a=b\r\n",
        "hello",
        "a",
        "\0",
        ":",
        "Upgrade: x\r\nConnection: upgrade\r\n",
    ]);
    let message = prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0;x\r\nA: b\r\n\r\n",
    ]);
    let pieces = prop::collection::vec(prop_oneof![2 => message, 1 => piece], 0..12);
    pieces.prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_cut(
        stream in streams(),
        sizes in prop::collection::vec(1..40_usize, 1..8),
    ) {
        prop_assert_eq!(judge(&stream, &sizes), judge(&stream, &[]));
    }

    #[test]
    fn no_bytes_make_it_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        agree(&stream);
    }

    #[test]
    fn hyper_makes_the_same_requests_of_what_passes(stream in streams()) {
        agree(&stream);
    }

    #[test]
    fn hyper_and_the_guard_cut_legal_streams_alike(count in 1..6_usize, stream in streams()) {
        let message = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let legal = message.repeat(count).into_bytes();
        prop_assert_eq!(judge(&legal, &[]).ends.len(), count);
        prop_assert_eq!(read(&legal).len(), count);
        // Legal ones in front do not change the verdict on what follows.
        let alone = judge(&stream, &[]);
        let shifted = alone.fault.map(|(at, fault)| (at + legal.len(), fault));
        let both = judge(&[legal, stream].concat(), &[]);
        prop_assert_eq!(both.fault, shifted);
        prop_assert_eq!(both.ends.len(), alone.ends.len() + count);
    }
}
