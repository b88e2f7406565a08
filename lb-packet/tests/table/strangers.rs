//! Packets that are none of ours: every program lets them through as they came, and counts nothing.

use crate::kit::{ACK, Body, Family, Frame, Row, V4, row};

pub(crate) fn rows(family: Family) -> Vec<Row> {
    let (here, there) = (family.client(), family.ip("192.0.2.100"));
    let tcp = Frame::tcp((here, 1000), (there, 80));
    let mut rows = Vec::new();
    for program in [
        "xdp_card",
        "tc_card_in",
        "tc_card_out",
        "tc_client_in",
        "tc_client_out",
    ] {
        let of = |says: &str| row(program, family, says);
        rows.push(
            of("a SYN to somebody else is not touched")
                .takes(&tcp)
                .is_not_ours(),
        );
        rows.push(
            of("data of a flow of somebody else is not touched")
                .takes(&tcp.clone().flags(ACK).payload(b"data"))
                .is_not_ours(),
        );
        rows.push(
            of("a datagram to somebody else is not touched")
                .takes(&Frame::udp((here, 1000), (there, 53)))
                .is_not_ours(),
        );
        rows.push(
            of("a packet to somebody else in a VLAN is not touched")
                .takes(&tcp.clone().tag(7))
                .is_not_ours(),
        );
        rows.push(
            of("a protocol that nobody knows, to somebody else, is not touched")
                .takes(&Frame::with(here, there, Body::Raw(253, vec![1, 2, 3, 4])))
                .is_not_ours(),
        );
        rows.push(
            of("the agent's own address is the stack's")
                .takes(&tcp.clone().to(family.vip(1), 80))
                .is_not_ours(),
        );
        let (echo, unreachable) = if family == V4 {
            ((8, 0), (3, 3))
        } else {
            ((128, 0), (1, 4))
        };
        let to_agent =
            |(kind, code), payload| Frame::icmp(here, family.vip(1), kind, code, 0, payload);
        let answer = Frame::udp((family.vip(1), 53), (here, 1000));
        rows.push(
            of("an echo request to the agent's own address is the stack's")
                .takes(&to_agent(echo, b"ping".to_vec()))
                .is_not_ours(),
        );
        rows.push(
            of("an error about an answer of the agent is the stack's")
                .takes(&to_agent(unreachable, answer.ip.bytes()))
                .is_not_ours(),
        );
        let question = Frame::udp((here, 1000), (family.vip(1), 53));
        let ping = to_agent(echo, b"ping".to_vec());
        for (part, fragment) in [("first", (0, true)), ("last", (4, false))] {
            for (what, whole) in [("a packet", &question), ("an echo request", &ping)] {
                let cut = |frame: &mut Frame| frame.ip.fragment = Some(fragment);
                rows.push(
                    of(&format!(
                        "the {part} part of {what} to the agent is the stack's"
                    ))
                    .takes(&whole.clone().change(cut))
                    .is_not_ours(),
                );
            }
        }
    }
    if family == V4 {
        for program in ["xdp_card", "tc_card_in", "tc_client_in"] {
            let mut bytes = tcp.bytes();
            bytes[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes());
            rows.push(
                row(program, family, "a frame that is not of IP is not touched")
                    .takes_bytes(bytes)
                    .is_not_ours(),
            );
        }
    }
    rows
}
