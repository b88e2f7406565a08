//! `tc_client_in` and `tc_client_out`: what a client behind a device of this host sends to VIPs, and what comes back.

use lb_common::packet::Fate;

use crate::kit::{CLIENT, CLIENT_DEVICE, Family, Frame, Pass, Row, row, vip};

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let client = family.ip("10.77.0.2");
    let syn = Frame::tcp((client, 1000), (family.vip(vip::FULL), 80)).macs(CLIENT_DEVICE, CLIENT);
    let sent = syn.clone().to(family.ip("10.1.0.10"), 8080);
    vec![
        row(
            "tc_client_in",
            family,
            "a SYN to a VIP goes to its backend, and the client stays who it is",
        )
        .takes(&syn)
        .becomes(Pass, &sent, Fate::Destination),
    ]
}
