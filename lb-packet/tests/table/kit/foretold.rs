//! What the programs draw from a packet's addresses and ports.

use std::net::IpAddr;

use lb_common::{Be16, Be32, FlowHash, flow_hash4, flow_hash6};

use super::{Body, Frame, scene};

/// The hash that the programs draw a flow's slot and ports from.
pub(crate) fn hash(frame: &Frame, number: u8) -> FlowHash {
    let vip = Be32::from_host(scene::vip4(number).into());
    let (client, to, proto) = match &frame.ip.body {
        Body::Tcp {
            source,
            destination,
            ..
        } => (*source, *destination, 6),
        Body::Udp {
            source,
            destination,
            ..
        } => (*source, *destination, 17),
        _ => panic!("only TCP and UDP have flows"),
    };
    let (client, to) = (Be16::from_host(client), Be16::from_host(to));
    match frame.ip.source {
        IpAddr::V4(address) => flow_hash4(Be32::from_host(address.into()), client, vip, to, proto),
        IpAddr::V6(address) => {
            let words = address.octets();
            let word = |at: usize| u32::from_ne_bytes(words[at..at + 4].try_into().unwrap());
            flow_hash6(
                [word(0), word(4), word(8), word(12)],
                client,
                vip,
                to,
                proto,
            )
        }
    }
}

/// The port that full NAT gives the flow of this frame to the VIP number `number`, after so many that were taken.
pub(crate) fn pool_port(frame: &Frame, number: u8, taken: u32) -> u16 {
    let ports = lb_ebpf::packet::Ports {
        first: *scene::PORTS.start(),
        count: u16::try_from(scene::PORTS.len()).unwrap(),
    };
    ports.probe(hash(frame, number), taken).host()
}
