//! New heads, for packets that a program sends itself, and for tunnels.

use lb_common::Be32;

use super::{
    bytes::{Bytes, raw16, raw32, set16, set32, set128},
    checksum::{fold, sum_of_part},
    parse::{ETHERNET, IPV4_HEAD, IPV6_HEAD},
};

/// Time to live of what a program sends itself: RFC 1700's recommendation.
pub(crate) const HOPS: u8 = 64;

/// A length as heads have it, of parts that are known when this is compiled.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "heads are short")]
pub(crate) const fn short(length: usize) -> u16 {
    length as u16
}

/// An IPv4 head without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head4 {
    /// Whom it is from.
    pub source: Be32,
    /// Whom it is for.
    pub destination: Be32,
    /// What is inside.
    pub proto: u8,
    /// How it is to be treated: six bits of class, two of congestion.
    pub class: u8,
    /// Time to live.
    pub hops: u8,
    /// Whether nobody may fragment it.
    pub whole_only: bool,
    /// Length of the packet.
    pub total: u16,
}

impl Head4 {
    /// Writes it into a packet, with its checksum. The identification is 0: RFC 6864, section 4.1, lets it be anything where nobody
    /// fragments, and where somebody may, the kernel gives the packet one.
    #[inline(always)]
    pub fn write(&self, head: &mut [u8; IPV4_HEAD]) {
        head[0] = 0x45;
        head[1] = self.class;
        set16::<2, IPV4_HEAD>(head, self.total.to_be());
        set16::<4, IPV4_HEAD>(head, 0);
        let whole_only = if self.whole_only { 0x4000_u16 } else { 0 };
        set16::<6, IPV4_HEAD>(head, whole_only.to_be());
        head[8] = self.hops;
        head[9] = self.proto;
        set16::<10, IPV4_HEAD>(head, 0);
        set32::<12, IPV4_HEAD>(head, self.source.raw());
        set32::<16, IPV4_HEAD>(head, self.destination.raw());
        let check = !fold(sum_of_part(head));
        set16::<10, IPV4_HEAD>(head, check);
    }
}

/// An IPv6 head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head6 {
    /// Whom it is from, as raw integers in network order.
    pub source: [u32; 4],
    /// Whom it is for.
    pub destination: [u32; 4],
    /// What is inside.
    pub proto: u8,
    /// How it is to be treated: six bits of class, two of congestion.
    pub class: u8,
    /// What tells flows apart for routers, of which the lower 20 bits count.
    pub label: u32,
    /// Hop limit.
    pub hops: u8,
    /// Length of what is inside.
    pub payload: u16,
}

impl Head6 {
    /// Writes it into a packet.
    #[inline(always)]
    pub fn write(&self, head: &mut [u8; IPV6_HEAD]) {
        let first = 6 << 28 | u32::from(self.class) << 20 | self.label & 0xf_ffff;
        set32::<0, IPV6_HEAD>(head, first.to_be());
        set16::<4, IPV6_HEAD>(head, self.payload.to_be());
        head[6] = self.proto;
        head[7] = self.hops;
        set128::<8, IPV6_HEAD>(head, self.source);
        set128::<24, IPV6_HEAD>(head, self.destination);
    }
}

