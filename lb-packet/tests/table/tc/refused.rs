//! Packets that no backend gets.

use lb_common::packet::Fate;

use super::{At, Place};
use crate::kit::{ACK, Body, FIN, Frame, Pass, RST, Redirect, Row, SYN, V4, pool_port, vip};

pub(super) fn rows(at: At) -> Vec<Row> {
    let of = |says: &str| at.inwards(says);
    let (syn, datagram) = (at.syn(), at.datagram());
    let nobody = || at.nobody();
    let gone = |says: &str| {
        let row = of(says).after(&syn).desired(nobody());
        row.settled()
    };
    let mut rows = vec![
        of("a packet to an address that is no VIP is none of ours")
            .takes(&syn.clone().to(at.family.ip("10.9.0.1"), 80))
            .is_not_ours(),
        of("a packet to the agent's own address is the stack's")
            .takes(&syn.clone().to(at.family.vip(1), 80))
            .is_not_ours(),
        of("a SYN to an address that nobody has is left to the stack, which says so")
            .takes(&syn.clone().to(at.family.vip(vip::NONE), 80))
            .is_passed(Fate::NoEndpoint),
        of("a datagram to a port that nobody has is left to the stack, which says so")
            .takes(&datagram.clone().to(at.vip(), 54))
            .is_passed(Fate::NoEndpoint),
        of("a SYN to a VIP without a usable backend is answered with a reset")
            .desired(nobody())
            .takes(&syn)
            .becomes(
                Redirect,
                &at.told(syn.reset(0, 1001, RST | ACK)),
                Fate::NoBackend,
            ),
        of("a SYN with data to a VIP without a usable backend is answered with a reset that counts it")
            .desired(nobody())
            .takes(&syn.clone().payload(b"early"))
            .becomes(
                Redirect,
                &at.told(syn.reset(0, 1006, RST | ACK)),
                Fate::NoBackend,
            ),
        of("a SYN in a VLAN is answered in the VLAN with a reset")
            .desired(nobody())
            .takes(&syn.clone().tag(7))
            .becomes(
                Redirect,
                &syn.clone().tag(7).reset(0, 1001, RST | ACK),
                Fate::NoBackend,
            ),
        of("an ACK to a VIP without a usable backend is answered with a reset")
            .desired(nobody())
            .takes(&syn.clone().flags(ACK))
            .becomes(Redirect, &at.told(syn.reset(7000, 0, RST)), Fate::NoBackend),
        of("a RST to a VIP without a usable backend is dropped")
            .desired(nobody())
            .takes(&syn.clone().flags(RST))
            .is_dropped(Fate::NoBackend),
        of("a datagram to a VIP without a usable backend is dropped")
            .desired(nobody())
            .takes(&datagram)
            .is_dropped(Fate::NoBackend),
        gone("data of a flow whose backend is gone is answered with a reset")
            .takes(&syn.clone().flags(ACK).payload(b"more"))
            .becomes(Redirect, &at.told(syn.reset(7000, 0, RST)), Fate::Reset),
        gone("a FIN of a flow whose backend is gone is answered with a reset")
            .takes(&syn.clone().flags(FIN | ACK))
            .becomes(Redirect, &at.told(syn.reset(7000, 0, RST)), Fate::Reset),
        gone("a RST of a flow whose backend is gone is dropped")
            .takes(&syn.clone().flags(RST))
            .is_dropped(Fate::BackendGone),
        gone("a SYN of a flow whose backend is gone finds out that there is no other")
            .takes(&syn)
            .becomes(
                Redirect,
                &at.told(syn.reset(0, 1001, RST | ACK)),
                Fate::NoBackend,
            ),
        of("the first part of a datagram is dropped, since the rest has no ports")
            .takes(&datagram.clone().change(|frame| frame.ip.fragment = Some((0, true))))
            .is_dropped(Fate::Fragment),
        of("a later part of a datagram is dropped")
            .takes(&datagram.clone().change(|frame| frame.ip.fragment = Some((9, true))))
            .is_dropped(Fate::Fragment),
        of("the last part of a datagram is dropped")
            .takes(&datagram.clone().change(|frame| frame.ip.fragment = Some((9, false))))
            .is_dropped(Fate::Fragment),
        of("the first part of a SYN is dropped")
            .takes(&syn.clone().change(|frame| frame.ip.fragment = Some((0, true))))
            .is_dropped(Fate::Fragment),
        of("a head of TCP that says that it is too short is dropped")
            .takes_bytes(short(at, &syn))
            .is_dropped(Fate::Malformed),
        of("a packet that ends in its ports is dropped")
            .takes(&body(&syn, 17, &[0, 80, 0]))
            .is_dropped(Fate::Malformed),
        of("a protocol that VIPs do not speak is dropped")
            .takes(&body(&syn, 47, &[0; 20]))
            .is_dropped(Fate::Protocol),
        of("more new flows than are written down are dropped")
            .at_once()
            .desired(|desired| desired.settings.flood = 1)
            .after(&syn)
            .after(&syn.clone().from(at.client(), 1001))
            .takes(&syn.clone().from(at.client(), 1002))
            .is_dropped(Fate::Flood),
        of("known flows go on in a flood")
            .at_once()
            .after(&syn)
            .desired(|desired| desired.settings.flood = 1)
            .after(&syn.clone().from(at.client(), 1001))
            .after(&syn.clone().from(at.client(), 1002))
            .takes(&syn.clone().flags(ACK))
            .becomes(
                Pass,
                &at.sent(&syn.clone().flags(ACK)),
                Fate::Destination,
            ),
        of("a SYN with options that begins nothing new is still read whole")
            .desired(nobody())
            .takes(&syn.clone().tcp_options(&[2, 4, 5, 0xb4]))
            .becomes(
                Redirect,
                &at.told(syn.reset(0, 1001, RST | ACK)),
                Fate::NoBackend,
            ),
    ];
    rows.extend(full(at));
    if at.place == Place::Card {
        rows.push(
            of("a SYN to a VIP whose backends are elsewhere is left to the stack")
                .takes(&syn.clone().to(at.family.vip(vip::FULL), 80))
                .is_passed(Fate::NoEndpoint),
        );
    }
    if at.family == V4 {
        let mut bytes = syn.bytes();
        bytes[14] = 0x44;
        rows.push(
            of("a head that says that it is too short is dropped")
                .takes_bytes(bytes)
                .is_dropped(Fate::Malformed),
        );
    }
    rows
}

