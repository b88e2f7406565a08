//! `xdp_card`: packets from other hosts for backends of other hosts, and their answers.

use lb_common::packet::Fate;

use crate::kit::{CARD, Family, Frame, Row, Tx, neighbour, pool_port, row, vip};

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| row("xdp_card", family, says);
    let syn = Frame::tcp((family.client(), 1000), (family.vip(vip::FULL), 80));
    let forward = |frame: &Frame| {
        let backend = family.ip("10.1.0.10");
        let port = pool_port(frame, vip::FULL, 0);
        let sent = frame.clone().from(family.own(), port).to(backend, 8080);
        sent.hops(63).macs(neighbour(40), CARD)
    };
    vec![
        of("a SYN to a VIP goes to its backend from our address and a port of the pool")
            .takes(&syn)
            .becomes(Tx, &forward(&syn), Fate::Full),
    ]
}
