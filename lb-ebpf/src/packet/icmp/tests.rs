use proptest::prelude::*;

use super::*;
use crate::packet::samples::{Sent, address, any_sent, checksum, faults, pseudo_checksum};

const ROUTER4: &str = "203.0.113.9";
const ROUTER6: &str = "2001:db8:9::9";

fn bytes(words: [u32; 4]) -> Vec<u8> {
    words.map(u32::to_ne_bytes).concat()
}

/// A frame with an ICMP message from `source` to `destination`, by its head and what follows the checksum.
fn message(source: [u32; 4], destination: [u32; 4], head: [u8; 6], rest: &[u8]) -> Vec<u8> {
    let v6 = source[..3] != [0, 0, 0xffff_u32.to_be()];
    let mut icmp = vec![head[0], head[1], 0, 0, head[2], head[3], head[4], head[5]];
    icmp.extend(rest);
    let check = if v6 {
        pseudo_checksum(source, destination, 58, &icmp)
    } else {
        checksum(&[&icmp])
    };
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = b"\x02to\x00\x00\x01\x02fr\x00\x00\x02".to_vec();
    let length = u16::try_from(icmp.len()).unwrap();
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([58, 60]);
        frame.extend(bytes(source));
        frame.extend(bytes(destination));
    } else {
        frame.extend([8, 0]);
        let mut ip = vec![0x45, 0];
        ip.extend((length + 20).to_be_bytes());
        ip.extend([0, 1, 0, 0, 60, 1, 0, 0]);
        ip.extend(source[3].to_ne_bytes());
        ip.extend(destination[3].to_ne_bytes());
        let check = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        frame.extend(ip);
    }
    frame.extend(icmp);
    frame
}

/// An error from a router about a packet, of which `kept` bytes are quoted.
fn error(about: &Sent, to: [u32; 4], kept: usize) -> Vec<u8> {
    let frame = about.frame();
    let quote = &frame[about.network()..];
    let quote = &quote[..kept.min(quote.len())];
    if about.v6() {
        message(address(ROUTER6), to, [1, 4, 0, 0, 0, 0], quote)
    } else {
        message(address(ROUTER4), to, [3, 3, 0, 0, 0, 0], quote)
    }
}

/// Lets `to` be told of `new` what `frame` says of `old`.
fn retell(frame: &mut [u8], old: &Sent, new: &Sent, to: [u32; 4], by: [u32; 4]) -> Option<()> {
    if old.v6() {
        let quoted = quoted6(frame, 62).unwrap();
        assert_eq!(quoted.ends, old.ends6());
        let from = Told6 {
            source: address(ROUTER6),
            destination: old.source,
            quoted: quoted.ends,
        };
        let into = Told6 {
            source: by,
            destination: to,
            quoted: new.ends6(),
        };
        rewrite_error6(frame, 14, 54, quoted.places, &from, &into, 1)
    } else {
        let quoted = quoted4(frame, 42).unwrap();
        assert_eq!(quoted.ends, old.ends4());
        let from = Told4 {
            source: Be32::from_raw(address(ROUTER4)[3]),
            destination: Be32::from_raw(old.source[3]),
            quoted: quoted.ends,
        };
        let into = Told4 {
            source: Be32::from_raw(by[3]),
            destination: Be32::from_raw(to[3]),
            quoted: new.ends4(),
        };
        rewrite_error4(frame, 14, 34, quoted.places, &from, &into, 1)
    }
}

#[test]
fn an_echo_is_answered_from_whom_it_was_for() {
    for (source, destination, request, answer) in [
        ("10.0.0.1", "198.18.1.2", 8, 0),
        ("2001:db8::1", "fd62:6c62:76:1::102", 128, 129),
    ] {
        let (source, destination) = (address(source), address(destination));
        let frame = message(source, destination, [request, 0, 1, 2, 3, 4], b"payload");
        let mut answered = frame.clone();
        if request == 8 {
            assert_eq!(message4(&frame[..], 34), Some(Message::Echo));
            answer_echo4(&mut answered[..], 14, 34).unwrap();
        } else {
            assert_eq!(message6(&frame[..], 54), Some(Message::Echo));
            let ip = ipv6(&frame[..], 14).unwrap();
            answer_echo6(&mut answered[..], 14, &ip).unwrap();
        }
        let mut expect = message(destination, source, [answer, 0, 1, 2, 3, 4], b"payload");
        let at = if request == 8 { 22 } else { 21 };
        expect[at] = 64;
        if request == 8 {
            let mut head = expect[14..34].to_vec();
            head[10..12].fill(0);
            expect[24..26].copy_from_slice(&checksum(&[&head]).to_be_bytes());
        }
        assert_eq!(faults(&answered), Vec::<String>::new());
        assert_eq!(answered, expect);
    }
}

