//! Replacing both ends of a packet in place, where its checksums are whole. Nothing is summed but what changes.

use lb_common::{Be16, Be32, PROTO_TCP, packet::PortPair};

use super::{
    bytes::{Bytes, raw16, raw32, set16, set32, set128},
    checksum::Delta,
    parse::{IPV4_HEAD, IPV6_HEAD},
};

/// Both ends of an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ends4 {
    /// Whom it is from.
    pub source: Be32,
    /// Whom it is for.
    pub destination: Be32,
    /// The sender's port.
    pub source_port: Be16,
    /// The receiver's port.
    pub destination_port: Be16,
}

impl Ends4 {
    /// Both ports.
    #[inline(always)]
    const fn ports(&self) -> PortPair {
        PortPair::new(self.source_port, self.destination_port)
    }

    /// What of a checksum changes when these addresses become others.
    #[inline(always)]
    pub const fn addresses(&self, new: &Self) -> Delta {
        Delta::new()
            .replace32(self.source.raw(), new.source.raw())
            .replace32(self.destination.raw(), new.destination.raw())
    }

    /// The ends of an answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Both ends of an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ends6 {
    /// Whom it is from, as raw integers in network order.
    pub source: [u32; 4],
    /// Whom it is for.
    pub destination: [u32; 4],
    /// The sender's port.
    pub source_port: Be16,
    /// The receiver's port.
    pub destination_port: Be16,
}

impl Ends6 {
    /// Both ports.
    #[inline(always)]
    const fn ports(&self) -> PortPair {
        PortPair::new(self.source_port, self.destination_port)
    }

    /// What of a checksum changes when these addresses become others.
    #[inline(always)]
    pub const fn addresses(&self, new: &Self) -> Delta {
        Delta::new()
            .replace128(self.source, new.source)
            .replace128(self.destination, new.destination)
    }

    /// The ends of an answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Where heads of a packet begin, and what the inner one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The head of IPv4 or IPv6.
    pub network: usize,
    /// The head of TCP or UDP.
    pub transport: usize,
    /// Which of both.
    pub proto: u8,
}

/// Makes `new` of the ends of an IPv4 packet, which are `old`, and takes `hops` from its time to live, which is greater. None, and
/// nothing was written: the packet has no room for its heads.
#[inline(always)]
pub fn rewrite4(
    bytes: &mut (impl Bytes + ?Sized),
    places: Places,
    old: &Ends4,
    new: &Ends4,
    hops: u8,
) -> Option<()> {
    let addresses = old.addresses(new);
    let ports = new.ports();
    let delta = with_ports(addresses, old.ports(), ports);
    rewrite_transport(bytes, places, ports, delta)?;
    let head = bytes.window_mut::<IPV4_HEAD>(places.network)?;
    let life = raw16::<8, IPV4_HEAD>(head);
    head[8] = head[8].wrapping_sub(hops);
    let delta = addresses.replace16(life, raw16::<8, IPV4_HEAD>(head));
    let check = delta.apply(raw16::<10, IPV4_HEAD>(head));
    set16::<10, IPV4_HEAD>(head, check);
    set32::<12, IPV4_HEAD>(head, new.source.raw());
    set32::<16, IPV4_HEAD>(head, new.destination.raw());
    Some(())
}

/// The same for IPv6, whose own head has no checksum.
#[inline(always)]
pub fn rewrite6(
    bytes: &mut (impl Bytes + ?Sized),
    places: Places,
    old: &Ends6,
    new: &Ends6,
    hops: u8,
) -> Option<()> {
    let addresses = old.addresses(new);
    let ports = new.ports();
    let delta = with_ports(addresses, old.ports(), ports);
    rewrite_transport(bytes, places, ports, delta)?;
    let head = bytes.window_mut::<IPV6_HEAD>(places.network)?;
    head[7] = head[7].wrapping_sub(hops);
    set128::<8, IPV6_HEAD>(head, new.source);
    set128::<24, IPV6_HEAD>(head, new.destination);
    Some(())
}

/// What of a checksum changes when ports do, too.
#[inline(always)]
const fn with_ports(addresses: Delta, old: PortPair, new: PortPair) -> Delta {
    addresses.replace32(old.raw(), new.raw())
}

#[inline(always)]
fn rewrite_transport(
    bytes: &mut (impl Bytes + ?Sized),
    places: Places,
    new: PortPair,
    delta: Delta,
) -> Option<()> {
    if places.proto == PROTO_TCP {
        let head = bytes.window_mut::<18>(places.transport)?;
        let check = delta.apply(raw16::<16, 18>(head));
        set16::<16, 18>(head, check);
        set32::<0, 18>(head, new.raw());
    } else {
        let head = bytes.window_mut::<8>(places.transport)?;
        let check = delta.apply_udp(raw16::<6, 8>(head));
        set16::<6, 8>(head, check);
        set32::<0, 8>(head, new.raw());
    }
    Some(())
}

