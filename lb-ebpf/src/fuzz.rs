//! What the fuzz targets do with packets, and the replay of everything they are kept for.
//!
//! This exists for the tests and for `cargo xtask fuzz` only: no program has any of it. A new target is a function
//! here, a line in [`TARGETS`], three lines in `fuzz/targets/` and seeds in `fuzz/corpus/`.

mod track;

use std::vec::Vec;

use lb_common::{Be16, Be32, PROTO_TCP};

use crate::packet::{
    Ends4, Ends6, Fragment, IPV4, IPV4_HEAD, IPV6, IPV6_HEAD, Message, PROTO_ICMP, PROTO_ICMP6,
    Places, QUOTED, ROOM4, ROOM6, Reset, Told4, Told6, answer_echo4, answer_echo6, destination4,
    enclose4, enclose6, greatest_segment, ipv4, ipv6, is_solicitation, link, lower, message4,
    message6, open4, open6, plain4, plain6, quoted4, quoted6, rewrite_error4, rewrite_error6,
    rewrite4, rewrite6, tell_too_big4, tell_too_big6, transport, tunnel_too_big4, tunnel_too_big6,
};

pub use track::packet_track;

/// Every target, by its name.
#[cfg(test)]
const TARGETS: &[(&str, lb_testkit::fuzz::Target)] = &[
    ("packet_answers", packet_answers),
    ("packet_rewrite", packet_rewrite),
    ("packet_track", packet_track),
];

const NEW4: Ends4 = Ends4 {
    source: Be32::from_host(0x0a00_0001),
    destination: Be32::from_host(0xac10_0002),
    source_port: Be16::from_host(61_000),
    destination_port: Be16::from_host(8080),
};

const NEW6: Ends6 = Ends6 {
    source: [0x2001_0db8_u32.to_be(), 0, 0, 1],
    destination: [0x2001_0db8_u32.to_be(), 0, 1, 2],
    source_port: Be16::from_host(61_000),
    destination_port: Be16::from_host(8080),
};

/// Reads any frame, rewrites its ends or those that it quotes, and puts it into a tunnel: there and back it is the same.
pub fn packet_rewrite(data: &[u8]) {
    let Some(link) = link(data) else {
        return;
    };
    let network = link.network;
    let mut bytes = data.to_vec();
    if link.kind == IPV4 {
        let Ok(ip) = ipv4(data, network) else {
            return;
        };
        if network == 14 {
            assert_eq!(destination4(data), Some(ip.destination));
        }
        if let Ok(head) = transport(data, ip.transport, ip.proto) {
            let (old, places) = (
                Ends4 {
                    source: ip.source,
                    destination: ip.destination,
                    source_port: head.source,
                    destination_port: head.destination,
                },
                places(network, ip.transport, ip.proto),
            );
            if let Some(plain) = plain4(data) {
                assert!(network == 14 && !ip.options && ip.fragment == Fragment::Whole);
                assert_eq!((plain.flags, plain.total), (head.flags, ip.total.into()));
            }
            rewrite4(&mut bytes[..], places, &old, &NEW4, 1).expect("there is room");
            rewrite4(&mut bytes[..], places, &NEW4, &old, 255).expect("there is room");
            same(&bytes, data);
        }
        if ip.proto == PROTO_ICMP
            && let Ok(quoted) = quoted4(data, ip.transport + 8)
        {
            let old = Told4 {
                source: ip.source,
                destination: ip.destination,
                quoted: quoted.ends,
            };
            let new = Told4 {
                source: NEW4.destination,
                destination: NEW4.source,
                quoted: NEW4,
            };
            let mut bytes = data.to_vec();
            let mut retell = |old, new, hops| {
                rewrite_error4(
                    &mut bytes[..],
                    network,
                    ip.transport,
                    quoted.places,
                    old,
                    new,
                    hops,
                )
            };
            retell(&old, &new, 1).expect("there is room");
            retell(&new, &old, 255).expect("there is room");
            same(&bytes, data);
        }
        let mut bytes = [&[0; IPV4_HEAD], data].concat();
        let (from, to) = (NEW4.source, NEW4.destination);
        if enclose4(&mut bytes[..], network, ip.total, from, to, 0).is_some() {
            open4(&mut bytes[..], network, IPV4_HEAD).expect("there is room");
            same(&bytes[IPV4_HEAD..], data);
        }
        let _ = open4(&mut data.to_vec()[..], network, ip.transport - network);
    } else if link.kind == IPV6 {
        let Ok(ip) = ipv6(data, network) else {
            return;
        };
        if let Ok(head) = transport(data, ip.transport, ip.proto) {
            let (old, places) = (
                Ends6 {
                    source: ip.source,
                    destination: ip.destination,
                    source_port: head.source,
                    destination_port: head.destination,
                },
                places(network, ip.transport, ip.proto),
            );
            if let Some(plain) = plain6(data) {
                assert!(network == 14 && !ip.options && ip.fragment == Fragment::Whole);
                assert_eq!((plain.flags, plain.total as usize), (head.flags, ip.total));
            }
            rewrite6(&mut bytes[..], places, &old, &NEW6, 1).expect("there is room");
            rewrite6(&mut bytes[..], places, &NEW6, &old, 255).expect("there is room");
            same(&bytes, data);
        }
        if ip.proto == PROTO_ICMP6
            && let Ok(quoted) = quoted6(data, ip.transport + 8)
        {
            let old = Told6 {
                source: ip.source,
                destination: ip.destination,
                quoted: quoted.ends,
            };
            let new = Told6 {
                source: NEW6.destination,
                destination: NEW6.source,
                quoted: NEW6,
            };
            let mut bytes = data.to_vec();
            let mut retell = |old, new, hops| {
                rewrite_error6(
                    &mut bytes[..],
                    network,
                    ip.transport,
                    quoted.places,
                    old,
                    new,
                    hops,
                )
            };
            retell(&old, &new, 1).expect("there is room");
            retell(&new, &old, 255).expect("there is room");
            same(&bytes, data);
        }
        let mut bytes = [&[0; IPV6_HEAD], data].concat();
        let (from, to) = (NEW6.source, NEW6.destination);
        if enclose6(&mut bytes[..], network, 0, from, to, 0, 0).is_some() {
            open6(&mut bytes[..], network, IPV6_HEAD).expect("there is room");
            same(&bytes[IPV6_HEAD..], data);
        }
        let _ = open6(&mut data.to_vec()[..], network, ip.transport - network);
    }
}

