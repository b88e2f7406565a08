use proptest::prelude::*;

use super::*;
use crate::packet::samples::{Sent, any_sent};

#[test]
fn vlan_tags_are_skipped_up_to_two() {
    for (tags, network) in [
        (&[][..], 14),
        (&[0x8100][..], 18),
        (&[0x88a8][..], 18),
        (&[0x88a8, 0x8100][..], 22),
        (&[0x8100, 0x8100][..], 22),
    ] {
        let frame = Sent::tcp4().tagged(tags).frame();
        let found = link(&frame[..]).unwrap();
        assert_eq!(
            found,
            Link {
                kind: IPV4,
                network
            },
            "{tags:x?}"
        );
    }
    let three = Sent::tcp4().tagged(&[0x8100, 0x8100, 0x8100]).frame();
    assert_eq!(link(&three[..]).unwrap().kind, 0x8100_u16.to_be());
}

#[test]
fn heads_that_cannot_be_are_malformed() {
    let good = Sent::tcp4().frame();
    for (at, byte) in [(14, 0x55), (14, 0x44), (14, 0x00)] {
        let mut frame = good.clone();
        frame[at] = byte;
        assert_eq!(ipv4(&frame[..], 14), Err(Fate::Malformed), "{byte:x}");
    }
    let mut frame = good.clone();
    frame[34 + 12] = 0x40;
    assert_eq!(tcp(&frame[..], 34), Err(Fate::Malformed));
    assert_eq!(ipv4(&good[..33], 14), Err(Fate::Malformed));
    assert_eq!(tcp(&good[..53], 34), Err(Fate::Malformed));
    assert_eq!(transport(&good[..41], 34, PROTO_UDP), Err(Fate::Malformed));
    assert_eq!(transport(&good[..], 34, 47), Err(Fate::Protocol));
    let mut six = Sent::udp6().frame();
    six[14] = 0x45;
    assert_eq!(ipv6(&six[..], 14), Err(Fate::Malformed));
}

#[test]
fn fragments_are_told_apart() {
    for (cut, expect, whole_only) in [
        (0x0000, Fragment::Whole, false),
        (0x4000, Fragment::Whole, true),
        (0x2000, Fragment::First, false),
        (0x2001, Fragment::Later, false),
        (0x0010, Fragment::Later, false),
    ] {
        let mut frame = Sent::udp4().frame();
        frame[20..22].copy_from_slice(&u16::to_be_bytes(cut));
        let ip = ipv4(&frame[..], 14).unwrap();
        assert_eq!((ip.fragment, ip.whole_only), (expect, whole_only));
    }
    for (cut, expect) in [
        (0_u16, Fragment::Whole),
        (1, Fragment::First),
        (8, Fragment::Later),
        (9, Fragment::Later),
    ] {
        let [high, low] = cut.to_be_bytes();
        let frame = Sent::udp6()
            .extended(PROTO_FRAGMENT, &[0, high, low, 0, 0, 0, 1])
            .frame();
        let ip = ipv6(&frame[..], 14).unwrap();
        assert_eq!((ip.fragment, ip.options, ip.proto), (expect, true, 17));
        assert_eq!(ip.transport, 14 + 40 + 8);
    }
}

const PROTO_AUTHENTICATION: u8 = 51;

#[test]
fn extension_headers_are_skipped_up_to_a_limit() {
    let long = |units: u8| {
        let mut rest = vec![0; usize::from(units) * 8 + 7];
        rest[0] = units;
        rest
    };
    let frame = Sent::tcp6()
        .extended(PROTO_DESTINATION_OPTIONS, &long(1))
        .extended(PROTO_ROUTING, &long(2))
        .extended(PROTO_HOP_BY_HOP, &long(0))
        .frame();
    let ip = ipv6(&frame[..], 14).unwrap();
    assert_eq!((ip.proto, ip.transport), (6, 14 + 40 + 16 + 24 + 8));
    // Nothing is read from what nobody may change.
    let mut rest = vec![0; 15];
    rest[0] = 2;
    let frame = Sent::tcp6().extended(PROTO_AUTHENTICATION, &rest).frame();
    let ip = ipv6(&frame[..], 14).unwrap();
    assert_eq!((ip.proto, ip.transport), (PROTO_AUTHENTICATION, 14 + 40));
    let mut route = long(2);
    route[2] = 1;
    for (before, at) in [(None, 14 + 40), (Some(long(1)), 14 + 40 + 16)] {
        let sent = Sent::tcp6().extended(PROTO_ROUTING, &route);
        let sent = before.into_iter().fold(sent, |sent, rest| {
            sent.extended(PROTO_DESTINATION_OPTIONS, &rest)
        });
        let frame = sent.frame();
        let ip = ipv6(&frame[..], 14).unwrap();
        assert_eq!((ip.proto, ip.transport), (PROTO_ROUTING, at));
    }
    let mut many = Sent::tcp6();
    for _ in 0..5 {
        many = many.extended(PROTO_DESTINATION_OPTIONS, &long(0));
    }
    assert_eq!(ipv6(&many.frame()[..], 14), Err(Fate::Malformed));
    let fat = Sent::tcp6().extended(PROTO_DESTINATION_OPTIONS, &long(64));
    assert_eq!(ipv6(&fat.frame()[..], 14), Err(Fate::Malformed));
}

proptest! {
    #[test]
    fn what_was_sent_is_read(sent in any_sent()) {
        let frame = sent.frame();
        let link = link(&frame[..]).unwrap();
        let (proto, at) = if sent.v6() {
            prop_assert_eq!(link.kind, IPV6);
            let ip = ipv6(&frame[..], link.network).unwrap();
            prop_assert_eq!((ip.source, ip.destination), (sent.source, sent.destination));
            prop_assert_eq!(ip.total, frame.len() - link.network);
            (ip.proto, ip.transport)
        } else {
            prop_assert_eq!(link.kind, IPV4);
            let ip = ipv4(&frame[..], link.network).unwrap();
            prop_assert_eq!(ip.source.raw(), sent.source[3]);
            prop_assert_eq!(ip.destination.raw(), sent.destination[3]);
            prop_assert_eq!(usize::from(ip.total), frame.len() - link.network);
            (ip.proto, ip.transport)
        };
        let head = transport(&frame[..], at, proto).unwrap();
        prop_assert_eq!(
            (proto, head.source, head.destination, head.flags),
            (sent.proto, sent.source_port, sent.destination_port, sent.flags)
        );
    }

    #[test]
    fn nothing_is_read_outside_of_any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in 0..250_usize,
        version in 4..7_u8,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.get_mut(at) {
            *first = version << 4 | *first & 0x0f;
        }
        let bytes = &bytes[..];
        let found = link(bytes);
        prop_assert!(found.is_none_or(|it| it.network <= bytes.len() + 8));
        if let Ok(ip) = ipv4(bytes, at) {
            prop_assert!(ip.transport <= at + 60);
            let _ = transport(bytes, ip.transport, ip.proto);
        }
        if let Ok(ip) = ipv6(bytes, at) {
            prop_assert!(ip.transport <= at + IPV6_HEAD + EXTENSION_BYTES);
            let _ = transport(bytes, ip.transport, ip.proto);
        }
    }
}