#[test]
fn a_question_for_a_link_address_is_one_that_nobody_routed() {
    let of = |kind, code, hops| {
        let source = address("2001:db8::1");
        let mut frame = message(source, source, [kind, code, 0, 0, 0, 0], &[0; 16]);
        frame[21] = hops;
        is_solicitation(&frame[..], 14, 54)
    };
    assert!(of(135, 0, 255));
    for other in [(135, 0, 254), (135, 1, 255), (136, 0, 255), (128, 0, 255)] {
        assert!(!of(other.0, other.1, other.2), "{other:?}");
    }
}

#[test]
fn messages_are_told_apart() {
    let of4 = |kind, code| {
        let source = address("10.0.0.1");
        let frame = message(source, source, [kind, code, 0, 0, 0, 0], &[]);
        message4(&frame[..], 34).unwrap()
    };
    let of6 = |kind, code| {
        let source = address("2001:db8::1");
        let frame = message(source, source, [kind, code, 0, 0, 0, 0], &[]);
        message6(&frame[..], 54).unwrap()
    };
    for kind in 0..=u8::MAX {
        let expect = match kind {
            8 => Message::Echo,
            3 | 11 | 12 => Message::Error,
            _ => Message::Other,
        };
        assert_eq!(of4(kind, 0), expect, "{kind}");
        let expect = match kind {
            128 => Message::Echo,
            1..=4 => Message::Error,
            _ => Message::Other,
        };
        assert_eq!(of6(kind, 0), expect, "{kind}");
    }
    assert_eq!((of4(8, 1), of6(128, 1)), (Message::Other, Message::Other));
    assert_eq!(message4(&[8, 0, 0, 0, 0, 0, 0][..], 0), None);
}

#[test]
fn a_quote_without_ports_is_of_no_flow() {
    let mut sent = Sent::udp4();
    let whole = sent.frame();
    assert_eq!(quoted4(&whole[..41], 14), Err(Fate::Malformed));
    let mut later = whole.clone();
    later[21] = 1;
    assert_eq!(quoted4(&later[..], 14), Err(Fate::Fragment));
    sent.proto = 47;
    assert_eq!(quoted4(&sent.frame()[..], 14), Err(Fate::Protocol));
    let six = Sent::udp6().frame();
    assert_eq!(quoted6(&six[..61], 14), Err(Fate::Malformed));
}

#[test]
fn what_a_router_says_of_a_tunnel_is_understood() {
    let tunnel4 = |kind: [u8; 6], proto| {
        let mut quote = vec![0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, proto, 0, 0];
        quote.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        quote.extend(&Sent::tcp4().frame()[14..]);
        let frame = message(address(ROUTER4), address("192.0.2.1"), kind, &quote);
        tunnel_too_big4(&frame[..], &ipv4(&frame[..], 14).unwrap())
    };
    let found = tunnel4([3, 4, 0, 0, 5, 0], 4);
    assert_eq!(
        found,
        Some(TunnelTooBig {
            inner: 62,
            mtu: 1260
        })
    );
    for (kind, proto) in [
        ([3, 4, 0, 0, 0, 19], 4),
        ([3, 3, 0, 0, 5, 0], 4),
        ([11, 4, 0, 0, 5, 0], 4),
        ([3, 4, 0, 0, 5, 0], 6),
    ] {
        assert_eq!(tunnel4(kind, proto), None, "{kind:?} {proto}");
    }
    let tunnel6 = |kind: [u8; 6], proto| {
        let mut quote = vec![0x60, 0, 0, 0, 5, 0, proto, 64];
        quote.extend(bytes(address("2001:db8::a")));
        quote.extend(bytes(address("2001:db8::b")));
        quote.extend(&Sent::tcp6().frame()[14..]);
        let frame = message(address(ROUTER6), address("2001:db8::a"), kind, &quote);
        tunnel_too_big6(&frame[..], &ipv6(&frame[..], 14).unwrap())
    };
    let found = tunnel6([2, 0, 0, 0, 5, 0xdc], 41);
    assert_eq!(
        found,
        Some(TunnelTooBig {
            inner: 102,
            mtu: 1460
        })
    );
    for (kind, proto) in [
        ([2, 0, 0, 1, 0, 0], 41),
        ([2, 0, 0, 0, 0, 39], 41),
        ([1, 0, 0, 0, 5, 0], 41),
        ([2, 0, 0, 0, 5, 0], 6),
    ] {
        assert_eq!(tunnel6(kind, proto), None, "{kind:?} {proto}");
    }
}