/// What nobody can write down: the maps are full, or another flow has the port.
fn full(at: At) -> Vec<Row> {
    let of = |says: &str| at.inwards(says);
    let (syn, family) = (at.syn(), at.family);
    let data = syn.clone().flags(ACK).payload(b"data");
    let full = |says: &str| of(says).given(move |world| world.fill(family));
    let (number, other) = at.vips();
    // The same client port at the same backend, by another VIP.
    let rival = |port| {
        let frame = syn.clone().from(at.client(), port);
        frame.to(family.vip(other), 80)
    };
    let row = of("a SYN all of whose ports are taken is dropped").after(&rival(1000));
    let all = (1..lb_ebpf::packet::PROBES).fold(row, |row, taken| {
        row.after(&rival(pool_port(&syn, number, taken)))
    });
    vec![
        full("a SYN that the maps have no room for is dropped")
            .takes(&syn)
            .is_dropped(Fate::TableFull),
        full("a datagram that the maps have no room for is dropped")
            .takes(&at.datagram())
            .is_dropped(Fate::TableFull),
        full("data of an unknown flow that the maps have no room for is dropped")
            .takes(&data)
            .is_dropped(Fate::TableFull),
        of("known flows go on when the maps are full")
            .after(&syn)
            .given(move |world| world.fill(family))
            .takes(&data)
            .becomes(Pass, &at.sent(&data), Fate::Destination),
        all.takes(&syn).is_dropped(Fate::NoPort),
        of("data of an unknown flow whose port is another one's is dropped")
            .after(&rival(1000))
            .takes(&data)
            .is_dropped(Fate::NoPort),
    ]
}

/// A SYN whose head of TCP says that it has sixteen bytes.
fn short(at: At, syn: &Frame) -> Vec<u8> {
    let mut bytes = syn.clone().flags(SYN).bytes();
    let tcp = if at.family == V4 { 34 } else { 54 };
    bytes[tcp + 12] = 0x40;
    bytes
}

/// The same packet with something else in it.
fn body(frame: &Frame, proto: u8, bytes: &[u8]) -> Frame {
    let mut frame = frame.clone();
    frame.ip.body = Body::Raw(proto, bytes.to_vec());
    frame
}
