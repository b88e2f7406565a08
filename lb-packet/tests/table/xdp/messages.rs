//! Echoes, and errors about packets of flows.

use lb_common::packet::Fate;

use super::{answer, backend, datagram, forwarded, of, syn};
use crate::kit::{ACK, Body, CARD, Family, Frame, Row, SYN, Tx, V4, neighbour, solicitation, vip};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| of(family, says);
    let (request, reply) = if family == V4 { (8, 0) } else { (128, 129) };
    let echo = |to, kind| Frame::icmp(family.client(), to, kind, 0, 0x0001_0002, b"ping".to_vec());
    let ping = echo(family.vip(vip::FULL), request);
    let pong = Frame::icmp(
        family.vip(vip::FULL),
        family.client(),
        reply,
        0,
        0x0001_0002,
        b"ping".to_vec(),
    );
    let pong = pong.macs(neighbour(254), CARD);
    let mut rows =
        vec![
        of("an echo request to a VIP is answered")
            .takes(&ping)
            .becomes(Tx, &pong, Fate::Echo),
        of("an echo request from far away is answered with new hops")
            .takes(&ping.clone().hops(3))
            .becomes(Tx, &pong, Fate::Echo),
        of("an echo request in a VLAN is answered in the VLAN")
            .takes(&ping.clone().tag(7))
            .becomes(Tx, &pong.clone().tag(7), Fate::Echo),
        of("an echo request to a VIP without a usable backend is answered: the address is there")
            .takes(&echo(family.vip(vip::EMPTY), request))
            .becomes(Tx, &pong.clone().from(family.vip(vip::EMPTY), 0), Fate::Echo),
        of("an echo request to an address that nobody has is left to the stack")
            .takes(&echo(family.vip(vip::NONE), request))
            .is_passed(Fate::NoEndpoint),
        of("an echo request to this host is the stack's")
            .takes(&echo(family.own(), request))
            .is_not_ours(),
        of("a part of an echo request is dropped")
            .takes(&ping.clone().change(|frame| frame.ip.fragment = Some((0, true))))
            .is_dropped(Fate::Fragment),
        of("an echo that nobody asked for is dropped")
            .takes(&echo(family.vip(vip::FULL), reply))
            .is_dropped(Fate::Protocol),
        of("a message that is cut off is dropped")
            .takes(&Frame::with(
                family.client(),
                family.vip(vip::FULL),
                Body::Raw(if family == V4 { 1 } else { 58 }, vec![request, 0, 0, 0]),
            ))
            .is_dropped(Fate::Malformed),
    ];
    if family != V4 {
        rows.push(
            of("who asks whether a VIP is still there is heard by the agent")
                .takes(&solicitation(family, vip::FULL))
                .is_not_ours(),
        );
    }
    rows.extend(about_packets(family));
    rows.extend(about_answers(family));
    rows
}

