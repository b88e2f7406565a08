//! Packets that go nowhere, each for a reason.

use lb_common::packet::{Fate, Way};
use lb_packet::Filter;

use super::{datagram, forwarded_to, of, syn, tunnel::enclosed};
use crate::kit::{
    ACK, Body, Desired, FIN, Family, Frame, RST, Row, SYN, Tx, V4, neighbour, scene, vip,
};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let full = syn(family, vip::FULL);
    let ack = full.clone().flags(ACK).payload(b"data");
    let empty = syn(family, vip::EMPTY);
    let local = syn(family, vip::LOCAL);
    let mut rows = vec![
        of("a SYN to a VIP with a backend of this host is left to the stack")
            .takes(&local)
            .is_passed(Fate::Local),
        of("a datagram to a VIP with a backend of this host is left to the stack")
            .takes(&datagram(family, vip::LOCAL))
            .is_passed(Fate::Local),
        of("an address of the pool that nobody has is left to the stack, which says so")
            .takes(&syn(family, vip::NONE))
            .is_not_ours(),
        of("a port of a VIP that nobody serves is left to the stack, which says so")
            .takes(&full.clone().to(family.vip(vip::FULL), 81))
            .is_not_ours(),
        of("a datagram to a port that is served by TCP alone is left to the stack")
            .takes(&Frame::udp(
                (family.client(), 1000),
                (family.vip(vip::FULL), 80),
            ))
            .is_not_ours(),
        of("a SYN to a VIP without a usable backend is refused")
            .takes(&empty)
            .becomes(Tx, &empty.reset(0, 1001, RST | ACK), Fate::NoBackend),
        of("a SYN in a VLAN is refused in the VLAN")
            .takes(&empty.clone().tag(7))
            .becomes(
                Tx,
                &empty.clone().tag(7).reset(0, 1001, RST | ACK),
                Fate::NoBackend,
            ),
        of("a SYN with data is refused with all of it acknowledged")
            .takes(&empty.clone().payload(b"early"))
            .becomes(Tx, &empty.reset(0, 1006, RST | ACK), Fate::NoBackend),
        of("a datagram to a VIP without a usable backend is dropped")
            .takes(&datagram(family, vip::EMPTY))
            .is_dropped(Fate::NoBackend),
        of("a RST to a VIP without a usable backend is dropped")
            .takes(&empty.clone().flags(RST))
            .is_dropped(Fate::NoBackend),
        of("data of a flow that nobody knows is refused")
            .takes(&ack)
            .becomes(Tx, &ack.reset(7000, 0, RST), Fate::NoFlow),
        of("a FIN of a flow that nobody knows is refused")
            .takes(&full.clone().flags(FIN | ACK))
            .becomes(Tx, &ack.reset(7000, 0, RST), Fate::NoFlow),
        of("an acknowledged SYN that nobody asked for is refused")
            .takes(&full.clone().flags(SYN | ACK))
            .becomes(Tx, &ack.reset(7000, 0, RST), Fate::NoFlow),
        of("a packet of TCP without any flag is refused")
            .takes(&full.clone().flags(0))
            .becomes(Tx, &ack.reset(0, 1000, RST | ACK), Fate::NoFlow),
        of("a RST of a flow that nobody knows is dropped")
            .takes(&full.clone().flags(RST))
            .is_dropped(Fate::NoFlow),
        of("after the RST of an opening flow nothing is known of it")
            .after(&full)
            .after(&full.clone().flags(RST))
            .takes(&ack)
            .becomes(Tx, &ack.reset(7000, 0, RST), Fate::NoFlow),
        of("a packet that has been under way for too long is dropped")
            .takes(&full.clone().hops(1))
            .is_dropped(Fate::Expired),
        of("a packet to a backend that no way leads to is dropped")
            .takes(&syn(family, vip::NO_ROUTE))
            .is_dropped(Fate::NoRoute),
        of("the first part of a packet is dropped")
            .takes(
                &full
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((0, true))),
            )
            .is_dropped(Fate::Fragment),
        of("another part of a packet is dropped")
            .takes(
                &full
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((8, false))),
            )
            .is_dropped(Fate::Fragment),
        of("a part of a datagram is dropped")
            .takes(&datagram(family, vip::FULL).change(|frame| frame.ip.fragment = Some((0, true))))
            .is_dropped(Fate::Fragment),
        of("a protocol that VIPs do not speak is dropped")
            .takes(&Frame::with(
                family.client(),
                family.vip(vip::FULL),
                Body::Raw(132, vec![0; 20]),
            ))
            .is_dropped(Fate::Protocol),
    ];
    rows.extend(gone(family, &full, &ack));
    rows.extend(malformed(family, &full));
    rows.extend(too_big(family));
    rows.extend(full_maps(family));
    rows.extend(flood(family));
    rows.extend(no_room(family));
    rows
}

