//! Answering for VIPs on the network.

use lb_common::packet::Fate;

use super::of;
use crate::kit::{CARD, Desired, Family, Frame, Mac, Row, Tx, V4, neighbour, scene, vip};

pub(super) fn rows(family: Family) -> Vec<Row> {
    if family == V4 { arp() } else { neighbours() }
}

fn announcing(desired: &mut Desired) {
    desired.settings.announcing = 1;
}

fn not_this_one(desired: &mut Desired) {
    announcing(desired);
    desired.vips.insert(scene::vip4(vip::FULL), false);
}

/// A frame of ARP.
fn frame(
    macs: (Mac, Mac),
    operation: u8,
    sender: (Mac, [u8; 4]),
    target: (Mac, [u8; 4]),
) -> Vec<u8> {
    let mut frame = [macs.0, macs.1].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [sender, target] {
        frame.extend(mac);
        frame.extend(address);
    }
    frame
}

fn arp() -> Vec<Row> {
    let of = |says: &str| of(V4, says);
    let (asker, address) = (neighbour(254), [192, 0, 2, 254]);
    let everybody = [0xff; 6];
    let asks = |from: [u8; 4], about: [u8; 4]| {
        frame((everybody, asker), 1, (asker, from), ([0; 6], about))
    };
    let vip = scene::vip4(vip::FULL).octets();
    let answers = |to: [u8; 4]| frame((asker, CARD), 2, (CARD, vip), (asker, to));
    vec![
        of("who asks for a VIP is answered by the card")
            .desired(announcing)
            .takes_bytes(asks(address, vip))
            .becomes_bytes(Tx, answers(address), Fate::Announced),
        of("who only wants to know whether a VIP is taken is answered")
            .desired(announcing)
            .takes_bytes(asks([0; 4], vip))
            .becomes_bytes(Tx, answers([0; 4]), Fate::Announced),
        of("who asks for a VIP is not answered while another host does that")
            .takes_bytes(asks(address, vip))
            .is_not_ours(),
        of("who asks for a VIP that is not announced is not answered")
            .desired(not_this_one)
            .takes_bytes(asks(address, vip))
            .is_not_ours(),
        of("who asks for an address that nobody has is not answered")
            .desired(announcing)
            .takes_bytes(asks(address, scene::vip4(vip::NONE).octets()))
            .is_not_ours(),
        of("who asks for this host is answered by the stack")
            .desired(announcing)
            .takes_bytes(asks(address, [192, 0, 2, 1]))
            .is_not_ours(),
        of("who announces a VIP is heard by the stack")
            .desired(announcing)
            .takes_bytes(asks(vip, vip))
            .is_not_ours(),
        of("an answer of ARP is the stack's")
            .desired(announcing)
            .takes_bytes(answers(address))
            .is_not_ours(),
    ]
}

fn neighbours() -> Vec<Row> {
    let family = Family::V6;
    let of = |says: &str| of(family, says);
    let ip = |text: &str| text.parse().unwrap();
    let octets = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
        std::net::IpAddr::V4(_) => panic!("an address of IPv6"),
    };
    let vip = family.vip(vip::FULL);
    let asker = neighbour(254);
    // The last three bytes of the VIP tell the group: fd00:c612::a.
    let group = |last: u16| ip(&format!("ff02::1:ff00:{last:x}"));
    let asks = |from: &str, to, about, with_link: bool| {
        let mut rest = octets(about);
        if with_link {
            rest.extend([1, 1]);
            rest.extend(asker);
        }
        let frame = Frame::icmp(ip(from), to, 135, 0, 0, rest);
        frame.hops(255).macs([0x33, 0x33, 0xff, 0, 0, 10], asker)
    };
    let answers = |to: &str, mac: Mac, flags: u32| {
        let mut rest = octets(vip);
        rest.extend([2, 1]);
        rest.extend(CARD);
        let frame = Frame::icmp(vip, ip(to), 136, 0, flags, rest).made_here();
        frame.hops(255).macs(mac, CARD)
    };
    let usual = asks("fe80::254", group(10), vip, true);
    let answered = answers("fe80::254", asker, 0x6000_0000);
    let to_all = answers("ff02::1", [0x33, 0x33, 0, 0, 0, 1], 0x2000_0000);
    let solid = asks("fe80::254", vip, vip, true);
    let own = family.own();
    vec![
        of("who asks for a VIP is answered by the card")
            .desired(announcing)
            .takes(&usual)
            .becomes(Tx, &answered, Fate::Announced),
        of("who asks whether a VIP is still there is answered")
            .desired(announcing)
            .takes(&solid)
            .becomes(Tx, &answered, Fate::Announced),
        of("who asks without its own address on the link is answered with ours")
            .desired(announcing)
            .takes(&asks("fe80::254", group(10), vip, false))
            .becomes(Tx, &answered, Fate::Announced),
        of("who only wants to know whether a VIP is taken is answered by a message to all")
            .desired(announcing)
            .takes(&asks("::", group(10), vip, false))
            .becomes(Tx, &to_all, Fate::Announced),
        of("who asks for a VIP is not answered while another host does that")
            .takes(&usual)
            .is_not_ours(),
        of("who asks for a VIP that is not announced is not answered")
            .desired(not_this_one)
            .takes(&usual)
            .is_not_ours(),
        of("who asks for an address that nobody has is not answered")
            .desired(announcing)
            .takes(&asks("fe80::254", group(99), family.vip(vip::NONE), true))
            .is_not_ours(),
        of("who asks for this host is answered by the stack")
            .desired(announcing)
            .takes(&asks("fe80::254", group(1), own, true))
            .is_not_ours(),
        of("a question that was routed is the stack's")
            .desired(announcing)
            .takes(&usual.clone().hops(254))
            .is_not_ours(),
    ]
}
