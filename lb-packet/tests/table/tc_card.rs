//! `tc_card_in` and `tc_card_out`: what other hosts send to VIPs whose backends are here, and what comes back.

use lb_common::packet::Fate;

use crate::kit::{Family, Frame, Pass, Row, row, vip};

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let syn = Frame::tcp((family.client(), 1000), (family.vip(vip::LOCAL), 80));
    let sent = syn.clone().to(family.ip("10.77.0.20"), 8080);
    vec![
        row(
            "tc_card_in",
            family,
            "a SYN to a VIP goes to its backend on this host, and the client stays who it is",
        )
        .takes(&syn)
        .becomes(Pass, &sent, Fate::Destination),
    ]
}
