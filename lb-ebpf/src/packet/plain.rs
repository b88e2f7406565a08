//! Packets of TCP or UDP as nearly all are: without a tag, options or extension headers, and whole. Their heads lie at fixed places.

use lb_common::{Be16, Be32, PROTO_TCP, PROTO_UDP, packet::PortPair};

use super::{
    bytes::{Bytes, raw16, raw32, raw128},
    parse::{ETHERNET, IPV4, IPV4_HEAD, IPV6, IPV6_HEAD},
};

/// What the heads of one say. An address is that of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<A> {
    /// Who sent it.
    pub source: A,
    /// To whom.
    pub destination: A,
    /// The sender's port.
    pub source_port: Be16,
    /// The receiver's port.
    pub destination_port: Be16,
    /// TCP or UDP.
    pub proto: u8,
    /// [`tcp_flag`](super::tcp_flag)s; 0 for UDP.
    pub flags: u8,
    /// Time to live.
    pub hops: u8,
    /// Length of the packet by its head.
    pub total: u32,
}

/// Where the head of IP begins.
pub const PLAIN_NETWORK: usize = ETHERNET;
/// Where the head of TCP or UDP begins behind one of IPv4.
pub const PLAIN_TRANSPORT4: usize = ETHERNET + IPV4_HEAD;
/// Where it begins behind one of IPv6.
pub const PLAIN_TRANSPORT6: usize = ETHERNET + IPV6_HEAD;

/// The heads, up to where that of UDP ends.
const HEADS4: usize = PLAIN_TRANSPORT4 + 8;
const HEADS6: usize = PLAIN_TRANSPORT6 + 8;

/// The destination of a frame without a tag that says it holds IPv4: all that is read of packets that are not ours.
#[inline(always)]
pub fn destination4(bytes: &(impl Bytes + ?Sized)) -> Option<Be32> {
    let head = bytes.window::<PLAIN_TRANSPORT4>(0)?;
    if raw16::<12, PLAIN_TRANSPORT4>(head) != IPV4 {
        return None;
    }
    Some(Be32::from_raw(raw32::<30, PLAIN_TRANSPORT4>(head)))
}

/// Reads such a packet, whatever the frame says that it holds. None is no verdict: [`ipv4`](super::ipv4) gives one.
#[inline(always)]
pub fn plain4(bytes: &(impl Bytes + ?Sized)) -> Option<Plain<Be32>> {
    let heads = bytes.window::<HEADS4>(0)?;
    // The version and the size in one; then neither an offset nor more fragments.
    if raw16::<12, HEADS4>(heads) != IPV4
        || heads[14] != 0x45
        || raw16::<20, HEADS4>(heads) & 0x3fff_u16.to_be() != 0
    {
        return None;
    }
    let total = u32::from(u16::from_be(raw16::<16, HEADS4>(heads)));
    if !holds(bytes, total) {
        return None;
    }
    let proto = heads[23];
    let flags = flags(bytes, HEADS4, proto)?;
    let ports = PortPair::from_raw(raw32::<PLAIN_TRANSPORT4, HEADS4>(heads));
    Some(Plain {
        source: Be32::from_raw(raw32::<26, HEADS4>(heads)),
        destination: Be32::from_raw(raw32::<30, HEADS4>(heads)),
        source_port: ports.first(),
        destination_port: ports.second(),
        proto,
        flags,
        hops: heads[22],
        total,
    })
}

/// The same for IPv6: [`ipv6`](super::ipv6) gives a verdict.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a head is short")]
pub fn plain6(bytes: &(impl Bytes + ?Sized)) -> Option<Plain<[u32; 4]>> {
    let heads = bytes.window::<HEADS6>(0)?;
    if raw16::<12, HEADS6>(heads) != IPV6 || heads[14] >> 4 != 6 {
        return None;
    }
    let total = IPV6_HEAD as u32 + u32::from(u16::from_be(raw16::<18, HEADS6>(heads)));
    if !holds(bytes, total) {
        return None;
    }
    // Any other one is an extension header, or neither TCP nor UDP.
    let proto = heads[20];
    let flags = flags(bytes, HEADS6, proto)?;
    let ports = PortPair::from_raw(raw32::<PLAIN_TRANSPORT6, HEADS6>(heads));
    Some(Plain {
        source: raw128::<22, HEADS6>(heads),
        destination: raw128::<38, HEADS6>(heads),
        source_port: ports.first(),
        destination_port: ports.second(),
        proto,
        flags,
        hops: heads[21],
        total,
    })
}

/// Whether a packet that is so long by its head is there as a whole.
#[inline(always)]
fn holds(bytes: &(impl Bytes + ?Sized), total: u32) -> bool {
    PLAIN_NETWORK + total as usize <= bytes.length()
}

