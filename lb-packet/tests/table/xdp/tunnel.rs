//! To hosts that run an agent, in tunnels, and from them.

use std::net::IpAddr;

use lb_common::packet::Fate;

use super::{datagram, of, refused::told_too_big, syn};
use crate::kit::{
    ACK, Body, CARD, Desired, Family, Frame, Pass, RST, Row, Tx, V4, hash, neighbour, scene, vip,
};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let syn = syn(family, vip::TUNNEL);
    let ack = syn.clone().flags(ACK).payload(b"data");
    let goes = |row: Row, frame: &Frame, fate: Fate| {
        row.takes(frame).becomes(Tx, &enclosed(frame, frame), fate)
    };
    let hostless = |desired: &mut Desired| scene::serve(desired, vip::TUNNEL, &["10.1.0.11"]);
    let mut rows = vec![
        goes(
            of("a SYN goes to its backend's host in a tunnel, as it came"),
            &syn,
            Fate::Tunnelled,
        ),
        goes(
            of("a datagram goes to its backend's host in a tunnel, as it came"),
            &datagram(family, vip::TUNNEL),
            Fate::Tunnelled,
        ),
        goes(
            of("data of a known flow goes to its backend's host in a tunnel").after(&syn),
            &ack,
            Fate::Tunnelled,
        ),
        goes(
            of("data of a flow that nobody knows goes by the table: its end may know it"),
            &ack,
            Fate::Unknown,
        ),
        goes(
            of("a RST of a flow that nobody knows goes by the table"),
            &syn.clone().flags(RST),
            Fate::Unknown,
        ),
        goes(
            of("what a packet says of congestion is said of its tunnel, too"),
            &syn.clone().change(|frame| frame.ip.class = 0b10),
            Fate::Tunnelled,
        ),
        of("a packet that has been under way for too long goes into no tunnel")
            .takes(&syn.clone().hops(1))
            .is_dropped(Fate::Expired),
        of("a packet for a backend whose host is not known is dropped")
            .desired(move |desired| {
                hostless(desired);
                forget_hosts(desired);
            })
            .takes(&syn)
            .is_dropped(Fate::NoHost),
        of("a packet in a VLAN goes into a tunnel, and is the stack's to send")
            .takes(&syn.clone().tag(7))
            .is_handed_over(
                "card",
                &enclosed(&syn.clone().tag(7), &syn).macs(CARD, neighbour(254)),
            ),
    ];
    let size = if family == V4 { 1500 - 40 } else { 1500 - 60 };
    let big = syn.clone().payload(&vec![7; size]);
    let most = if family == V4 { 1480 } else { 1460 };
    rows.push(
        of("the sender of a packet that is too big for the tunnel is told how big it may be")
            .takes(&big)
            .becomes(
                Tx,
                &told_too_big(family, &big, vip::TUNNEL, most),
                Fate::TooBig,
            ),
    );
    let fits = syn
        .clone()
        .payload(&vec![7; size - if family == V4 { 20 } else { 40 }]);
    rows.push(goes(
        of("a packet that just fits into the tunnel goes"),
        &fits,
        Fate::Tunnelled,
    ));
    let moved = |desired: &mut Desired| scene::serve(desired, vip::TUNNEL, &["10.1.0.12"]);
    rows.push(goes(
        of("data of a flow whose backend is gone goes by the table: its end may know it")
            .after(&syn)
            .after(&ack)
            .desired(moved)
            .settled(),
        &ack,
        Fate::Unknown,
    ));
    rows.extend(opened(family));
    rows.extend(told(family, &syn));
    rows
}

/// A packet in the tunnel to its backend's host. Another packet may tell which flow it belongs to.
pub(super) fn enclosed(frame: &Frame, flow: &Frame) -> Frame {
    let family = super::family_of(frame);
    let hops = frame.ip.hops - 1;
    let inner = frame.clone().hops(hops);
    let mut outer = inner.in_tunnel(family.own(), host(family));
    outer.ip.class = frame.ip.class;
    outer.ip.id = if family == V4 {
        0
    } else {
        u16::try_from(hash(flow, vip::TUNNEL).slot()).unwrap()
    };
    outer.macs(neighbour(30), CARD)
}

fn host(family: Family) -> IpAddr {
    family.ip("192.0.2.30")
}

/// Takes the hosts of all backends away.
fn forget_hosts(desired: &mut Desired) {
    for place in desired.places.values_mut() {
        place.host = None;
    }
}

