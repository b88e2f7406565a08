//! How a WebSocket ends: by a word, by half, by silence, and by the death of either side.

use std::{
    io::{ErrorKind, Read as _},
    time::{Duration, Instant},
};

use lb_front::{Limits, Reason};

use crate::{
    kit::eventually,
    wskit::{
        CLOSE, Cut, Endpoint, Frame, LEAVE, LEAVING, PING, Raw, TEXT, TRANSPORTS, Talk,
        Transport as _, agreed, agreement, connect, front, opening,
    },
};

#[test]
fn whoever_leaves_first_the_other_one_is_told_by_code_and_reason() {
    let endpoint = Endpoint::start();
    let front = front(Limits::default(), &[&endpoint.backend]);
    let mut tunnels = 0;
    for transport in TRANSPORTS {
        for cut in [Cut::Whole, Cut::Bytes] {
            let longest = "x".repeat(123);
            for close in [
                Frame::whole(CLOSE, []),
                Frame::close(1000, ""),
                Frame::close(1000, "bye"),
                Frame::close(3000, "für immer"),
                Frame::close(4999, &longest),
            ] {
                let mut talk = Talk::open(&front, transport, cut);
                talk.say(&close);
                assert_eq!(talk.hear(), close, "{transport} {cut:?}");
                // The end behind it is one that TLS calls an end, too.
                assert_eq!(talk.client.rest(), b"", "{transport} {cut:?}");
                endpoint.heard(&close.masked());
                tunnels += 1;
            }
            let mut talk = Talk::open(&front, transport, cut);
            let leave = Frame::whole(TEXT, LEAVE);
            talk.say(&leave);
            let close = Frame::close(LEAVING.0, LEAVING.1);
            assert_eq!(talk.hear(), close, "{transport} {cut:?}");
            talk.say(&close);
            assert_eq!(talk.client.rest(), b"", "{transport} {cut:?}");
            endpoint.heard(&[leave.masked(), close.masked()].concat());
            tunnels += 1;
        }
    }
    eventually("all have ended well", || {
        (front.stats().ended(Reason::Ok) == tunnels).then_some(())
    });
    eventually("the backend is free", || {
        (endpoint.backend.open() == 0).then_some(())
    });
}

#[test]
fn either_side_may_end_its_half_and_hear_the_rest() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    let (last, late) = (Frame::close(1000, "done"), Frame::whole(TEXT, "late"));
    for transport in TRANSPORTS {
        let (mut client, mut peer) = raw.pair(&front, transport);
        client.send(last.masked()).stream.end();
        assert_eq!(peer.rest(), last.masked(), "{transport}");
        peer.send(late.bare()).send(last.bare());
        drop(peer);
        assert_eq!(client.rest(), [late.bare(), last.bare()].concat());

        let (mut client, mut peer) = raw.pair(&front, transport);
        peer.send(last.bare()).stream.end();
        assert_eq!(client.rest(), last.bare(), "{transport}");
        client.send(late.masked()).send(last.masked()).stream.end();
        assert_eq!(peer.rest(), [late.masked(), last.masked()].concat());
    }
    eventually("all have ended well", || {
        (front.stats().ended(Reason::Ok) == 4).then_some(())
    });
}

#[test]
fn pings_keep_a_connection_that_silence_ends() {
    let raw = Raw::start();
    let idle = Duration::from_millis(500);
    let limits = Limits {
        tunnel_idle: idle,
        ..Limits::default()
    };
    let front = front(limits, &[&raw.backend]);
    for (turn, transport) in TRANSPORTS.into_iter().enumerate() {
        let (mut client, mut peer) = raw.pair(&front, transport);
        let ping = Frame::whole(PING, "still there?").bare();
        let begun = Instant::now();
        // In one direction only, as from a server whose clients are silent.
        while begun.elapsed() < 2 * idle {
            peer.send(&ping);
            assert_eq!(client.bytes(ping.len()), ping, "{transport}");
        }
        assert_eq!(peer.rest(), b"", "{transport}");
        // Over TLS it is seen to be cut.
        let ended = client.stream.read(&mut [0]).map_err(|error| error.kind());
        let cut = transport == "https";
        assert!(
            matches!(ended, Ok(0) if !cut) || ended == Err(ErrorKind::UnexpectedEof) && cut,
            "{transport}: {ended:?}"
        );
        let ended = front.stats().ended(Reason::TunnelIdle);
        assert_eq!(ended, turn as u64 + 1);
    }
}

#[test]
fn a_backend_that_dies_right_behind_its_agreement_takes_its_client_along() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    for (turn, transport) in TRANSPORTS.into_iter().enumerate() {
        let mut client = connect(&front, transport);
        client.send(opening("/", ""));
        let (seen, mut peer) = raw.taken();
        peer.send(agreement(&seen, ""));
        let no_linger = Some(Duration::ZERO);
        socket2::SockRef::from(&peer.stream)
            .set_linger(no_linger)
            .unwrap();
        drop(peer);
        agreed(&mut client);
        match client.stream.read(&mut [0]) {
            Ok(0) if transport == "http" => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{transport}: {other:?}"),
        }
        eventually("it is told", || {
            (front.stats().ended(Reason::ResponseTruncated) == turn as u64 + 1).then_some(())
        });
    }
    assert_eq!(front.stats().open, 0);
}

#[test]
fn a_client_that_dies_takes_its_tunnel_along() {
    let raw = Raw::start();
    let front = front(Limits::default(), &[&raw.backend]);
    let mut client = front.client();
    client.send(opening("/", ""));
    let (seen, mut peer) = raw.taken();
    peer.send(agreement(&seen, ""));
    agreed(&mut client);
    let no_linger = Some(Duration::ZERO);
    socket2::SockRef::from(&client.stream)
        .set_linger(no_linger)
        .unwrap();
    drop(client);
    assert_eq!(peer.rest(), b"");
    eventually("it is told", || {
        (front.stats().ended(Reason::ClientAbort) == 1).then_some(())
    });
}
