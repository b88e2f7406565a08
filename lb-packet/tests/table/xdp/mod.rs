//! `xdp_card`: packets from other hosts for backends of other hosts, their answers, and what is told of both.

mod answers;
mod full;
mod kept;
mod messages;
mod refused;
mod tunnel;

use std::net::IpAddr;

use crate::kit::{CARD, Family, Frame, Row, neighbour, pool_port, row, vip};

pub(crate) fn rows(family: Family) -> Vec<Row> {
    [
        answers::rows(family),
        full::rows(family),
        kept::rows(family),
        messages::rows(family),
        refused::rows(family),
        tunnel::rows(family),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Begins a row.
fn of(family: Family, says: &str) -> Row {
    row("xdp_card", family, says)
}

/// A SYN of a client to a VIP.
fn syn(family: Family, number: u8) -> Frame {
    Frame::tcp((family.client(), 1000), (family.vip(number), 80))
}

/// A datagram of a client to a VIP.
fn datagram(family: Family, number: u8) -> Frame {
    Frame::udp((family.client(), 1000), (family.vip(number), 53))
}

/// The backend of [`vip::FULL`].
fn backend(family: Family) -> IpAddr {
    family.ip("10.1.0.10")
}

/// What the router to the backends is sent of a packet to [`vip::FULL`].
fn forwarded(frame: &Frame) -> Frame {
    forwarded_to(frame, vip::FULL, "10.1.0.10", 0)
}

/// The same for another VIP and backend, after so many ports that were taken.
fn forwarded_to(frame: &Frame, number: u8, backend: &str, taken: u32) -> Frame {
    let family = family_of(frame);
    let port = pool_port(frame, number, taken);
    let sent = frame.clone().from(family.own(), port);
    let sent = sent.to(family.ip(backend), 8080);
    let hops = frame.ip.hops - 1;
    sent.hops(hops).macs(neighbour(40), CARD)
}

fn family_of(frame: &Frame) -> Family {
    if frame.ip.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// The answer of the backend of [`vip::FULL`] to a packet, as it comes to the card.
fn answer(asked: &Frame) -> Frame {
    let family = family_of(asked);
    let port = pool_port(asked, vip::FULL, 0);
    let answer = asked.clone().from(backend(family), 8080);
    answer
        .to(family.own(), port)
        .hops(64)
        .macs(CARD, neighbour(40))
}