/// Packets out of tunnels.
fn opened(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let arrived = |frame: &Frame| {
        let frame = frame.clone().in_tunnel(host(family), family.own());
        frame.macs(CARD, neighbour(30))
    };
    let syn = syn(family, vip::LOCAL).macs(CARD, neighbour(30));
    let congested = |class: u8| {
        let frame = syn.clone().change(|frame| frame.ip.class = class);
        arrived(&frame).change(|frame| frame.ip.class = 3)
    };
    let foreign = Frame::tcp((family.client(), 1000), (family.ip("10.77.0.20"), 80));
    let part = arrived(&syn).change(|frame| frame.ip.fragment = Some((0, true)));
    vec![
        of("a packet in a tunnel from a host of ours comes out as it went in")
            .takes(&arrived(&syn))
            .becomes(Pass, &syn, Fate::Untunnelled),
        of("a datagram in a tunnel from a host of ours comes out as it went in")
            .takes(&arrived(&datagram(family, vip::LOCAL)))
            .becomes(
                Pass,
                &datagram(family, vip::LOCAL).macs(CARD, neighbour(30)),
                Fate::Untunnelled,
            ),
        of("a tunnel in a VLAN is opened in the VLAN")
            .takes(&arrived(&syn).tag(7))
            .becomes(Pass, &syn.clone().tag(7), Fate::Untunnelled),
        of("congestion of a tunnel is told to who understands it")
            .takes(&congested(2))
            .becomes(
                Pass,
                &syn.clone().change(|frame| frame.ip.class = 3),
                Fate::Untunnelled,
            ),
        of("a packet that knows nothing of congestion is dropped if there was some")
            .takes(&congested(0))
            .is_dropped(Fate::Malformed),
        of("a packet in a tunnel from a stranger is dropped")
            .takes(&arrived(&syn).from(family.ip("192.0.2.100"), 0))
            .is_dropped(Fate::Stranger),
        of("a tunnel that leads to no VIP is the stack's")
            .takes(&arrived(&foreign))
            .is_not_ours(),
        of("a part of a packet in a tunnel is the stack's")
            .takes(&part)
            .is_not_ours(),
    ]
}

/// What is told of packets in tunnels, and of answers of backends at their ends.
fn told(family: Family, syn: &Frame) -> Vec<Row> {
    let router = family.ip("203.0.113.99");
    let (kind, code) = if family == V4 { (3, 4) } else { (2, 0) };
    let big = syn.clone().payload(&[7; 400]);
    let quote = |kept: usize| {
        let mut quoted = enclosed(&big, &big).ip.bytes();
        quoted.truncate(kept);
        Frame::icmp(router, family.own(), kind, code, 1400, quoted)
    };
    let less = if family == V4 { 1380 } else { 1360 };
    let inner = big.clone().hops(63);
    let expect = told_too_big(family, &inner, vip::TUNNEL, less);
    // An answer of the backend that went straight to its client.
    let answer = Frame::tcp((family.vip(vip::TUNNEL), 80), (family.client(), 1000)).flags(ACK);
    let unreachable = if family == V4 { (3, 1) } else { (1, 3) };
    let about = Frame::icmp(
        router,
        family.vip(vip::TUNNEL),
        unreachable.0,
        unreachable.1,
        0,
        answer.ip.bytes(),
    );
    vec![
        of(
            family,
            "a client is told that the tunnel to its backend is too narrow",
        )
        .after(syn)
        .takes(&quote(400))
        .becomes(Tx, &expect, Fate::Error),
        of(
            family,
            "that a tunnel is too narrow for no flow of ours is told to nobody",
        )
        .takes(&quote(400))
        .is_dropped(Fate::NoFlow),
        of(
            family,
            "an error that quotes too little of a tunnel is the stack's",
        )
        .after(syn)
        .takes(&quote(if family == V4 { 28 } else { 48 }))
        .is_not_ours(),
        of(
            family,
            "an error about an answer that did not come this way goes to the backend's host",
        )
        .after(syn)
        .takes(&about)
        .becomes(Tx, &enclosed(&about, syn), Fate::Error),
        of(family, "what is no error about a tunnel is the stack's")
            .after(syn)
            .takes(&Frame::with(
                router,
                family.own(),
                Body::Raw(if family == V4 { 4 } else { 41 }, vec![0; 8]),
            ))
            .is_not_ours(),
    ]
}
