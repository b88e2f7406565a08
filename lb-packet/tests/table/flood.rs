//! A flood of handshakes that nobody ends, against connections that are open.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::packet::Fate;

use crate::{
    kit::{ACK, CLIENT, CLIENT_DEVICE, Family, Frame, SYN, V4, V6, World, key, vip},
    world,
};

const OPEN: u16 = 1000;
const FLOOD: usize = 1_000_000;

/// What says where a packet went: its destination.
fn destination(family: Family, packet: &[u8]) -> Vec<u8> {
    match family {
        V4 => packet[30..34].to_vec(),
        V6 => packet[38..54].to_vec(),
    }
}

fn open_flows_outlive_a_flood(
    world: &mut World,
    program: &'static str,
    family: Family,
    syn: &Frame,
) {
    let of = |port: u16, flags| {
        let frame = syn.clone().from(syn.ip.source, 30_000 + port);
        frame.flags(flags)
    };
    let mut went = Vec::new();
    for port in 0..OPEN {
        let first = world.run(program, &of(port, SYN).bytes()).packet;
        let second = world.run(program, &of(port, ACK).bytes()).packet;
        assert_eq!(destination(family, &first), destination(family, &second));
        went.push(destination(family, &second));
    }
    let before = world.figures.fates().unwrap();
    // One of the three drains: nobody who is new would find it.
    world.apply(|desired| {
        for (key, wanted) in &mut desired.endpoints {
            if *key == self::key(vip::THREE, 80, 6, key.scope) {
                let members = wanted.members.iter().map(|it| lb_packet::Member {
                    weight: u16::from(
                        !it.address.ip().to_string().ends_with("31")
                            && !it.address.ip().to_string().ends_with("1f"),
                    ),
                    ..*it
                });
                wanted.members = members.collect();
            }
        }
        // For each CPU and second; the test takes some seconds.
        desired.settings.flood = 20;
    });
    // Whoever it is, there are more of them than the maps have room for.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let source = if family == V4 { 26..30 } else { 30..38 };
    let ports = if family == V4 { 34..36 } else { 54..56 };
    world.pour(program, syn, FLOOD, |packet| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let bytes = random.to_be_bytes();
        let count = source.len();
        packet[source.clone()].copy_from_slice(&bytes[..count]);
        packet[ports.clone()].copy_from_slice(&bytes[..2]);
        // Of no group of hosts, and nobody of the scene.
        packet[source.start] = 100;
    });
    let after = world.figures.fates().unwrap();
    let flooded = after.packets[&Fate::Flood] - before.packets[&Fate::Flood];
    assert!(
        flooded > FLOOD as u64 * 9 / 10,
        "the gate was shut: {flooded}"
    );
    for (port, went) in (0..OPEN).zip(went) {
        let ran = world.run(program, &of(port, ACK).payload(b"more").bytes());
        assert_eq!(
            destination(family, &ran.packet),
            went,
            "flow {port} goes where it went"
        );
    }
    let drained: BTreeSet<SocketAddr> = world
        .publisher
        .targets()
        .map(|it| it.0)
        .filter(|it| it.ip() == family.ip("10.1.0.31"))
        .collect();
    assert_eq!(drained.len(), 1, "it drains and is not gone");
}

#[test]
fn a_thousand_flows_of_local_clients_outlive_a_million_handshakes() {
    for family in [V4, V6] {
        world(|world| {
            let client = family.ip("10.77.0.2");
            let syn =
                Frame::tcp((client, 1), (family.vip(vip::THREE), 80)).macs(CLIENT_DEVICE, CLIENT);
            open_flows_outlive_a_flood(world, "tc_client_in", family, &syn);
        });
    }
}

#[test]
fn a_thousand_flows_of_other_hosts_outlive_a_million_handshakes() {
    for family in [V4, V6] {
        world(|world| {
            let syn = Frame::tcp((family.client(), 1), (family.vip(vip::THREE), 80));
            open_flows_outlive_a_flood(world, "xdp_card", family, &syn);
        });
    }
}
