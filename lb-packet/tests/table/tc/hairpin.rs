//! Clients that are their own backends.

use std::net::IpAddr;

use lb_common::packet::Fate;
use lb_packet::{HAIRPIN4, HAIRPIN6};

use crate::kit::{
    ACK, CLIENT, CLIENT_DEVICE, Family, Frame, RST, Redirect, Row, SYN, V4, V6, row, vip,
};

pub(super) fn rows(family: Family) -> Vec<Row> {
    let of = |says: &str| row("tc_client_in", family, says);
    let client = family.ip("10.77.0.2");
    let reserved: IpAddr = match family {
        V4 => HAIRPIN4.into(),
        V6 => HAIRPIN6.into(),
    };
    let own = family.vip(vip::SELF);
    let syn = Frame::tcp((client, 1000), (own, 80)).macs(CLIENT_DEVICE, CLIENT);
    let datagram = Frame::udp((client, 1000), (own, 53)).macs(CLIENT_DEVICE, CLIENT);
    let back = |frame: &Frame| {
        frame
            .clone()
            .from(reserved, 0)
            .to(client, 8080)
            .macs(CLIENT, CLIENT_DEVICE)
    };
    let answer = |flags| {
        Frame::tcp((client, 8080), (reserved, 1000))
            .flags(flags)
            .macs(CLIENT_DEVICE, CLIENT)
    };
    let answered = |frame: &Frame, port| {
        frame
            .clone()
            .from(own, port)
            .to(client, 1000)
            .macs(CLIENT, CLIENT_DEVICE)
    };
    let said = Frame::udp((client, 8080), (reserved, 1000)).macs(CLIENT_DEVICE, CLIENT);
    vec![
        of("a client that is its own backend gets its SYN from the address that is reserved for this")
            .takes(&syn)
            .becomes(Redirect, &back(&syn), Fate::Full),
        of("a client that is its own backend gets its datagram from that address")
            .takes(&datagram)
            .becomes(Redirect, &back(&datagram), Fate::Full),
        of("what follows goes the same way")
            .after(&syn)
            .takes(&syn.clone().flags(ACK).payload(b"GET /"))
            .becomes(
                Redirect,
                &back(&syn.clone().flags(ACK).payload(b"GET /")),
                Fate::Full,
            ),
        of("its answer to that address comes back from the VIP")
            .after(&syn)
            .takes(&answer(SYN | ACK))
            .becomes(Redirect, &answered(&answer(SYN | ACK), 80), Fate::Answered),
        of("its refusal comes back from the VIP")
            .after(&syn)
            .takes(&answer(RST | ACK))
            .becomes(Redirect, &answered(&answer(RST | ACK), 80), Fate::Answered),
        of("its answer of UDP comes back from the VIP")
            .after(&datagram)
            .takes(&said)
            .becomes(Redirect, &answered(&said, 53), Fate::Answered),
        of("an answer of nothing to that address is dropped")
            .takes(&answer(SYN | ACK))
            .is_dropped(Fate::NoFlow),
    ]
}