/// Answers any frame in every way there is. An answer is of the kind that it should be.
pub fn packet_answers(data: &[u8]) {
    let Some(link) = link(data) else {
        return;
    };
    let network = link.network;
    if let Ok(ip) = ipv4(data, network) {
        let mut bytes = data.to_vec();
        if message4(data, ip.transport).is_some() {
            answer_echo4(&mut bytes[..], network, ip.transport).expect("there is room");
            let answered = ipv4(&bytes[..], network).expect("there is room");
            assert_eq!(answered.source, ip.destination);
        }
        let _ = tunnel_too_big4(data, &ip);
        let mut bytes = [&[0; ROOM4], data].concat();
        let told = tell_too_big4(&mut bytes[..], network, ip.destination, ip.source, 1400);
        assert_eq!(told.is_some(), data.len() >= network + QUOTED);
        if ip.proto == PROTO_TCP
            && let Ok(head) = transport(data, ip.transport, PROTO_TCP)
        {
            let ends = Ends4 {
                source: ip.source,
                destination: ip.destination,
                source_port: head.source,
                destination_port: head.destination,
            };
            let places = places(network, ip.transport, PROTO_TCP);
            let mut bytes = data.to_vec();
            if let Some(reset) = Reset::answering(data, places, ip.total.into()) {
                reset
                    .write4(&mut bytes[..], network, &ends)
                    .expect("there is room");
                assert_eq!(
                    Reset::answering(
                        &bytes[..],
                        self::places(network, network + IPV4_HEAD, PROTO_TCP),
                        Reset::END4
                    ),
                    None
                );
            }
            segment(data, ip.transport);
        }
    }
    if let Ok(ip) = ipv6(data, network) {
        let mut bytes = data.to_vec();
        if message6(data, ip.transport).is_some() {
            answer_echo6(&mut bytes[..], network, &ip).expect("there is room");
        }
        if is_solicitation(data, network, ip.transport) {
            assert_eq!(message6(data, ip.transport), Some(Message::Other));
        }
        let _ = tunnel_too_big6(data, &ip);
        let mut bytes = [&[0; ROOM6], data].concat();
        let told = tell_too_big6(&mut bytes[..], network, ip.destination, ip.source, 1400);
        assert_eq!(told.is_some(), data.len() >= network + QUOTED);
        if ip.proto == PROTO_TCP
            && let Ok(head) = transport(data, ip.transport, PROTO_TCP)
        {
            let ends = Ends6 {
                source: ip.source,
                destination: ip.destination,
                source_port: head.source,
                destination_port: head.destination,
            };
            let places = places(network, ip.transport, PROTO_TCP);
            let mut bytes = data.to_vec();
            if let Some(reset) = Reset::answering(data, places, ip.total) {
                reset
                    .write6(&mut bytes[..], network, &ends)
                    .expect("there is room");
            }
            segment(data, ip.transport);
        }
    }
}

fn places(network: usize, transport: usize, proto: u8) -> Places {
    Places {
        network,
        transport,
        proto,
    }
}

/// The greatest segment is found again where it was lowered.
fn segment(data: &[u8], transport: usize) {
    let mut bytes = data.to_vec();
    if lower(&mut bytes, transport, 1000) {
        let found = greatest_segment(&bytes[..], transport);
        assert_eq!(found.map(|it| it.bytes), Some(1000));
    }
}

/// Both are one packet. A checksum of zero may have become all ones: they are the same number, and only a checksum that is
/// wrong already can be that.
fn same(bytes: &[u8], data: &[u8]) {
    let differ: Vec<usize> = (0..data.len())
        .filter(|&at| bytes[at] != data[at])
        .collect();
    for at in differ {
        let ones = |one: &[u8]| {
            let sides = [one.get(at.wrapping_sub(1)..=at), one.get(at..=at + 1)];
            sides
                .into_iter()
                .flatten()
                .any(|pair| pair == [0, 0] || pair == [0xff; 2])
        };
        assert!(ones(bytes) && ones(data), "{at}: {bytes:x?} {data:x?}");
    }
}

#[test]
fn every_kept_input_of_every_target_is_harmless() {
    lb_testkit::fuzz::replay("lb_ebpf", TARGETS).unwrap();
}

/// A seed of each kind of packet, as they lie in `fuzz/corpus`: `LB_WRITE_GOLDEN=1` writes them anew.
#[test]
fn seeds_are_packets_of_each_kind() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, frame) in crate::packet::seeds() {
        for target in ["packet_answers", "packet_rewrite"] {
            let path = folder.join(target).join(name);
            if std::env::var_os("LB_WRITE_GOLDEN").is_some() {
                std::fs::create_dir_all(folder.join(target)).unwrap();
                std::fs::write(&path, &frame).unwrap();
            }
            assert_eq!(std::fs::read(&path).unwrap(), frame, "{}", path.display());
        }
    }
}