/// Kinds of errors: their words, type, code and second word, in both families.
fn errors(family: Family) -> [(&'static str, u8, u8, u32); 4] {
    if family == V4 {
        [
            ("that a port is closed", 3, 3, 0),
            ("that a host is not there", 3, 1, 0),
            ("that a packet is too big", 3, 4, 1400),
            ("that a packet was under way for too long", 11, 0, 0),
        ]
    } else {
        [
            ("that a port is closed", 1, 4, 0),
            ("that a host is not there", 1, 3, 0),
            ("that a packet is too big", 2, 0, 1400),
            ("that a packet was under way for too long", 3, 0, 0),
        ]
    }
}

/// Errors about packets that went to a backend in the name of a client.
fn about_packets(family: Family) -> Vec<Row> {
    let syn = syn(family, vip::FULL);
    let asked = datagram(family, vip::FULL);
    let heads = if family == V4 { 20 } else { 40 };
    // What a router says of a packet that it was sent, and what the client is told of its own.
    let told = |frame: &Frame, kept: usize, (_, kind, code, word): (&str, u8, u8, u32)| {
        let quote = |frame: &Frame| {
            let mut quoted = frame.ip.bytes();
            quoted.truncate(kept);
            quoted
        };
        let sent = forwarded(frame);
        let router = family.ip("10.1.0.254");
        let came = Frame::icmp(router, family.own(), kind, code, word, quote(&sent));
        let came = came.macs(CARD, neighbour(40));
        let own = frame.clone().hops(sent.ip.hops);
        let (vip, client) = (family.vip(vip::FULL), family.client());
        let goes = Frame::icmp(vip, client, kind, code, word, quote(&own));
        (came, goes.hops(63).macs(neighbour(254), CARD))
    };
    let mut rows = Vec::new();
    for error in errors(family) {
        let (came, goes) = told(&syn, 1000, error);
        rows.push(
            of(
                family,
                &format!("a client is told {} on the way to its backend", error.0),
            )
            .after(&syn)
            .takes(&came)
            .becomes(Tx, &goes, Fate::Error),
        );
    }
    let closed = errors(family)[0];
    let (came, goes) = told(&asked, 1000, closed);
    rows.push(
        of(
            family,
            "a client is told that its datagram met a closed port",
        )
        .after(&asked)
        .takes(&came)
        .becomes(Tx, &goes, Fate::Error),
    );
    rows.push(
        of(
            family,
            "an error that has been under way for too long is dropped",
        )
        .after(&asked)
        .takes(&came.clone().hops(1))
        .is_dropped(Fate::Expired),
    );
    rows.push(
        of(family, "an error in a VLAN is the stack's to send")
            .after(&asked)
            .takes(&came.clone().tag(7))
            .is_handed_over("card", &goes.clone().tag(7).macs(CARD, neighbour(40))),
    );
    rows.push(
        of(
            family,
            "an error about a packet of this host is the stack's",
        )
        .takes(&came)
        .is_not_ours(),
    );
    let (came, _) = told(&syn, heads + 7, closed);
    rows.push(
        of(family, "an error that quotes no ports is the stack's")
            .after(&syn)
            .takes(&came)
            .is_not_ours(),
    );
    // The checksum of TCP is not among the eight bytes that are quoted at least: it is not there to be put right.
    let (came, goes) = told(&syn, heads + 8, closed);
    rows.push(
        of(
            family,
            "an error that quotes ports and no more is told, too",
        )
        .after(&syn)
        .takes(&came)
        .becomes(Tx, &goes, Fate::Error),
    );
    rows
}

/// Errors about answers that went from a VIP to a client.
fn about_answers(family: Family) -> Vec<Row> {
    let syn = syn(family, vip::FULL);
    let accepts = answer(&syn).flags(SYN | ACK);
    let vip = family.vip(vip::FULL);
    let router = family.ip("203.0.113.99");
    // What the client was sent, and what the backend is told of what it sent itself.
    let sent = accepts
        .clone()
        .from(vip, 80)
        .to(family.client(), 1000)
        .hops(63);
    let own = accepts.clone().hops(63);
    let mut rows = Vec::new();
    for (words, kind, code, word) in errors(family) {
        let came = Frame::icmp(router, vip, kind, code, word, sent.ip.bytes());
        let goes = Frame::icmp(
            family.own(),
            backend(family),
            kind,
            code,
            word,
            own.ip.bytes(),
        );
        rows.push(
            of(
                family,
                &format!("a backend is told {words} on the way to its client"),
            )
            .after(&syn)
            .after(&accepts)
            .takes(&came)
            .becomes(Tx, &goes.hops(63).macs(neighbour(40), CARD), Fate::Error),
        );
    }
    let (_, kind, code, word) = errors(family)[0];
    let about = |quoted: Vec<u8>| Frame::icmp(router, vip, kind, code, word, quoted);
    let local = Frame::tcp((family.vip(vip::LOCAL), 80), (family.client(), 1000)).flags(ACK);
    rows.push(
        of(family, "an error about an answer of no flow is dropped")
            .takes(&about(sent.ip.bytes()))
            .is_dropped(Fate::NoFlow),
    );
    rows.push(
        of(family, "an error about an answer of another VIP is dropped")
            .after(&syn)
            .takes(&about(
                sent.clone().from(family.vip(vip::FULL_TOO), 0).ip.bytes(),
            ))
            .is_dropped(Fate::NoFlow),
    );
    rows.push(
        of(family, "an error that quotes nothing is dropped")
            .after(&syn)
            .takes(&about(Vec::new()))
            .is_dropped(Fate::NoFlow),
    );
    rows.push(
        of(
            family,
            "an error about an answer of a backend of this host is left to the stack",
        )
        .after_by("tc_card_in", &super::syn(family, vip::LOCAL))
        .takes(&Frame::icmp(
            router,
            family.vip(vip::LOCAL),
            kind,
            code,
            word,
            local.ip.bytes(),
        ))
        .is_passed(Fate::Local),
    );
    rows
}
