//! What both ends of a WebSocket say (RFC 6455) once they have agreed, as each of them hears it through the front.

mod ends;

use std::{
    io::{Read, Write},
    sync::Barrier,
    thread,
};

use lb_front::{Limits, Reason};

use crate::{
    kit::{Client, eventually},
    wskit::{
        BINARY, CLOSE, CONTINUATION, Cut, Endpoint, FIN, Frame, PING, PONG, Raw, TEXT, TRANSPORTS,
        Talk, Transport as _, agreed, agreement, connect, front, opening,
    },
};

/// What a client says, and what it hears of the endpoint.
fn cases() -> Vec<(&'static str, Vec<Frame>, Vec<Frame>)> {
    let whole = |opcode, payload: &str| Frame::whole(opcode, payload);
    let part = |opcode, payload: &str| Frame::part(opcode, payload);
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut cases = vec![
        (
            "text",
            vec![whole(TEXT, "Hello")],
            vec![whole(TEXT, "Hello")],
        ),
        ("nothing", vec![whole(TEXT, "")], vec![whole(TEXT, "")]),
        (
            "HTTP",
            vec![whole(TEXT, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")],
            vec![whole(TEXT, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")],
        ),
        (
            "every byte",
            vec![Frame::whole(BINARY, every_byte.clone())],
            vec![Frame::whole(BINARY, every_byte)],
        ),
        ("a ping", vec![whole(PING, "p")], vec![whole(PONG, "p")]),
        (
            "the longest ping",
            vec![Frame::whole(PING, vec![b'p'; 125])],
            vec![Frame::whole(PONG, vec![b'p'; 125])],
        ),
        (
            "a pong that nobody asked for",
            vec![whole(PONG, "x"), whole(TEXT, "y")],
            vec![whole(TEXT, "y")],
        ),
        (
            "fragments",
            vec![
                part(TEXT, "a"),
                part(CONTINUATION, ""),
                part(CONTINUATION, "b"),
                whole(CONTINUATION, "c"),
            ],
            vec![whole(TEXT, "abc")],
        ),
        (
            "fragments with pings between them",
            vec![
                part(BINARY, "a"),
                whole(PING, "1"),
                part(CONTINUATION, "b"),
                whole(PING, "2"),
                whole(PONG, "3"),
                whole(CONTINUATION, "c"),
            ],
            vec![whole(PONG, "1"), whole(PONG, "2"), whole(BINARY, "abc")],
        ),
        (
            "messages in a row",
            (0..50)
                .map(|number: u8| Frame::whole(TEXT, number.to_string()))
                .collect(),
            (0..50)
                .map(|number: u8| Frame::whole(TEXT, number.to_string()))
                .collect(),
        ),
    ];
    // Around each form of the length, and around a buffer's.
    for length in [1, 124, 125, 126, 127, 128, 16_384, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..length).map(|at: usize| at.to_le_bytes()[0]).collect();
        let frame = Frame::whole(BINARY, payload);
        cases.push(("length", vec![frame.clone()], vec![frame]));
    }
    cases
}

#[test]
fn messages_pass_however_they_are_cut() {
    let endpoint = Endpoint::start();
    let front = front(Limits::default(), &[&endpoint.backend]);
    for transport in TRANSPORTS {
        for cut in [Cut::Whole, Cut::Bytes] {
            for (name, said, expected) in cases() {
                let mut talk = Talk::open(&front, transport, cut);
                let mut sent = Vec::new();
                for frame in &said {
                    talk.say(frame);
                    sent.extend(frame.masked());
                }
                let heard: Vec<_> = expected.iter().map(|_| talk.hear()).collect();
                let first = expected.first().map(|frame| frame.payload.len());
                assert!(
                    heard == expected,
                    "{name} of {first:?} bytes over {transport}, {cut:?}: {heard:?}"
                );
                endpoint.heard(&sent);
            }
        }
    }
}

#[test]
fn each_byte_arrives_before_the_next_one_is_sent() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    for transport in TRANSPORTS {
        let (mut client, mut peer) = raw.pair(&front, transport);
        let frame = Frame::whole(BINARY, vec![7; 70_000]);
        for byte in &frame.masked()[..30] {
            assert_eq!(peer_hears(client.send([*byte]), &mut peer), *byte);
        }
        for byte in &frame.bare()[..30] {
            assert_eq!(peer_hears(peer.send([*byte]), &mut client), *byte);
        }
    }
}

fn peer_hears<A, B: Read + Write>(_sent: A, by: &mut Client<B>) -> u8 {
    by.bytes(1)[0]
}

/// Bytes that are no frames, or none that this side may send.
fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let with_first = |first: u8| Frame {
        first,
        payload: b"x".into(),
    };
    vec![
        ("without a mask", Frame::whole(TEXT, "bare").bare()),
        ("with a mask", Frame::whole(TEXT, "masked").masked()),
        ("reserved bits", with_first(FIN | 0x70 | TEXT).masked()),
        ("a reserved opcode", with_first(FIN | 0x3).masked()),
        ("a reserved control", with_first(FIN | 0xf).masked()),
        ("a ping in parts", with_first(PING).masked()),
        ("a ping of 126", Frame::whole(PING, vec![0; 126]).masked()),
        ("more of nothing", Frame::whole(CONTINUATION, "x").masked()),
        ("no UTF-8", Frame::whole(TEXT, [0xff, 0xfe]).masked()),
        ("half a code", Frame::whole(CLOSE, [3]).masked()),
        ("a code that nobody sends", Frame::close(1005, "").masked()),
        (
            "a length in too many bytes",
            b"\x82\x7f\0\0\0\0\0\0\0\x01x".into(),
        ),
        (
            "an endless length",
            b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xffx".into(),
        ),
        ("HTTP", b"GET / HTTP/1.1\nHost: other\n\n".into()),
        (
            "an answer",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
        ),
    ]
}

#[test]
fn what_is_no_frame_passes_untouched() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    for transport in TRANSPORTS {
        let (mut client, mut peer) = raw.pair(&front, transport);
        for (name, bytes) in oddities() {
            client.send(&bytes);
            assert_eq!(peer.bytes(bytes.len()), bytes, "{name} to the backend");
            peer.send(&bytes);
            assert_eq!(client.bytes(bytes.len()), bytes, "{name} to the client");
        }
    }
    assert!(front.stats().rejected.is_empty());
}