/// The flags of TCP, whose head has four bytes before `at` more than those of UDP; 0 for UDP.
#[inline(always)]
fn flags(bytes: &(impl Bytes + ?Sized), at: usize, proto: u8) -> Option<u8> {
    match proto {
        PROTO_TCP => {
            let rest = bytes.window::<12>(at)?;
            (rest[4] >> 4 >= 5).then_some(rest[5])
        }
        PROTO_UDP => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        Fragment, Ipv4, Ipv6, ipv4, ipv6,
        samples::{Sent, any_sent},
        transport,
    };

    #[test]
    fn a_tcp_head_that_cannot_be_is_not_plain() {
        let mut four = Sent::tcp4().frame();
        assert!(plain4(&four[..]).is_some());
        four[PLAIN_TRANSPORT4 + 12] = 0x40;
        assert_eq!(plain4(&four[..]), None);
        let mut six = Sent::tcp6().frame();
        assert!(plain6(&six[..]).is_some());
        six[PLAIN_TRANSPORT6 + 12] = 0x40;
        assert_eq!(plain6(&six[..]), None);
    }

    #[test]
    fn what_says_that_it_holds_something_else_is_not_plain() {
        let mut six = Sent::udp6().frame();
        assert!(plain6(&six[..]).is_some());
        six[14] = 0x45;
        assert_eq!(plain6(&six[..]), None);
        let mut four = Sent::udp4().frame();
        assert!(plain4(&four[..]).is_some());
        assert_eq!(plain6(&four[..]), None);
        // A tag whose priority and number are like the first bytes of a head.
        four[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(plain4(&four[..]), None);
    }

    #[test]
    fn a_packet_that_is_not_there_as_a_whole_is_not_plain() {
        let (mut four, mut six) = (Sent::udp4().frame(), Sent::udp6().frame());
        (four[17], six[19]) = (four[17] + 1, six[19] + 1);
        assert_eq!(plain4(&four[..]), None);
        assert_eq!(plain6(&six[..]), None);
    }

    #[test]
    fn fragments_are_not_plain() {
        for (cut, whole) in [(0_u16, true), (0x4000, true), (0x2000, false), (1, false)] {
            let mut frame = Sent::udp4().frame();
            frame[20..22].copy_from_slice(&cut.to_be_bytes());
            assert_eq!(plain4(&frame[..]).is_some(), whole, "{cut:x}");
        }
        let frame = Sent::udp6().extended(44, &[0, 0, 1, 0, 0, 0, 1]).frame();
        assert_eq!(plain6(&frame[..]), None);
    }

    /// What the long way reads of a packet whose head of TCP or UDP is at `at`.
    fn long<A>(
        frame: &[u8],
        at: usize,
        (source, destination): (A, A),
        (proto, hops, total): (u8, u8, u32),
    ) -> Plain<A> {
        let head = transport(frame, at, proto).unwrap();
        Plain {
            source,
            destination,
            source_port: head.source,
            destination_port: head.destination,
            proto,
            flags: head.flags,
            hops,
            total,
        }
    }

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_long_one_does(sent in any_sent()) {
            let frame = sent.frame();
            let found = destination4(&frame[..]);
            let tagged = !sent.tags.is_empty();
            prop_assert_eq!(found.is_some(), !sent.v6() && !tagged);
            if found.is_some() {
                let Ipv4 { source, destination, proto, hops, total, fragment, options, .. } =
                    ipv4(&frame[..], ETHERNET).unwrap();
                prop_assert_eq!(found, Some(destination));
                let wanted = (!options && fragment == Fragment::Whole).then(|| {
                    long(&frame, PLAIN_TRANSPORT4, (source, destination), (proto, hops, total.into()))
                });
                prop_assert_eq!(plain4(&frame[..]), wanted);
            }
            let wanted = (sent.v6() && !tagged).then(|| {
                let Ipv6 { source, destination, proto, hops, total, options, .. } =
                    ipv6(&frame[..], ETHERNET).unwrap();
                (!options).then(|| {
                    let total = u32::try_from(total).unwrap();
                    long(&frame, PLAIN_TRANSPORT6, (source, destination), (proto, hops, total))
                })
            });
            prop_assert_eq!(plain6(&frame[..]), wanted.flatten());
        }

        #[test]
        fn nothing_is_read_behind_the_end(frame in prop::collection::vec(any::<u8>(), 0..96)) {
            let mut six = frame.clone();
            if six.len() > 20 {
                six[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                six[20] = PROTO_TCP;
            }
            let _ = (destination4(&frame[..]), plain4(&frame[..]), plain6(&six[..]));
        }
    }
}
