//! Answering for addresses on a link: ARP, RFC 826, and neighbour discovery, RFC 4861.

use lb_common::Be32;

use super::{
    bytes::{Bytes, raw16, raw32, raw128, set16, set32, set128},
    checksum::{fold, sum_of_part},
    heads::{Head6, pseudo6, short},
    parse::{IPV4, IPV6_HEAD, Ipv6, PROTO_ICMP6},
    rewrite::{link_addresses, set_link_addresses},
};

/// EtherType of ARP, as it lies in a frame.
pub const ARP: u16 = 0x0806_u16.to_be();

const ARP_SIZE: usize = 28;
const ETHERNET_LINK: u16 = 1_u16.to_be();
const REQUEST: u16 = 1_u16.to_be();
const ANSWER: u16 = 2_u16.to_be();

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const TARGET_LINK_ADDRESS: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Nobody routed it.
const ON_LINK_HOPS: u8 = 255;

/// An advertisement with the option that has the link's address.
const ADVERTISEMENT_SIZE: usize = 32;

/// Who asks for the address of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRequest {
    /// The asker's address on the link.
    pub asker_link: [u8; 6],
    /// The asker's address; 0 from one that only wants to know whether the other one is taken, RFC 5227.
    pub asker: Be32,
    /// Whose address it asks for.
    pub target: Be32,
}

/// What the ARP packet at `network` asks, if it asks.
#[inline(always)]
pub fn arp_request(bytes: &(impl Bytes + ?Sized), network: usize) -> Option<ArpRequest> {
    let arp = bytes.window::<ARP_SIZE>(network)?;
    let asks = raw16::<0, ARP_SIZE>(arp) == ETHERNET_LINK
        && raw16::<2, ARP_SIZE>(arp) == IPV4
        && arp[4] == 6
        && arp[5] == 4
        && raw16::<6, ARP_SIZE>(arp) == REQUEST;
    asks.then(|| ArpRequest {
        asker_link: [arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]],
        asker: Be32::from_raw(raw32::<14, ARP_SIZE>(arp)),
        target: Be32::from_raw(raw32::<24, ARP_SIZE>(arp)),
    })
}

/// Makes an answer of the request at `network`: the target is at `link`. It goes to the asker alone.
#[inline(always)]
pub fn answer_arp(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    request: &ArpRequest,
    link: [u8; 6],
) -> Option<()> {
    let arp = bytes.window_mut::<ARP_SIZE>(network)?;
    set16::<6, ARP_SIZE>(arp, ANSWER);
    arp[8..14].copy_from_slice(&link);
    set32::<14, ARP_SIZE>(arp, request.target.raw());
    arp[18..24].copy_from_slice(&request.asker_link);
    set32::<24, ARP_SIZE>(arp, request.asker.raw());
    set_link_addresses(bytes, link_addresses(request.asker_link, link))
}

/// Whose address the neighbour solicitation inside of `ip` asks for, if it is one: RFC 4861, section 7.1.1.
#[inline(always)]
pub fn solicited(bytes: &(impl Bytes + ?Sized), ip: &Ipv6) -> Option<[u32; 4]> {
    let head = bytes.window::<24>(ip.transport)?;
    let asks = ip.proto == PROTO_ICMP6
        && ip.hops == ON_LINK_HOPS
        && !ip.options
        && ip.total >= IPV6_HEAD + 24
        && head[0] == SOLICITATION
        && head[1] == 0;
    asks.then(|| raw128::<8, 24>(head))
}

/// Length of the IPv6 packet of an advertisement. A solicitation of a host that has no address yet is shorter, and must be given
/// that length first.
pub const ADVERTISED: usize = IPV6_HEAD + ADVERTISEMENT_SIZE;

