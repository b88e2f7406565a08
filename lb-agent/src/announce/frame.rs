//! Frames of ARP (RFC 826) and neighbour discovery (RFC 4861): read, and made. Pure.
//!
//! A question that is not as the RFCs have it is none. Whoever asks is answered alone; announcements go to everybody.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use socket2::SockFilter;

/// The address of a network card.
pub(super) type Mac = [u8; 6];

/// Bytes of a frame of ARP, without what the card adds to fill it up.
pub(super) const ARP_BYTES: usize = 42;
/// Bytes of an advertisement with its frame.
pub(super) const NDP_BYTES: usize = 86;

/// Who has an IPv4 address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArpQuestion {
    /// The address that is asked for.
    pub(super) target: Ipv4Addr,
    /// Who asks; unspecified for one who is about to take the address.
    sender: Ipv4Addr,
    mac: Mac,
}

/// Who has an IPv6 address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NdpQuestion {
    /// The address that is asked for.
    pub(super) target: Ipv6Addr,
    /// Who asks; unspecified for one who is about to take the address.
    sender: Ipv6Addr,
    mac: Mac,
}

const EVERYBODY: Mac = [0xff; 6];
const NOBODY: Mac = [0; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The question in a frame, if it is one of ARP.
pub(super) fn arp_question(frame: &[u8]) -> Option<ArpQuestion> {
    let frame: &[u8; ARP_BYTES] = frame.first_chunk()?;
    let asks = frame[12..14] == TYPE_ARP && frame[14..20] == ARP_KIND && frame[20..22] == REQUEST;
    let question = ArpQuestion {
        mac: at(frame, 22)?,
        sender: Ipv4Addr::from(at::<4>(frame, 28)?),
        target: Ipv4Addr::from(at::<4>(frame, 38)?),
    };
    // Who announces an address asks for nothing.
    let announces = question.sender == question.target;
    (asks && !announces && is_of_one(question.mac)).then_some(question)
}

/// Who says in a frame that it has which address, if it is an announcement by ARP.
pub(super) fn arp_claim(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let frame: &[u8; ARP_BYTES] = frame.first_chunk()?;
    let (sender, target) = (at::<4>(frame, 28)?, at::<4>(frame, 38)?);
    let claims = frame[12..14] == TYPE_ARP && frame[14..20] == ARP_KIND && sender == target;
    claims.then_some((Ipv4Addr::from(sender), at(frame, 22)?))
}

/// Tells who asks that `mac` has the address.
pub(super) fn arp_answer(question: &ArpQuestion, mac: Mac) -> [u8; ARP_BYTES] {
    let to = (question.mac, question.sender);
    arp(question.mac, mac, REPLY, question.target, to)
}

/// Tells everybody that `mac` has the address: in the form of a request (RFC 5227, 3), which all understand.
pub(super) fn arp_announcement(address: Ipv4Addr, mac: Mac) -> [u8; ARP_BYTES] {
    arp(EVERYBODY, mac, REQUEST, address, (NOBODY, address))
}

fn arp(
    to: Mac,
    mac: Mac,
    operation: [u8; 2],
    address: Ipv4Addr,
    target: (Mac, Ipv4Addr),
) -> [u8; ARP_BYTES] {
    let mut frame = [0; ARP_BYTES];
    put(&mut frame, 0, &to);
    put(&mut frame, 6, &mac);
    put(&mut frame, 12, &TYPE_ARP);
    put(&mut frame, 14, &ARP_KIND);
    put(&mut frame, 20, &operation);
    put(&mut frame, 22, &mac);
    put(&mut frame, 28, &address.octets());
    put(&mut frame, 32, &target.0);
    put(&mut frame, 38, &target.1.octets());
    frame
}

/// The question in a frame, if it is a neighbour solicitation as RFC 4861, 7.1.1 has it, without extension headers.
pub(super) fn ndp_question(frame: &[u8]) -> Option<NdpQuestion> {
    let (head, packet) = frame.split_first_chunk::<14>()?;
    let length = usize::from(u16::from_be_bytes(at(packet, 4)?));
    let message = packet.get(40..)?.get(..length)?;
    let is_ours = head[12..14] == TYPE_IPV6
        && packet[0] >> 4 == 6
        && packet[6] == ICMPV6
        // Nobody beyond a router sent it.
        && packet[7] == 255;
    let (source, destination) = (at::<16>(packet, 8)?, at::<16>(packet, 24)?);
    let asks = message.get(..2)? == [SOLICITATION, 0];
    let target = Ipv6Addr::from(at::<16>(message, 8)?);
    if !is_ours || !asks || target.is_multicast() || checksum(source, destination, message) != 0 {
        return None;
    }
    let sender = Ipv6Addr::from(source);
    let mac = match sender.is_unspecified() {
        true => NOBODY,
        false => link_address(message.get(24..)?).unwrap_or(at(head, 6)?),
    };
    let is_anybody = sender.is_unspecified() || is_of_one(mac);
    is_anybody.then_some(NdpQuestion {
        target,
        sender,
        mac,
    })
}

/// The option of a solicitation that says where its sender is (RFC 4861, 4.6.1).
fn link_address(mut options: &[u8]) -> Option<Mac> {
    loop {
        let (&kind, &words) = (options.first()?, options.get(1)?);
        if words == 0 {
            return None;
        }
        if (kind, words) == (1, 1) {
            return at(options, 2);
        }
        options = options.get(usize::from(words) * 8..)?;
    }
}

/// Tells who asks that `mac` has the address. One who is about to take it has none to be answered at, so all are told.
pub(super) fn ndp_answer(question: &NdpQuestion, mac: Mac) -> [u8; NDP_BYTES] {
    match question.sender.is_unspecified() {
        true => ndp_announcement(question.target, mac),
        false => {
            let (to, flags) = ((question.mac, question.sender), SOLICITED | OVERRIDE);
            advertisement(to, mac, question.target, flags)
        }
    }
}

/// Tells everybody that `mac` has the address (RFC 4861, 7.2.6).
pub(super) fn ndp_announcement(address: Ipv6Addr, mac: Mac) -> [u8; NDP_BYTES] {
    advertisement((multicast(ALL_NODES), ALL_NODES), mac, address, OVERRIDE)
}

fn advertisement(to: (Mac, Ipv6Addr), mac: Mac, address: Ipv6Addr, flags: u8) -> [u8; NDP_BYTES] {
    let mut message = [0; 32];
    message[0] = ADVERTISEMENT;
    message[4] = flags;
    put(&mut message, 8, &address.octets());
    // The option of the target's link-layer address, one unit of eight bytes long.
    put(&mut message, 24, &[2, 1]);
    put(&mut message, 26, &mac);
    let sum = checksum(address.octets(), to.1.octets(), &message);
    put(&mut message, 2, &sum.to_be_bytes());
    let mut frame = [0; NDP_BYTES];
    put(&mut frame, 0, &to.0);
    put(&mut frame, 6, &mac);
    put(&mut frame, 12, &TYPE_IPV6);
    put(&mut frame, 14, &[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    put(&mut frame, 22, &address.octets());
    put(&mut frame, 38, &to.1.octets());
    put(&mut frame, 54, &message);
    frame
}

/// The group that questions for an address are sent to (RFC 4291, 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    Ipv6Addr::from_bits(group.to_bits() | address.to_bits() & 0xff_ffff)
}

/// Where frames for a group go (RFC 2464, 7).
fn multicast(group: Ipv6Addr) -> Mac {
    let last = group.octets();
    [0x33, 0x33, last[12], last[13], last[14], last[15]]
}

/// Neither several nor nobody.
fn is_of_one(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != NOBODY
}

/// The Internet checksum of an ICMPv6 message with its pseudo-header (RFC 8200, 8.1); 0 for one that has the right sum in it.
fn checksum(source: [u8; 16], destination: [u8; 16], message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let words = bytes.chunks(2);
        let word = |it: &[u8]| u64::from(it[0]) << 8 | u64::from(it.get(1).copied().unwrap_or(0));
        words.map(word).sum()
    };
    let head = message.len() as u64 + u64::from(ICMPV6);
    let mut sum = words(&source) + words(&destination) + words(message) + head;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Sixteen bits are left.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn put(bytes: &mut [u8], offset: usize, what: &[u8]) {
    bytes[offset..offset + what.len()].copy_from_slice(what);
}

// Opcodes of the classic packet filter (linux/filter.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A test of a filter: how to load, from where, what to mask it with, and what it must be.
type Test = (u16, u32, u32, u32);

/// Lets through what meets all `tests`.
fn filter(tests: &[Test]) -> Vec<SockFilter> {
    let mut program = Vec::new();
    let mut left = tests
        .iter()
        .map(|it| 2 + usize::from(it.2 != u32::MAX))
        .sum::<usize>();
    for &(load, offset, mask, value) in tests {
        program.push(SockFilter::new(load, 0, 0, offset));
        left -= 2;
        if mask != u32::MAX {
            program.push(SockFilter::new(AND, 0, 0, mask));
            left -= 1;
        }
        // Over the rest and over the acceptance. There are far fewer than 255 steps.
        let away = u8::try_from(left + 1).unwrap_or(u8::MAX);
        program.push(SockFilter::new(JUMP_IF_EQUAL, 0, away, value));
    }
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program.extend(nothing());
    program
}

/// Lets nothing through.
pub(super) fn nothing() -> Vec<SockFilter> {
    vec![SockFilter::new(RETURN, 0, 0, 0)]
}

/// Lets questions for addresses of `pool` through.
pub(super) fn arp_filter(pool: Ipv4Net) -> Vec<SockFilter> {
    filter(&arp_tests(pool))
}

fn arp_tests(pool: Ipv4Net) -> [Test; 3] {
    let (network, mask) = (pool.network().to_bits(), pool.netmask().to_bits());
    [
        (LOAD_HALF, 12, u32::MAX, 0x0806),
        (LOAD_HALF, 20, u32::MAX, 1),
        (LOAD_WORD, 38, mask, network),
    ]
}

/// Lets questions for addresses of `pool` through, whose prefix is /64 or longer.
pub(super) fn ndp_filter(pool: Ipv6Net) -> Vec<SockFilter> {
    filter(&ndp_tests(pool))
}

fn ndp_tests(pool: Ipv6Net) -> [Test; 6] {
    let octets = pool.network().octets();
    let word = |from: usize| {
        let octets = &octets[from..];
        u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]])
    };
    [
        (LOAD_HALF, 12, u32::MAX, 0x86dd),
        (LOAD_BYTE, 20, u32::MAX, u32::from(ICMPV6)),
        (LOAD_BYTE, 21, u32::MAX, 255),
        (LOAD_BYTE, 54, u32::MAX, u32::from(SOLICITATION)),
        (LOAD_WORD, 62, u32::MAX, word(0)),
        (LOAD_WORD, 66, u32::MAX, word(4)),
    ]
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
