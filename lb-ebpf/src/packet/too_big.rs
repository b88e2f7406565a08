//! Telling the sender of a packet that it is too big: RFC 1191, and RFC 4443, section 3.2.

use lb_common::Be32;

use super::{
    bytes::{Bytes, set16, set32},
    checksum::{fold, sum_of_part},
    heads::{HOPS, Head4, Head6, move_link, pseudo6, short},
    icmp::ICMP_HEAD,
    parse::{IPV4_HEAD, IPV6_HEAD, PROTO_ICMP, PROTO_ICMP6},
};

/// How many bytes of the packet are quoted: more than its heads take up, and a fixed number, since what varies costs
/// the verifier. No packet that is too big is as small.
pub const QUOTED: usize = 128;

/// Room that the IPv4 message needs before a frame.
pub const ROOM4: usize = IPV4_HEAD + ICMP_HEAD;
/// Room that the IPv6 message needs before a frame.
pub const ROOM6: usize = IPV6_HEAD + ICMP_HEAD;

/// Makes a message of an IPv4 packet from `asker` to `source`, whose frame has [`ROOM4`] bytes to spare before it. `network` is where the packet
/// began when the frame had none to spare; the frame then ends [`ROOM4`] and [`QUOTED`] bytes after it. The addresses of
/// the link are the caller's to swap.
#[inline(always)]
pub fn tell_too_big4(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    source: Be32,
    asker: Be32,
    mtu: u16,
) -> Option<()> {
    let quoted = sum_of_part(bytes.window::<QUOTED>(network + ROOM4)?);
    move_link(bytes, network, ROOM4, 0)?;
    let message = bytes.window_mut::<ICMP_HEAD>(network + IPV4_HEAD)?;
    // Destination unreachable, fragmentation needed.
    (message[0], message[1]) = (3, 4);
    set32::<2, ICMP_HEAD>(message, 0);
    set16::<6, ICMP_HEAD>(message, mtu.to_be());
    let check = !fold(quoted + sum_of_part(message));
    set16::<2, ICMP_HEAD>(message, check);
    let head = Head4 {
        source,
        destination: asker,
        proto: PROTO_ICMP,
        class: 0,
        hops: HOPS,
        whole_only: true,
        total: short(ROOM4 + QUOTED),
    };
    head.write(bytes.window_mut::<IPV4_HEAD>(network)?);
    Some(())
}

/// The same for IPv6, with [`ROOM6`].
#[inline(always)]
pub fn tell_too_big6(
    bytes: &mut (impl Bytes + ?Sized),
    network: usize,
    source: [u32; 4],
    asker: [u32; 4],
    mtu: u16,
) -> Option<()> {
    let quoted = sum_of_part(bytes.window::<QUOTED>(network + ROOM6)?);
    move_link(bytes, network, ROOM6, 0)?;
    let payload = short(ICMP_HEAD + QUOTED);
    let pseudo = pseudo6(source, asker, PROTO_ICMP6, payload);
    let message = bytes.window_mut::<ICMP_HEAD>(network + IPV6_HEAD)?;
    // Packet too big.
    (message[0], message[1]) = (2, 0);
    set16::<2, ICMP_HEAD>(message, 0);
    set32::<4, ICMP_HEAD>(message, u32::from(mtu).to_be());
    let check = !fold(pseudo + quoted + sum_of_part(message));
    set16::<2, ICMP_HEAD>(message, check);
    let head = Head6 {
        source,
        destination: asker,
        proto: PROTO_ICMP6,
        class: 0,
        label: 0,
        hops: HOPS,
        payload,
    };
    head.write(bytes.window_mut::<IPV6_HEAD>(network)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        quoted4, quoted6,
        samples::{any_sent, faults},
    };

    proptest! {
        #[test]
        fn the_sender_is_told_with_its_own_packet(sent in any_sent(), mtu: u16) {
            let mut sent = sent;
            sent.payload = vec![9; 1400];
            let network = sent.network();
            let frame = sent.frame();
            let (room, mut bytes) = if sent.v6() {
                let mut bytes = [vec![0; ROOM6], frame.clone()].concat();
                tell_too_big6(&mut bytes[..], network, sent.destination, sent.source, mtu).unwrap();
                (ROOM6, bytes)
            } else {
                let mut bytes = [vec![0; ROOM4], frame.clone()].concat();
                let ends = sent.ends4();
                tell_too_big4(&mut bytes[..], network, ends.destination, ends.source, mtu).unwrap();
                (ROOM4, bytes)
            };
            bytes.truncate(network + room + QUOTED);
            prop_assert_eq!(faults(&bytes), Vec::<String>::new());
            prop_assert_eq!(&bytes[network + room..], &frame[network..network + QUOTED]);
            prop_assert_eq!(&bytes[..network], &frame[..network]);
            prop_assert_eq!(&bytes[network + room - 2..network + room], &mtu.to_be_bytes());
            if sent.v6() {
                let quoted = quoted6(&bytes[..], network + ROOM6).unwrap();
                prop_assert_eq!(quoted.ends, sent.ends6());
                prop_assert_eq!(bytes[network + 40], 2);
            } else {
                let quoted = quoted4(&bytes[..], network + ROOM4).unwrap();
                prop_assert_eq!(quoted.ends, sent.ends4());
                prop_assert_eq!(&bytes[network + 20..network + 22], &[3, 4]);
            }
        }
    }

    #[test]
    fn a_packet_that_is_smaller_than_the_message_is_left_alone() {
        let mut bytes = [0; 14 + ROOM4 + QUOTED - 1];
        let nobody = Be32::from_raw(0);
        assert_eq!(tell_too_big4(&mut bytes[..], 14, nobody, nobody, 1), None);
        assert_eq!(tell_too_big6(&mut bytes[..], 14, [0; 4], [0; 4], 1), None);
    }
}