/// Writes whom a frame is for and whom it is from, which are one after the other: as three integers that are not swapped.
#[inline(always)]
pub fn set_link_addresses(bytes: &mut (impl Bytes + ?Sized), both: [u32; 3]) -> Option<()> {
    let head = bytes.window_mut::<12>(0)?;
    set32::<0, 12>(head, both[0]);
    set32::<4, 12>(head, both[1]);
    set32::<8, 12>(head, both[2]);
    Some(())
}

/// The addresses of a frame in that form.
#[inline(always)]
pub const fn link_addresses(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
    let [d0, d1, d2, d3, d4, d5] = destination;
    let [s0, s1, s2, s3, s4, s5] = source;
    [
        u32::from_ne_bytes([d0, d1, d2, d3]),
        u32::from_ne_bytes([d4, d5, s0, s1]),
        u32::from_ne_bytes([s2, s3, s4, s5]),
    ]
}

/// Sends a frame back to whom it is from.
#[inline(always)]
pub fn swap_link_addresses(bytes: &mut (impl Bytes + ?Sized)) -> Option<()> {
    let head = bytes.window_mut::<12>(0)?;
    let (to, to_end) = (raw32::<0, 12>(head), raw16::<4, 12>(head));
    let (from, from_end) = (raw32::<6, 12>(head), raw16::<10, 12>(head));
    set32::<0, 12>(head, from);
    set16::<4, 12>(head, from_end);
    set32::<6, 12>(head, to);
    set16::<10, 12>(head, to_end);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::samples::{Sent, any_sent, faults};

    /// Makes the ends of `from` those of `to`.
    fn rewrite(frame: &mut [u8], from: &Sent, to: &Sent, hops: u8) -> Option<()> {
        if from.v6() {
            rewrite6(frame, from.places(), &from.ends6(), &to.ends6(), hops)
        } else {
            rewrite4(frame, from.places(), &from.ends4(), &to.ends4(), hops)
        }
    }

    /// The same packet with the ends of another one of its family.
    fn with_ends(sent: &Sent, other: &Sent) -> Sent {
        let mut new = sent.clone();
        new.source_port = other.source_port;
        new.destination_port = other.destination_port;
        if sent.v6() == other.v6() {
            new.source = other.source;
            new.destination = other.destination;
        }
        new
    }

    #[test]
    fn a_checksum_that_udp_does_not_have_stays_away() {
        let mut sent = Sent::udp4();
        let mut frame = sent.frame();
        frame[40..42].fill(0);
        let mut to = sent.clone();
        to.source_port = Be16::from_host(61_000);
        rewrite(&mut frame, &sent, &to, 0).unwrap();
        assert_eq!(frame[40..42], [0, 0]);
        sent.source_port = to.source_port;
        assert_eq!(frame[34..38], sent.frame()[34..38]);
    }

    #[test]
    fn the_addresses_of_a_frame_are_written_and_swapped() {
        let mut frame = Sent::tcp4().frame();
        let both = link_addresses(*b"toTOto", *b"frFRfr");
        set_link_addresses(&mut frame[..], both).unwrap();
        assert_eq!(&frame[..12], b"toTOtofrFRfr");
        swap_link_addresses(&mut frame[..]).unwrap();
        assert_eq!(&frame[..12], b"frFRfrtoTOto");
        assert_eq!(set_link_addresses(&mut frame[..11], both), None);
        assert_eq!(swap_link_addresses(&mut frame[..11]), None);
    }

    proptest! {
        #[test]
        fn a_rewritten_packet_is_the_one_that_the_new_ends_would_send(
            sent in any_sent(), other in any_sent(), hops in 0..2_u8,
        ) {
            let mut to = with_ends(&sent, &other);
            let mut frame = sent.frame();
            prop_assert_eq!(faults(&frame), Vec::<String>::new());
            rewrite(&mut frame, &sent, &to, hops).unwrap();
            to.hops -= hops;
            prop_assert_eq!(faults(&frame), Vec::<String>::new());
            prop_assert_eq!(frame, to.frame());
        }

        #[test]
        fn there_and_back_is_the_same_packet(sent in any_sent(), other in any_sent()) {
            let to = with_ends(&sent, &other);
            let mut frame = sent.frame();
            rewrite(&mut frame, &sent, &to, 0).unwrap();
            rewrite(&mut frame, &to, &sent, 0).unwrap();
            prop_assert_eq!(frame, sent.frame());
        }

        #[test]
        fn a_packet_that_is_cut_off_is_left_alone(sent in any_sent(), cut in any::<prop::sample::Index>()) {
            let heads = sent.transport() + if sent.proto == PROTO_TCP { 18 } else { 8 };
            let mut frame = sent.frame();
            frame.truncate(cut.index(heads));
            let before = frame.clone();
            prop_assert_eq!(rewrite(&mut frame, &sent, &sent, 1), None);
            prop_assert_eq!(frame, before);
        }
    }
}