/// Flows that the maps have no room for.
fn full_maps(family: Family) -> Vec<Row> {
    let full = |says: &str| of(family, says).given(move |world| world.fill(family));
    let syn = syn(family, vip::FULL);
    let ack = syn.clone().flags(ACK).payload(b"data");
    let tunnel = self::syn(family, vip::TUNNEL);
    vec![
        full("a SYN that the maps have no room for is dropped")
            .takes(&syn)
            .is_dropped(Fate::TableFull),
        full("a datagram that the maps have no room for is dropped")
            .takes(&datagram(family, vip::FULL))
            .is_dropped(Fate::TableFull),
        full("data of a flow that nobody knows is refused though the maps are full")
            .takes(&ack)
            .becomes(Tx, &ack.reset(7000, 0, RST), Fate::NoFlow),
        of(family, "known flows go on when the maps are full")
            .after(&syn)
            .given(move |world| world.fill(family))
            .takes(&ack)
            .becomes(
                Tx,
                &forwarded_to(&ack, vip::FULL, "10.1.0.10", 0),
                Fate::Full,
            ),
        full("a SYN goes into a tunnel though the maps are full: nobody has to know its answers")
            .takes(&tunnel)
            .becomes(Tx, &enclosed(&tunnel, &tunnel), Fate::Tunnelled),
    ]
}

/// More new flows than are written down.
fn flood(family: Family) -> Vec<Row> {
    let full = syn(family, vip::FULL);
    let next = |frame: &Frame, port| frame.clone().from(family.client(), port);
    let flood = |row: Row| {
        row.at_once()
            .desired(|desired| desired.settings.flood = 1)
            .after(&next(&full, 1001))
            .after(&next(&full, 1002))
    };
    let ack = full.clone().flags(ACK);
    let tunnel = syn(family, vip::TUNNEL);
    vec![
        flood(of(
            family,
            "more new flows than are written down are dropped",
        ))
        .takes(&full)
        .is_dropped(Fate::Flood),
        flood(of(family, "known flows go on in a flood").after(&full))
            .takes(&ack)
            .becomes(
                Tx,
                &forwarded_to(&ack, vip::FULL, "10.1.0.10", 0),
                Fate::Full,
            ),
        flood(of(
            family,
            "in a flood packets go into tunnels, and nothing is written down",
        ))
        .takes(&tunnel)
        .becomes(Tx, &enclosed(&tunnel, &tunnel), Fate::Tunnelled)
        .then(|world| {
            let (flows, _) = world
                .flows
                .list(&world.publisher, &Filter::default(), 10)
                .unwrap();
            assert!(
                flows.iter().all(|flow| flow.way != Some(Way::Tunnel)),
                "{flows:?}"
            );
        }),
    ]
}

/// Packets that need room before them, which the driver of the card has not left.
fn no_room(family: Family) -> Vec<Row> {
    let none = |says: &str, frame: &Frame| {
        let row = of(family, says).without_room().takes(frame);
        row.is_dropped(Fate::Resize)
    };
    let big = syn(family, vip::NARROW).payload(&[7; 1300]);
    let full = syn(family, vip::FULL);
    vec![
        none(
            "a packet for the stack to send is dropped where the card has no room to tell by which device",
            &syn(family, vip::NO_NEIGHBOUR),
        ),
        none(
            "a packet in a VLAN is dropped where the card has no room to tell by which device",
            &full.clone().tag(7),
        ),
        none(
            "a packet is dropped where the card has no room for the head of its tunnel",
            &syn(family, vip::TUNNEL),
        ),
        none(
            "a packet that is too big is dropped where the card has no room to tell its sender",
            &big,
        ),
        of(family, "a packet that stays as long as it is needs no room")
            .without_room()
            .takes(&full)
            .becomes(
                Tx,
                &forwarded_to(&full, vip::FULL, "10.1.0.10", 0),
                Fate::Full,
            ),
    ]
}

/// Flows whose backend was taken out.
fn gone(family: Family, syn: &Frame, ack: &Frame) -> Vec<Row> {
    let other = |desired: &mut Desired| scene::serve(desired, vip::FULL, &["10.1.0.33"]);
    let to_other = |frame: &Frame| forwarded_to(frame, vip::FULL, "10.1.0.33", 0);
    let known = |says: &str| {
        // Only this endpoint has the backend.
        let alone = |desired: &mut Desired| scene::serve(desired, vip::FULL_TOO, &["10.1.0.15"]);
        of(family, says).desired(alone)
    };
    let established = |says: &str| known(says).after(syn).after(ack);
    let asked = datagram(family, vip::FULL);
    vec![
        established("data of a flow whose backend is gone is refused")
            .desired(other)
            .settled()
            .takes(ack)
            .becomes(Tx, &ack.reset(7000, 0, RST), Fate::Reset),
        established("a RST of a flow whose backend is gone is dropped")
            .desired(other)
            .settled()
            .takes(&ack.clone().flags(RST))
            .is_dropped(Fate::BackendGone),
        established("a SYN of a flow whose backend is gone goes to another one")
            .desired(other)
            .settled()
            .takes(syn)
            .becomes(Tx, &to_other(syn), Fate::Full),
        known("a datagram of a flow whose backend is gone goes to another one")
            .after(&asked)
            .desired(other)
            .settled()
            .takes(&asked)
            .becomes(Tx, &to_other(&asked), Fate::Full),
    ]
}