/// The sum of the pseudo head of what is inside.
#[inline(always)]
pub(crate) fn pseudo4(source: Be32, destination: Be32, proto: u8, length: u16) -> u64 {
    u64::from(source.raw())
        + u64::from(destination.raw())
        + u64::from(u16::from(proto).to_be())
        + u64::from(length.to_be())
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn pseudo6(source: [u32; 4], destination: [u32; 4], proto: u8, length: u16) -> u64 {
    let [s0, s1, s2, s3] = source.map(u64::from);
    let [d0, d1, d2, d3] = destination.map(u64::from);
    let ends = s0 + s1 + s2 + s3 + d0 + d1 + d2 + d3;
    ends + u64::from(u16::from(proto).to_be()) + u64::from(length.to_be())
}

/// Copies the link's head, whose length is `network`, from one place to another. By words and without a copy on the stack: both places
/// may overlap.
#[inline(always)]
pub fn move_link(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    from: usize,
    to: usize,
) -> Option<()> {
    const TAGGED: usize = ETHERNET + 4;
    const TWICE: usize = ETHERNET + 8;
    let (mut first, mut second) = (0, 0);
    if network == TWICE {
        let tags = bytes.window::<8>(from + ETHERNET)?;
        (first, second) = (raw32::<0, 8>(tags), raw32::<4, 8>(tags));
    } else if network == TAGGED {
        first = raw32::<0, 4>(bytes.window::<4>(from + ETHERNET)?);
    } else if network != ETHERNET {
        return None;
    }
    let head = bytes.window::<ETHERNET>(from)?;
    let words = [
        raw32::<0, ETHERNET>(head),
        raw32::<4, ETHERNET>(head),
        raw32::<8, ETHERNET>(head),
    ];
    let kind = raw16::<12, ETHERNET>(head);
    let head = bytes.window_mut::<ETHERNET>(to)?;
    set32::<0, ETHERNET>(head, words[0]);
    set32::<4, ETHERNET>(head, words[1]);
    set32::<8, ETHERNET>(head, words[2]);
    set16::<12, ETHERNET>(head, kind);
    if network == TWICE {
        let tags = bytes.window_mut::<8>(to + ETHERNET)?;
        set32::<0, 8>(tags, first);
        set32::<4, 8>(tags, second);
    } else if network == TAGGED {
        set32::<0, 4>(bytes.window_mut::<4>(to + ETHERNET)?, first);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{
        ipv4, ipv6,
        samples::{address, checksum},
    };

    #[test]
    fn a_head_says_what_it_was_made_of() {
        let [.., source] = address("10.0.0.1");
        let [.., destination] = address("10.0.0.2");
        let head = Head4 {
            source: Be32::from_raw(source),
            destination: Be32::from_raw(destination),
            proto: 4,
            class: 0xb9,
            hops: 64,
            whole_only: true,
            total: 1234,
        };
        let mut bytes = [0xee; IPV4_HEAD];
        head.write(&mut bytes);
        assert_eq!(checksum(&[&bytes]), 0);
        let ip = ipv4(&bytes[..], 0).unwrap();
        assert_eq!((ip.source, ip.destination), (head.source, head.destination));
        assert_eq!((ip.proto, ip.total, ip.hops), (4, 1234, 64));
        assert!(ip.whole_only && bytes[1] == 0xb9);

        let head = Head6 {
            source: address("2001:db8::1"),
            destination: address("2001:db8::2"),
            proto: 41,
            class: 0xb9,
            label: 0xfff1_2345,
            hops: 3,
            payload: 1000,
        };
        let mut bytes = [0xee; IPV6_HEAD];
        head.write(&mut bytes);
        assert_eq!(bytes[..4], [0x6b, 0x91, 0x23, 0x45]);
        let ip = ipv6(&bytes[..], 0).unwrap();
        assert_eq!((ip.source, ip.destination), (head.source, head.destination));
        assert_eq!((ip.proto, ip.total, ip.hops), (41, 1040, 3));
    }

    #[test]
    fn the_head_of_a_link_moves_with_its_tags() {
        let before: Vec<u8> = (0..60).collect();
        for (network, moved) in [(14, true), (18, true), (22, true), (16, false), (26, false)] {
            // Both places may overlap, either way.
            for (from, to) in [(20, 0), (4, 0), (0, 4), (0, 20)] {
                let mut frame = before.clone();
                let done = move_link(&mut frame[..], network, from, to);
                assert_eq!(done.is_some(), moved, "{network}");
                let mut expect = before.clone();
                if moved {
                    expect[to..to + network].copy_from_slice(&before[from..from + network]);
                }
                assert_eq!(frame, expect, "{network} from {from} to {to}");
            }
        }
    }
}
