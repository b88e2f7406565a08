//! Packets in packets: RFC 2003 for IPv4 in IPv4, RFC 2473 for IPv6 in IPv6, RFC 6040 for what both heads say of
//! congestion.

use lb_common::{Be32, packet::Fate};

use super::{
    bytes::{Bytes, raw16, set16},
    checksum::Delta,
    heads::{HOPS, Head4, Head6, move_link, short},
    parse::{IPV4_HEAD, IPV6_HEAD, PROTO_IPV4, PROTO_IPV6},
};

/// The bits of the class that say something of congestion.
const CONGESTION: u8 = 3;
/// There was some.
const EXPERIENCED: u8 = 3;

/// Puts an IPv4 head around an IPv4 packet whose frame has [`IPV4_HEAD`] bytes to spare before it, and takes `hops` from the
/// packet's time to live. `network` is where the packet began when the frame had none to spare; `length` is the
/// packet's own.
#[inline(always)]
pub fn enclose4(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    length: u16,
    source: Be32,
    destination: Be32,
    hops: u8,
) -> Option<()> {
    let inner = bytes.window_mut::<IPV4_HEAD>(network + IPV4_HEAD)?;
    let class = inner[1];
    age4(inner, hops);
    move_link(bytes, network, IPV4_HEAD, 0)?;
    let head = Head4 {
        source,
        destination,
        proto: PROTO_IPV4,
        class,
        hops: HOPS,
        // A fragment of it could not be opened at the other end.
        whole_only: true,
        total: length.checked_add(short(IPV4_HEAD))?,
    };
    head.write(bytes.window_mut::<IPV4_HEAD>(network)?);
    Some(())
}

/// Puts an IPv6 head around an IPv6 packet whose frame has [`IPV6_HEAD`] bytes to spare before it, and takes `hops` from the
/// packet's hop limit. `label` tells its flow from others for the routers on the way, RFC 6438.
#[inline(always)]
pub fn enclose6(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    length: u16,
    source: [u32; 4],
    destination: [u32; 4],
    label: u32,
    hops: u8,
) -> Option<()> {
    let inner = bytes.window_mut::<IPV6_HEAD>(network + IPV6_HEAD)?;
    let class = class6(inner);
    inner[7] = inner[7].wrapping_sub(hops);
    move_link(bytes, network, IPV6_HEAD, 0)?;
    let head = Head6 {
        source,
        destination,
        proto: PROTO_IPV6,
        class,
        label,
        hops: HOPS,
        payload: length,
    };
    head.write(bytes.window_mut::<IPV6_HEAD>(network)?);
    Some(())
}

/// Prepares an IPv4 packet in an IPv4 packet to lose its outer head, which takes up `outer` bytes from `network` on: that many bytes
/// are then to spare at the frame's beginning.
///
/// # Errors
/// [`Fate::Malformed`]: inside is no IPv4 packet, or one that knows nothing of congestion although there was some.
#[inline(always)]
pub fn open4(bytes: &mut (impl Bytes + ?Sized), network: usize, outer: usize) -> Result<(), Fate> {
    let class = bytes.get::<2>(network).ok_or(Fate::Malformed)?[1];
    let inner = bytes
        .window_mut::<IPV4_HEAD>(network + outer)
        .ok_or(Fate::Malformed)?;
    if inner[0] >> 4 != 4 {
        return Err(Fate::Malformed);
    }
    let before = raw16::<0, IPV4_HEAD>(inner);
    inner[1] = congested(inner[1], class).ok_or(Fate::Malformed)?;
    let after = raw16::<0, IPV4_HEAD>(inner);
    if before != after {
        let delta = Delta::new().replace16(before, after);
        let check = delta.apply(raw16::<10, IPV4_HEAD>(inner));
        set16::<10, IPV4_HEAD>(inner, check);
    }
    move_link(bytes, network, 0, outer).ok_or(Fate::Malformed)
}

/// The same for an IPv6 packet in an IPv6 packet.
///
/// # Errors
/// As for [`open4`].
#[inline(always)]
pub fn open6(bytes: &mut (impl Bytes + ?Sized), network: usize, outer: usize) -> Result<(), Fate> {
    let head = bytes.window::<IPV6_HEAD>(network).ok_or(Fate::Malformed)?;
    let class = class6(head);
    let inner = bytes
        .window_mut::<IPV6_HEAD>(network + outer)
        .ok_or(Fate::Malformed)?;
    if inner[0] >> 4 != 6 {
        return Err(Fate::Malformed);
    }
    let class = congested(class6(inner), class).ok_or(Fate::Malformed)?;
    inner[1] = inner[1] & !(CONGESTION << 4) | (class & CONGESTION) << 4;
    move_link(bytes, network, 0, outer).ok_or(Fate::Malformed)
}

/// Takes `hops` from the time to live of an IPv4 head.
#[inline(always)]
fn age4(head: &mut [u8; IPV4_HEAD], hops: u8) {
    let before = raw16::<8, IPV4_HEAD>(head);
    head[8] = head[8].wrapping_sub(hops);
    let delta = Delta::new().replace16(before, raw16::<8, IPV4_HEAD>(head));
    let check = delta.apply(raw16::<10, IPV4_HEAD>(head));
    set16::<10, IPV4_HEAD>(head, check);
}

#[inline(always)]
fn class6(head: &[u8; IPV6_HEAD]) -> u8 {
    head[0] << 4 | head[1] >> 4
}

