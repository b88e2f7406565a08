//! The answer to a TCP packet that nobody takes: RFC 9293, section 3.10.7.1.

use lb_common::{Be16, PROTO_TCP};

use super::{
    bytes::{Bytes, raw32, set16, set32},
    checksum::{fold, sum_of_part},
    heads::{HOPS, Head4, Head6, pseudo4, pseudo6, short},
    parse::{
        IPV4_HEAD, IPV6_HEAD,
        tcp_flag::{ACK, FIN, RST, SYN},
    },
    rewrite::{Ends4, Ends6, Places},
};

/// Length of a TCP head without options.
pub const TCP_HEAD: usize = 20;

/// What a reset says, besides its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Reset {
    /// The reset that answers the TCP packet at `places`, whose length is `total` by its head. None if it is a reset itself.
    #[inline(always)]
    pub fn answering(bytes: &(impl Bytes + ?Sized), places: Places, total: usize) -> Option<Self> {
        let head = bytes.window::<TCP_HEAD>(places.transport)?;
        let flags = head[13];
        if flags & RST != 0 {
            return None;
        }
        if flags & ACK != 0 {
            return Some(Self {
                sequence: u32::from_be(raw32::<8, TCP_HEAD>(head)),
                acknowledgement: 0,
                flags: RST,
            });
        }
        let heads = places.transport - places.network + usize::from(head[12] >> 4) * 4;
        #[expect(clippy::cast_possible_truncation, reason = "sequences are modulo 2^32")]
        let payload = total.saturating_sub(heads) as u32;
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let sequence = u32::from_be(raw32::<4, TCP_HEAD>(head));
        Some(Self {
            sequence: 0,
            acknowledgement: sequence.wrapping_add(payload).wrapping_add(controls),
            flags: RST | ACK,
        })
    }

    /// Its sequence number, its acknowledgement and its flags.
    #[inline(always)]
    pub const fn says(&self) -> (u32, u32, u8) {
        (self.sequence, self.acknowledgement, self.flags)
    }

    /// Writes its TCP head; `pseudo` is the sum of its pseudo head.
    #[inline(always)]
    fn write(&self, head: &mut [u8; TCP_HEAD], source: Be16, destination: Be16, pseudo: u64) {
        set16::<0, TCP_HEAD>(head, source.raw());
        set16::<2, TCP_HEAD>(head, destination.raw());
        set32::<4, TCP_HEAD>(head, self.sequence.to_be());
        set32::<8, TCP_HEAD>(head, self.acknowledgement.to_be());
        head[12] = 0x50;
        head[13] = self.flags;
        // The window, the checksum and the urgent pointer.
        set16::<14, TCP_HEAD>(head, 0);
        set32::<16, TCP_HEAD>(head, 0);
        let check = !fold(pseudo + sum_of_part(head));
        set16::<16, TCP_HEAD>(head, check);
    }

    /// Writes it over the IPv4 packet at `network` that it answers, whose ends are `asked`. The frame then ends at
    /// [`Reset::END4`] after `network`, and its link's addresses are the caller's to swap.
    #[inline(always)]
    pub fn write4(
        &self,
        bytes: &mut (impl Bytes + ?Sized),
        network: usize,
        asked: &Ends4,
    ) -> Option<()> {
        let ends = asked.reversed();
        let pseudo = pseudo4(ends.source, ends.destination, PROTO_TCP, short(TCP_HEAD));
        let head = bytes.window_mut::<TCP_HEAD>(network + IPV4_HEAD)?;
        self.write(head, ends.source_port, ends.destination_port, pseudo);
        let head = Head4 {
            source: ends.source,
            destination: ends.destination,
            proto: PROTO_TCP,
            class: 0,
            hops: HOPS,
            whole_only: true,
            total: short(Self::END4),
        };
        head.write(bytes.window_mut::<IPV4_HEAD>(network)?);
        Some(())
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn write6(
        &self,
        bytes: &mut (impl Bytes + ?Sized),
        network: usize,
        asked: &Ends6,
    ) -> Option<()> {
        let ends = asked.reversed();
        let pseudo = pseudo6(ends.source, ends.destination, PROTO_TCP, short(TCP_HEAD));
        let head = bytes.window_mut::<TCP_HEAD>(network + IPV6_HEAD)?;
        self.write(head, ends.source_port, ends.destination_port, pseudo);
        let head = Head6 {
            source: ends.source,
            destination: ends.destination,
            proto: PROTO_TCP,
            class: 0,
            label: 0,
            hops: HOPS,
            payload: short(TCP_HEAD),
        };
        head.write(bytes.window_mut::<IPV6_HEAD>(network)?);
        Some(())
    }

    /// Length of the IPv4 packet of a reset.
    pub const END4: usize = IPV4_HEAD + TCP_HEAD;
    /// Length of the IPv6 packet of a reset.
    pub const END6: usize = IPV6_HEAD + TCP_HEAD;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::samples::{Sent, any_sent, faults};

    /// The sequence, the acknowledgement and the flags.
    fn says(frame: &[u8], transport: usize) -> (u32, u32, u8) {
        let head = frame.window::<TCP_HEAD>(transport).unwrap();
        (
            u32::from_be(raw32::<4, TCP_HEAD>(head)),
            u32::from_be(raw32::<8, TCP_HEAD>(head)),
            head[13],
        )
    }

    /// The answer, and what it says by itself.
    fn answer(sent: &Sent) -> Option<(Vec<u8>, (u32, u32, u8))> {
        let mut frame = sent.frame();
        let (network, total) = (sent.network(), frame.len() - sent.network());
        let reset = Reset::answering(&frame[..], sent.places(), total)?;
        if sent.v6() {
            reset
                .write6(&mut frame[..], network, &sent.ends6())
                .unwrap();
            frame.truncate(network + Reset::END6);
        } else {
            reset
                .write4(&mut frame[..], network, &sent.ends4())
                .unwrap();
            frame.truncate(network + Reset::END4);
        }
        Some((frame, reset.says()))
    }

    #[test]
    fn a_reset_says_what_the_packet_it_answers_expects() {
        for (flags, payload, expect) in [
            (SYN, 0, Some((0, 0x0102_0305, RST | ACK))),
            (SYN, 9, Some((0, 0x0102_030e, RST | ACK))),
            (SYN | FIN, 1, Some((0, 0x0102_0307, RST | ACK))),
            (0, 5, Some((0, 0x0102_0309, RST | ACK))),
            (ACK, 5, Some((0x0506_0708, 0, RST))),
            (SYN | ACK, 0, Some((0x0506_0708, 0, RST))),
            (FIN | ACK, 0, Some((0x0506_0708, 0, RST))),
            (RST, 0, None),
            (RST | ACK, 0, None),
        ] {
            for mut sent in [Sent::tcp4(), Sent::tcp6()] {
                sent.flags = flags;
                sent.payload = vec![7; payload];
                let at = if sent.v6() { 54 } else { 34 };
                let answer = answer(&sent);
                let written = answer.as_ref().map(|(frame, _)| says(frame, at));
                assert_eq!(written, expect, "{flags:#x} {payload}");
                let said = answer.map(|(_, said)| said);
                assert_eq!(said, expect, "{flags:#x} {payload}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_reset_comes_from_whom_the_packet_was_for(sent in any_sent().prop_filter("TCP", |it| it.proto == PROTO_TCP)) {
            let Some((frame, _)) = answer(&sent) else {
                prop_assert!(sent.flags & RST != 0);
                return Ok(());
            };
            prop_assert_eq!(faults(&frame), Vec::<String>::new());
            let mut back = sent.clone();
            (back.source, back.destination) = (sent.destination, sent.source);
            (back.source_port, back.destination_port) = (sent.destination_port, sent.source_port);
            (back.hops, back.class) = (64, 0);
            back.options.clear();
            back.extensions.clear();
            back.tcp_options.clear();
            back.payload.clear();
            let like = back.frame();
            prop_assert_eq!(frame.len(), like.len());
            // The addresses and the ports.
            let at = if sent.v6() { sent.network() + 8 } else { sent.network() + 12 };
            let end = if sent.v6() { sent.network() + 44 } else { sent.network() + 24 };
            prop_assert_eq!(&frame[at..end], &like[at..end]);
        }
    }
}