/// Packets that are not as the protocols are.
fn malformed(family: Family, syn: &Frame) -> Vec<Row> {
    let (ip, tcp) = if family == V4 { (14, 34) } else { (14, 54) };
    let with = |says: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = syn.bytes();
        change(&mut bytes);
        of(family, says)
            .takes_bytes(bytes)
            .is_dropped(Fate::Malformed)
    };
    let length = if family == V4 { ip + 2 } else { ip + 4 };
    let mut rows = vec![
        with(
            "a head of TCP that says that it is shorter than one is dropped",
            &|bytes| {
                bytes[tcp + 12] = 0x40;
            },
        ),
        with("a head of TCP that is cut off is dropped", &|bytes| {
            bytes.truncate(tcp + 19);
            let total = bytes.len() - if family == V4 { ip } else { ip + 40 };
            bytes[length + 1] = u8::try_from(total).unwrap();
        }),
        with(
            "a packet that is longer by its head than it is is dropped",
            &|bytes| {
                bytes.truncate(tcp + 19);
            },
        ),
        with("a packet whose last byte is missing is dropped", &|bytes| {
            bytes[length + 1] += 1;
        }),
    ];
    if family == V4 {
        rows.push(with(
            "a head of IPv4 that says that it is shorter than one is dropped",
            &|bytes| {
                bytes[ip] = 0x44;
            },
        ));
        rows.push(with(
            "a packet of another version than its frame says is dropped",
            &|bytes| {
                bytes[ip] = 0x65;
            },
        ));
    } else {
        let longer = syn.clone().change(|frame| {
            frame.ip.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0]); 5];
        });
        rows.push(
            of(
                family,
                "more extension headers than anybody sends are dropped",
            )
            .takes(&longer)
            .is_dropped(Fate::Malformed),
        );
        rows.push(with(
            "a packet of another version than its frame says is dropped",
            &|bytes| {
                bytes[ip] = 0x45;
            },
        ));
    }
    rows
}

/// Packets that are too big for the way to their backend.
fn too_big(family: Family) -> Vec<Row> {
    let narrow = syn(family, vip::NARROW);
    let big = |tag: Option<u16>| {
        let frame = narrow.clone().payload(&[7; 1300]);
        tag.map_or(frame.clone(), |tag| frame.tag(tag))
    };
    let small = narrow.clone().payload(&[7; 900]);
    let told = |asked: &Frame, mtu: u32| told_too_big(family, asked, vip::NARROW, mtu);
    let mtu = if family == V4 { 1000 } else { 1280 };
    let may = big(None).change(|frame| frame.ip.whole = false);
    let mut rows = vec![
        of(
            family,
            "the sender of a packet that is too big for the way is told how big it may be",
        )
        .takes(&big(None))
        .becomes(Tx, &told(&big(None), mtu), Fate::TooBig),
        of(family, "the sender in a VLAN is told in the VLAN")
            .takes(&big(Some(7)))
            .becomes(Tx, &told(&big(Some(7)), mtu), Fate::TooBig),
        of(family, "a packet that fits goes by the narrow way")
            .takes(&small)
            .becomes(
                Tx,
                &forwarded_to(&small, vip::NARROW, "10.5.0.20", 0),
                Fate::Full,
            ),
    ];
    if family == V4 {
        rows.push(
            of(
                family,
                "the sender is told even if its packet may be fragmented: parts have no ports",
            )
            .takes(&may)
            .becomes(Tx, &told(&may, mtu), Fate::TooBig),
        );
    }
    rows
}

/// What the sender of a packet to a VIP is told, with the packet's first bytes.
pub(super) fn told_too_big(family: Family, asked: &Frame, number: u8, mtu: u32) -> Frame {
    let (kind, code) = if family == V4 { (3, 4) } else { (2, 0) };
    let mut quoted = asked.ip.bytes();
    quoted.truncate(lb_ebpf::packet::QUOTED);
    let vip = family.vip(number);
    let mut frame = Frame::icmp(vip, asked.ip.source, kind, code, mtu, quoted).made_here();
    frame.tags.clone_from(&asked.tags);
    frame.macs(neighbour(254), scene::CARD)
}