#[test]
fn frames_in_one_packet_with_the_opening_arrive() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    for transport in TRANSPORTS {
        // More than hyper reads with a head, and less than the kernel takes.
        for (count, length) in [(1, 5), (3, 130), (100, 1000)] {
            let frames: Vec<_> = (0..count)
                .map(|number: u8| Frame::whole(BINARY, vec![number; length]))
                .collect();
            let pushed: Vec<u8> = frames.iter().flat_map(Frame::bare).collect();
            let ahead: Vec<u8> = frames.iter().flat_map(Frame::masked).collect();
            let mut client = connect(&front, transport);
            client.send([opening("/", "").as_bytes(), &ahead].concat());
            let (seen, mut peer) = raw.taken();
            peer.send([agreement(&seen, "").as_bytes(), &pushed].concat());
            agreed(&mut client);
            assert!(client.bytes(pushed.len()) == pushed, "{transport} {count}");
            assert!(peer.bytes(ahead.len()) == ahead, "{transport} {count}");
        }
    }
}

#[test]
fn nothing_that_was_sent_ahead_reaches_a_backend_that_does_not_agree() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    let ahead = Frame::whole(TEXT, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").masked();
    for transport in TRANSPORTS {
        let mut client = connect(&front, transport);
        client.send([opening("/", "").as_bytes(), &ahead].concat());
        let (_, mut peer) = raw.taken();
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.body), (403, "no"));
        // What follows is no request.
        assert_eq!(client.answer().status, 400);
        drop(client);
        peer.stream.end();
        assert_eq!(peer.rest(), b"", "{transport}");
    }
}

#[test]
fn many_at_once_hear_each_their_own() {
    const CLIENTS: usize = 24;
    let endpoint = Endpoint::start();
    let front = front(Limits::default(), &[&endpoint.backend]);
    let all_open = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (front, all_open) = (&front, &all_open);
            scope.spawn(move || {
                let transport = TRANSPORTS[number % 2];
                let mut talk = Talk::open(front, transport, Cut::Whole);
                all_open.wait();
                for turn in 0..40 {
                    let said = format!("{turn} of {number}").repeat(1 + turn * number);
                    let said = Frame::whole(TEXT, said);
                    talk.say(&said);
                    assert!(talk.hear() == said, "{transport} {number} {turn}");
                }
                let close = Frame::close(1000, &number.to_string());
                talk.say(&close);
                assert_eq!(talk.hear(), close);
                assert_eq!(talk.client.rest(), b"");
            });
        }
    });
    eventually("all have ended well", || {
        (front.stats().ended(Reason::Ok) == CLIENTS as u64).then_some(())
    });
    assert_eq!(front.stats().connects, CLIENTS as u64);
}
