//! Echoes, and errors about packets of flows.

use std::net::IpAddr;

use lb_common::packet::Fate;

use super::At;
use crate::kit::{ACK, Body, Frame, Pass, Redirect, Row, SYN, V4, solicitation, vip};

pub(super) fn rows(at: At) -> Vec<Row> {
    let mut rows = echoes(at);
    rows.extend(about_answers(at));
    rows.extend(about_packets(at));
    rows
}

fn echoes(at: At) -> Vec<Row> {
    let of = |says: &str| at.inwards(says);
    let (request, reply) = if at.family == V4 { (8, 0) } else { (128, 129) };
    let echo = |to, kind| {
        at.from_client(Frame::icmp(
            at.client(),
            to,
            kind,
            0,
            0x0001_0002,
            b"ping".to_vec(),
        ))
    };
    let ping = echo(at.vip(), request);
    let pong = at.to_client(Frame::icmp(
        at.vip(),
        at.client(),
        reply,
        0,
        0x0001_0002,
        b"ping".to_vec(),
    ));
    let mut rows = vec![
        of("an echo request to a VIP is answered")
            .takes(&ping)
            .becomes(Redirect, &pong, Fate::Echo),
        of("an echo request from far away is answered with new hops")
            .takes(&ping.clone().hops(3))
            .becomes(Redirect, &pong, Fate::Echo),
        of("an echo request in a VLAN is answered in the VLAN")
            .takes(&ping.clone().tag(7))
            .becomes(Redirect, &pong.clone().tag(7), Fate::Echo),
        of("an echo request to an address that nobody has is left to the stack")
            .takes(&echo(at.family.vip(vip::NONE), request))
            .is_passed(Fate::NoEndpoint),
        of("a part of an echo request is dropped")
            .takes(
                &ping
                    .clone()
                    .change(|frame| frame.ip.fragment = Some((0, true))),
            )
            .is_dropped(Fate::Fragment),
        of("an echo that nobody asked for is dropped")
            .takes(&echo(at.vip(), reply))
            .is_dropped(Fate::Protocol),
    ];
    if at.family != V4 {
        rows.push(
            of("who asks whether a VIP is still there is heard by the agent")
                .takes(&at.from_client(solicitation(at.family, at.vips().0)))
                .is_not_ours(),
        );
    }
    rows
}

/// An error that quotes a packet, all of it or so many bytes.
fn error(ends: (IpAddr, IpAddr), kind: (u8, u8, u32), quoted: &Frame, most: usize) -> Frame {
    let mut bytes = quoted.ip.bytes();
    bytes.truncate(most);
    let (kind, code, word) = kind;
    Frame::icmp(ends.0, ends.1, kind, code, word, bytes)
}