/// Makes an advertisement of the solicitation at `network`, whose heads said `ip`: `target` is at `link`. The frame then ends
/// at [`ADVERTISED`] after `network`.
#[inline(always)]
pub fn advertise(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    ip: &Ipv6,
    target: [u32; 4],
    link: [u8; 6],
) -> Option<()> {
    let [.., f0, f1, f2, f3, f4, f5] = bytes.get::<12>(0)?;
    let nobody = ip.source == [0; 4];
    // Who has no address yet hears it as one of all: RFC 4861, section 7.2.4.
    let (destination, to, flags) = if nobody {
        let all = [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()];
        (all, [0x33, 0x33, 0, 0, 0, 1], OVERRIDE)
    } else {
        (ip.source, [f0, f1, f2, f3, f4, f5], SOLICITED | OVERRIDE)
    };
    let [l0, l1, l2, l3, l4, l5] = link;
    let pseudo = pseudo6(target, destination, PROTO_ICMP6, short(ADVERTISEMENT_SIZE));
    let icmp = bytes.window_mut::<ADVERTISEMENT_SIZE>(network + IPV6_HEAD)?;
    (icmp[0], icmp[1]) = (ADVERTISEMENT, 0);
    set16::<2, ADVERTISEMENT_SIZE>(icmp, 0);
    set32::<4, ADVERTISEMENT_SIZE>(icmp, (u32::from(flags) << 24).to_be());
    set128::<8, ADVERTISEMENT_SIZE>(icmp, target);
    // Its length is in units of eight bytes.
    (icmp[24], icmp[25]) = (TARGET_LINK_ADDRESS, 1);
    set16::<26, ADVERTISEMENT_SIZE>(icmp, u16::from_ne_bytes([l0, l1]));
    set32::<28, ADVERTISEMENT_SIZE>(icmp, u32::from_ne_bytes([l2, l3, l4, l5]));
    let check = !fold(pseudo + sum_of_part(icmp));
    set16::<2, ADVERTISEMENT_SIZE>(icmp, check);
    let head = Head6 {
        source: target,
        destination,
        proto: PROTO_ICMP6,
        class: 0,
        label: 0,
        hops: ON_LINK_HOPS,
        payload: short(ADVERTISEMENT_SIZE),
    };
    head.write(bytes.window_mut::<IPV6_HEAD>(network)?);
    set_link_addresses(bytes, link_addresses(to, link))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        ipv6,
        samples::{address, faults, pseudo_checksum},
    };

    const VIP_LINK: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

    fn request() -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(b"\x02asker");
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(b"\x02asker");
        frame.extend([10, 0, 0, 1]);
        frame.extend([0; 6]);
        frame.extend([198, 18, 1, 2]);
        frame
    }

    #[test]
    fn an_arp_request_is_answered_to_the_asker_alone() {
        let mut frame = request();
        let asked = arp_request(&frame[..], 14).unwrap();
        assert_eq!(asked.target.host(), 0xc612_0102);
        answer_arp(&mut frame[..], 14, &asked, VIP_LINK).unwrap();
        let mut expect = b"\x02asker".to_vec();
        expect.extend(VIP_LINK);
        expect.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        expect.extend(VIP_LINK);
        expect.extend([198, 18, 1, 2]);
        expect.extend(b"\x02asker");
        expect.extend([10, 0, 0, 1]);
        assert_eq!(frame, expect);
        assert_eq!(arp_request(&frame[..], 14), None, "an answer asks nothing");
    }

    #[test]
    fn what_is_no_request_for_ipv4_on_ethernet_is_none() {
        for at in [15, 17, 18, 19, 21] {
            let mut frame = request();
            frame[at] ^= 0x10;
            assert_eq!(arp_request(&frame[..], 14), None, "{at}");
        }
        assert_eq!(arp_request(&request()[..41], 14), None);
    }

    fn solicitation(source: &str, option: bool) -> Vec<u8> {
        let mut frame = b"\x33\x33\xff\x00\x01\x02\x02asker\x86\xdd".to_vec();
        let (source, destination) = (address(source), address("ff02::1:ff00:102"));
        let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
        let bytes = |words: [u32; 4]| words.map(u32::to_ne_bytes).concat();
        icmp.extend(bytes(address("fd62:6c62:76:1::102")));
        if option {
            icmp.extend(b"\x01\x01\x02asker");
        }
        let check = pseudo_checksum(source, destination, 58, &icmp);
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        frame.extend([0x60, 0, 0, 0, 0, u8::try_from(icmp.len()).unwrap(), 58, 255]);
        frame.extend(bytes(source));
        frame.extend(bytes(destination));
        frame.extend(icmp);
        frame
    }

    fn advertised(frame: &mut Vec<u8>) {
        let ip = ipv6(&frame[..], 14).unwrap();
        let target = solicited(&frame[..], &ip).unwrap();
        assert_eq!(target, address("fd62:6c62:76:1::102"));
        frame.resize(14 + ADVERTISED, 0);
        advertise(&mut frame[..], 14, &ip, target, VIP_LINK).unwrap();
        assert_eq!(faults(frame), Vec::<String>::new());
        assert_eq!(frame[6..12], VIP_LINK);
        assert_eq!(frame[14 + 40 + 26..], VIP_LINK);
        let ip = ipv6(&frame[..], 14).unwrap();
        assert_eq!((ip.source, ip.hops), (target, 255));
    }

    #[test]
    fn a_solicitation_is_answered_to_the_asker() {
        let mut frame = solicitation("fe80::1", true);
        advertised(&mut frame);
        assert_eq!(frame[..6], *b"\x02asker");
        assert_eq!(
            ipv6(&frame[..], 14).unwrap().destination,
            address("fe80::1")
        );
        assert_eq!(frame[54..59], [136, 0, frame[56], frame[57], 0x60]);
    }

    #[test]
    fn who_has_no_address_yet_is_answered_by_a_message_to_all() {
        let mut frame = solicitation("::", false);
        advertised(&mut frame);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(
            ipv6(&frame[..], 14).unwrap().destination,
            address("ff02::1")
        );
        assert_eq!(frame[58], 0x20);
    }

    #[test]
    fn a_solicitation_that_was_routed_is_none() {
        let mut frame = solicitation("fe80::1", true);
        frame[21] = 254;
        let ip = ipv6(&frame[..], 14).unwrap();
        assert_eq!(solicited(&frame[..], &ip), None);
        frame[21] = 255;
        frame[54] = 128;
        assert_eq!(solicited(&frame[..], &ipv6(&frame[..], 14).unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_outside(bytes in prop::collection::vec(any::<u8>(), 0..100), network in 14..23_usize) {
            let mut bytes = bytes;
            if let Some(asked) = arp_request(&bytes[..], network) {
                answer_arp(&mut bytes[..], network, &asked, VIP_LINK).unwrap();
            }
            if let Ok(ip) = ipv6(&bytes[..], network) {
                let _ = solicited(&bytes[..], &ip);
                let _ = advertise(&mut bytes[..], network, &ip, ip.destination, VIP_LINK);
            }
        }
    }
}