/// The class of a packet that leaves a tunnel, from its own and the tunnel's: RFC 6040, figure 4. None if it must be dropped.
#[inline(always)]
const fn congested(inner: u8, outer: u8) -> Option<u8> {
    if outer & CONGESTION != EXPERIENCED {
        // Where the outer head says ECT(1), the inner one's ECT(0) would become that; the path here makes no use of it.
        return Some(inner);
    }
    if inner & CONGESTION == 0 {
        None
    } else {
        Some(inner | EXPERIENCED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        ipv4, ipv6,
        samples::{Sent, address, any_sent, faults},
    };

    fn four(text: &str) -> Be32 {
        Be32::from_raw(address(text)[3])
    }

    /// The frame in a tunnel.
    fn enclosed(sent: &Sent, hops: u8) -> Vec<u8> {
        let frame = sent.frame();
        let length = u16::try_from(frame.len() - sent.network()).unwrap();
        if sent.v6() {
            let mut bytes = [vec![0xee; 40], frame].concat();
            let ends = (address("2001:db8::aa"), address("2001:db8::bb"));
            enclose6(
                &mut bytes[..],
                sent.network(),
                length,
                ends.0,
                ends.1,
                7,
                hops,
            )
            .unwrap();
            bytes
        } else {
            let mut bytes = [vec![0xee; 20], frame].concat();
            let ends = (four("192.0.2.1"), four("192.0.2.2"));
            enclose4(&mut bytes[..], sent.network(), length, ends.0, ends.1, hops).unwrap();
            bytes
        }
    }

    fn opened(sent: &Sent, bytes: &mut [u8]) -> Result<Vec<u8>, Fate> {
        let outer = if sent.v6() { 40 } else { 20 };
        if sent.v6() {
            open6(bytes, sent.network(), outer)?;
        } else {
            open4(bytes, sent.network(), outer)?;
        }
        Ok(bytes[outer..].to_vec())
    }

    #[test]
    fn congestion_in_the_tunnel_reaches_the_receiver() {
        // The class of the packet, that of the tunnel, and what comes out: of both heads the lower two bits.
        for (inner, outer, expect) in [
            (0x20, 0, Some(0x20)),
            (0x20, 1, Some(0x20)),
            (0x20, 3, None),
            (0x21, 3, Some(0x23)),
            (0x22, 3, Some(0x23)),
            (0x23, 0, Some(0x23)),
            (0x22, 2, Some(0x22)),
        ] {
            assert_eq!(congested(inner, outer), expect, "{inner:#x} {outer:#x}");
        }
    }

    #[test]
    fn a_mark_of_congestion_is_written_into_the_packet_with_its_checksum() {
        for sent in [Sent::tcp4(), Sent::tcp6()] {
            let mut sent = sent;
            // With other bits of the class beside those of congestion.
            sent.class = 0b1011_1110;
            let mut bytes = enclosed(&sent, 0);
            let at = sent.network() + 1;
            // The whole class was copied: mark the outer one, and mend its checksum.
            bytes[at] |= if sent.v6() { 0x30 } else { 0x03 };
            sent.class = 0b1011_1111;
            let frame = opened(&sent, &mut bytes).unwrap();
            assert_eq!(faults(&frame), Vec::<String>::new());
            assert_eq!(frame, sent.frame());

            sent.class = 0b1011_1100;
            let mut bytes = enclosed(&sent, 0);
            bytes[at] |= if sent.v6() { 0x30 } else { 0x03 };
            assert_eq!(opened(&sent, &mut bytes), Err(Fate::Malformed));
        }
    }

    #[test]
    fn what_holds_no_packet_is_not_opened() {
        let sent = Sent::tcp4();
        let mut bytes = enclosed(&sent, 0);
        bytes[34] = 0x65;
        assert_eq!(opened(&sent, &mut bytes), Err(Fate::Malformed));
        let mut short = enclosed(&sent, 0);
        short.truncate(53);
        assert_eq!(opened(&sent, &mut short), Err(Fate::Malformed));
    }

    #[test]
    fn a_packet_in_a_tunnel_is_never_fragmented_nor_too_long_for_its_head() {
        let mut frame = [vec![0; 20], Sent::udp4().frame()].concat();
        frame[20 + 20] = 0;
        let mut enclose = |length| {
            let (from, to) = (four("192.0.2.1"), four("192.0.2.2"));
            enclose4(&mut frame[..], 14, length, from, to, 0).map(|()| ipv4(&frame[..], 14))
        };
        assert!(enclose(33).unwrap().unwrap().whole_only);
        assert_eq!(enclose(65_530), None);
    }

    proptest! {
        #[test]
        fn in_and_out_of_a_tunnel_is_the_same_packet_but_for_its_age(sent in any_sent(), hops in 0..2_u8) {
            let mut bytes = enclosed(&sent, hops);
            prop_assert_eq!(faults(&bytes), Vec::<String>::new());
            if sent.v6() {
                let ip = ipv6(&bytes[..], sent.network()).unwrap();
                prop_assert_eq!((ip.destination, ip.proto, ip.hops), (address("2001:db8::bb"), 41, 64));
            } else {
                let ip = ipv4(&bytes[..], sent.network()).unwrap();
                prop_assert_eq!((ip.destination, ip.proto, ip.hops), (four("192.0.2.2"), 4, 64));
            }
            let mut older = sent.clone();
            older.hops -= hops;
            prop_assert_eq!(opened(&sent, &mut bytes).unwrap(), older.frame());
        }

        #[test]
        fn no_bytes_are_read_outside(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            network in prop::sample::select(vec![14_usize, 18, 22]),
            outer in 20..60_usize,
        ) {
            let mut bytes = bytes;
            let _ = open4(&mut bytes[..], network, outer);
            let _ = open6(&mut bytes[..], network, outer);
            let _ = enclose4(&mut bytes[..], network, 9, four("0.0.0.0"), four("0.0.0.0"), 1);
            let _ = enclose6(&mut bytes[..], network, 9, [0; 4], [0; 4], 1, 1);
        }
    }
}