/// A packet, and the same with other ends of the same family.
fn two_ends() -> impl Strategy<Value = (Sent, Sent)> {
    (any_sent(), any_sent()).prop_filter_map("one family", |(old, other)| {
        (old.v6() == other.v6()).then(|| {
            let mut new = old.clone();
            (new.source, new.destination) = (other.source, other.destination);
            new.source_port = other.source_port;
            new.destination_port = other.destination_port;
            (old, new)
        })
    })
}

proptest! {
    #[test]
    fn an_error_is_retold_as_if_it_were_about_the_other_ends((old, new) in two_ends(), kept in 28..120_usize) {
        // At least the heads and eight bytes, and an even number, as all do.
        let heads = old.transport() - old.network() + 8;
        let kept = kept.max(heads).next_multiple_of(2);
        let mut frame = error(&old, old.source, kept);
        prop_assert_eq!(faults(&frame), Vec::<String>::new());
        let (to, by) = (new.source, new.destination);
        retell(&mut frame, &old, &new, to, by).unwrap();
        prop_assert_eq!(faults(&frame), Vec::<String>::new());
        let mut like = error(&new, to, kept);
        let icmp = if new.v6() { 54 } else { 34 };
        // What is quoted is what the others would have sent, but for a checksum of TCP that was cut off.
        let quoted = icmp + 8;
        let tcp_check = quoted + old.transport() - old.network() + 16;
        let cut = new.proto == PROTO_TCP && like.len() < tcp_check + 2;
        let end = if cut { like.len().min(tcp_check) } else { like.len() };
        prop_assert_eq!(&frame[quoted..end], &like.split_off(quoted)[..end - quoted]);
        let age = if new.v6() { 21 } else { 22 };
        prop_assert_eq!(frame[age], 59);
    }

    #[test]
    fn retold_there_and_back_an_error_is_the_same_but_for_its_age((old, new) in two_ends()) {
        let frame = error(&old, old.source, 128);
        let mut there = frame.clone();
        retell(&mut there, &old, &new, new.source, new.destination).unwrap();
        let age = if new.v6() { 21 } else { 22 };
        prop_assert_eq!(there.len(), frame.len());
        // Back to the router's own words.
        let icmp = if old.v6() { 54 } else { 34 };
        if old.v6() {
            let quoted = quoted6(&there[..], 62).unwrap();
            let from = Told6 { source: new.destination, destination: new.source, quoted: new.ends6() };
            let into = Told6 { source: address(ROUTER6), destination: old.source, quoted: old.ends6() };
            rewrite_error6(&mut there[..], 14, icmp, quoted.places, &from, &into, 255).unwrap();
        } else {
            let quoted = quoted4(&there[..], 42).unwrap();
            let word = |it: [u32; 4]| Be32::from_raw(it[3]);
            let from = Told4 {
                source: word(new.destination),
                destination: word(new.source),
                quoted: new.ends4(),
            };
            let into = Told4 {
                source: word(address(ROUTER4)),
                destination: word(old.source),
                quoted: old.ends4(),
            };
            rewrite_error4(&mut there[..], 14, icmp, quoted.places, &from, &into, 255).unwrap();
        }
        prop_assert_eq!(there[age], frame[age]);
        prop_assert_eq!(there, frame);
    }

    #[test]
    fn no_bytes_are_read_outside(bytes in prop::collection::vec(any::<u8>(), 0..160), at in 0..100_usize) {
        let mut bytes = bytes;
        if let Ok(quoted) = quoted4(&bytes[..], at) {
            let told = Told4 {
                source: Be32::from_raw(1),
                destination: Be32::from_raw(2),
                quoted: quoted.ends,
            };
            let _ = rewrite_error4(&mut bytes[..], 14, 34, quoted.places, &told, &told, 1);
        }
        if let Ok(quoted) = quoted6(&bytes[..], at) {
            let told = Told6 { source: [0; 4], destination: [1; 4], quoted: quoted.ends };
            let _ = rewrite_error6(&mut bytes[..], 14, 54, quoted.places, &told, &told, 1);
        }
        let _ = (message4(&bytes[..], at), message6(&bytes[..], at));
        let _ = answer_echo4(&mut bytes[..], 14, at);
        if let Ok(ip) = ipv4(&bytes[..], at) {
            let _ = tunnel_too_big4(&bytes[..], &ip);
        }
        if let Ok(ip) = ipv6(&bytes[..], at) {
            let _ = tunnel_too_big6(&bytes[..], &ip);
            let _ = answer_echo6(&mut bytes[..], 14, &ip);
        }
    }
}