/// Kinds of errors: what they say, their type, code and second word.
fn kinds(at: At) -> [(&'static str, (u8, u8, u32)); 4] {
    if at.family == V4 {
        [
            ("that a port is closed", (3, 3, 0)),
            ("that a host is not there", (3, 1, 0)),
            ("that a packet is too big", (3, 4, 1400)),
            ("that a packet was under way for too long", (11, 0, 0)),
        ]
    } else {
        [
            ("that a port is closed", (1, 4, 0)),
            ("that a host is not there", (1, 3, 0)),
            ("that a packet is too big", (2, 0, 1400)),
            ("that a packet was under way for too long", (3, 0, 0)),
        ]
    }
}

/// Errors about what the client was sent.
fn about_answers(at: At) -> Vec<Row> {
    let router = at.family.ip("203.0.113.1");
    let udp = Frame::udp((at.vip(), 53), (at.client(), 1000));
    let udp_sent = udp.clone().from(at.backend(), 8080);
    let tcp = Frame::tcp((at.vip(), 80), (at.client(), 1000)).flags(SYN | ACK);
    let tcp_sent = tcp.clone().from(at.backend(), 8080);
    let head = if at.family == V4 { 20 } else { 40 };
    let to = |frame: Frame| at.from_client(frame);
    let mut rows = Vec::new();
    for (says, kind) in kinds(at) {
        for (who, from) in [("its client", at.client()), ("a router", router)] {
            let told = to(error((from, at.vip()), kind, &udp, 1000));
            let sent = to(error((from, at.backend()), kind, &udp_sent, 1000));
            rows.push(
                at.inwards(&format!("a backend hears from {who} {says}"))
                    .after(&at.datagram())
                    .takes(&told)
                    .becomes(Pass, &sent, Fate::Error),
            );
        }
        let told = to(error((router, at.vip()), kind, &tcp, 1000));
        let sent = to(error((router, at.backend()), kind, &tcp_sent, 1000));
        rows.push(
            at.inwards(&format!("a backend hears from a router about TCP {says}"))
                .after(&at.syn())
                .takes(&told)
                .becomes(Pass, &sent, Fate::Error),
        );
    }
    let kind = kinds(at)[0].1;
    let told = to(error((router, at.vip()), kind, &tcp, head + 8));
    let sent = to(error((router, at.backend()), kind, &tcp_sent, head + 8));
    rows.push(
        at.inwards("a backend hears of a packet of which eight bytes are quoted")
            .after(&at.syn())
            .takes(&told)
            .becomes(Pass, &sent, Fate::Error),
    );
    rows.push(
        at.inwards("an error about an answer of no flow is dropped")
            .takes(&to(error((router, at.vip()), kind, &udp, 1000)))
            .is_dropped(Fate::NoFlow),
    );
    rows.push(
        at.inwards("an error that quotes too little is dropped")
            .after(&at.syn())
            .takes(&to(error((router, at.vip()), kind, &tcp, head + 3)))
            .is_dropped(Fate::Malformed),
    );
    rows
}

/// Errors about what the client has sent.
fn about_packets(at: At) -> Vec<Row> {
    let router = at.family.ip("10.1.0.1");
    let udp = Frame::udp((at.client(), 1000), (at.vip(), 53));
    let udp_sent = udp.clone().to(at.backend(), 8080);
    let tcp = Frame::tcp((at.client(), 1000), (at.vip(), 80));
    let tcp_sent = tcp.clone().to(at.backend(), 8080);
    let head = if at.family == V4 { 20 } else { 40 };
    let to = |frame: Frame| at.to_client(frame);
    let known = |says: &str| {
        let row = at.known(at.outwards(says), &at.datagram());
        at.known(row, &at.syn())
    };
    let mut rows = Vec::new();
    for (says, kind) in kinds(at) {
        for (who, from, as_from) in [
            ("the VIP", at.backend(), at.vip()),
            ("a router", router, router),
        ] {
            for (what, sent, meant) in [("TCP", &tcp_sent, &tcp), ("UDP", &udp_sent, &udp)] {
                let told = to(error((from, at.client()), kind, sent, 1000));
                let heard = to(error((as_from, at.client()), kind, meant, 1000));
                rows.push(
                    known(&format!("a client of {what} hears from {who} {says}"))
                        .takes(&told)
                        .becomes(Pass, &heard, Fate::Error),
                );
            }
        }
    }
    let kind = kinds(at)[2].1;
    let told = to(error((router, at.client()), kind, &tcp_sent, head + 8));
    let heard = to(error((router, at.client()), kind, &tcp, head + 8));
    rows.push(
        known("a client hears of a packet of which eight bytes are quoted")
            .takes(&told)
            .becomes(Pass, &heard, Fate::Error),
    );
    rows.push(
        at.outwards("an error about a packet of no flow is none of ours")
            .takes(&to(error((router, at.client()), kind, &tcp_sent, 1000)))
            .is_not_ours(),
    );
    rows.push(
        known("an echo to a client is none of ours")
            .takes(&to(Frame::with(
                at.backend(),
                at.client(),
                Body::Icmp {
                    kind: if at.family == V4 { 8 } else { 128 },
                    code: 0,
                    word: 1,
                    payload: b"ping".to_vec(),
                },
            )))
            .is_not_ours(),
    );
    rows
}
