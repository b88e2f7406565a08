//! The greatest segment that a side of a TCP flow takes, which a tunnel makes smaller: RFC 9293, section 3.7.1.

use super::{
    bytes::{Bytes, opaque, raw16},
    checksum::Delta,
};

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const GREATEST_SEGMENT: u8 = 2;

/// Most options that are looked at. Everybody sends this one first or second.
const LOOKED_AT: usize = 8;

/// Where a SYN says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreatestSegment {
    /// Where in the packet the two bytes are.
    pub at: usize,
    /// What they say.
    pub bytes: u16,
}

impl GreatestSegment {
    /// What changes in the checksum of the TCP head at `transport` when it becomes `bytes`. At an odd place both bytes change
    /// sides.
    #[inline(always)]
    pub const fn lowered(self, transport: usize, bytes: u16) -> Delta {
        let (old, new) = (self.bytes.to_be(), bytes.to_be());
        if (self.at - transport).is_multiple_of(2) {
            Delta::new().replace16(old, new)
        } else {
            Delta::new().replace16(old.swap_bytes(), new.swap_bytes())
        }
    }
}

/// Where the TCP head at `transport`, one of a SYN, says how great segments may be.
#[inline(always)]
pub fn greatest_segment(
    bytes: &(impl Bytes + ?Sized),
    transport: usize,
) -> Option<GreatestSegment> {
    let size = usize::from(bytes.window::<20>(transport)?[12] >> 4) * 4;
    let mut at = 20;
    for _ in 0..LOOKED_AT {
        if at + 2 > size {
            return None;
        }
        // Bounded for the verifier, which follows no comparison of two variables: a head is at most 60 bytes. The compiler knows that,
        // and must not drop the mask.
        at = opaque(at) & 63;
        let [kind, length] = bytes.get::<2>(transport + at)?;
        match kind {
            END => return None,
            NO_OPERATION => at += 1,
            GREATEST_SEGMENT if length == 4 => {
                if at + 4 > size {
                    return None;
                }
                let option = bytes.window::<4>(transport + at)?;
                return Some(GreatestSegment {
                    at: transport + at + 2,
                    bytes: u16::from_be(raw16::<2, 4>(option)),
                });
            }
            _ if length < 2 => return None,
            _ => at += usize::from(length),
        }
    }
    None
}

/// Lowers it to `most` in a packet whose checksum is whole, by the same two steps as the programs, which write by the kernel's
/// helpers; whether that was necessary.
#[cfg(any(test, fuzzing))]
pub(crate) fn lower(bytes: &mut [u8], transport: usize, most: u16) -> bool {
    let found = greatest_segment(bytes, transport).filter(|it| it.bytes > most);
    let (Some(found), Some(check)) = (found, Bytes::get::<2>(bytes, transport + 16)) else {
        return false;
    };
    let delta = found.lowered(transport, most);
    let check = delta.apply(u16::from_ne_bytes(check));
    bytes.put(transport + 16, check.to_ne_bytes()).is_some()
        && bytes.put(found.at, most.to_be_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::samples::{Sent, faults};

    fn syn(options: &[u8]) -> Sent {
        let mut sent = Sent::tcp4();
        sent.tcp_options = options.to_vec();
        sent
    }

    #[test]
    fn it_is_found_among_other_options() {
        let found = |options: &[u8]| {
            greatest_segment(&syn(options).frame()[..], 34).map(|it| (it.at - 54, it.bytes))
        };
        assert_eq!(found(&[2, 4, 0x05, 0xb4]), Some((2, 1460)));
        assert_eq!(found(&[1, 2, 4, 0x05, 0xb4, 0, 0, 0]), Some((3, 1460)));
        assert_eq!(
            found(&[4, 2, 3, 3, 7, 1, 2, 4, 0x05, 0xb4, 0, 0]),
            Some((8, 1460))
        );
        for none in [
            &[][..],
            &[0, 2, 4, 5],
            &[0, 2, 2, 4, 5, 0xb4, 0, 0],
            &[1, 1, 1, 1],
            &[2, 3, 5, 1],
            &[3, 0, 2, 4],
            &[3, 1, 2, 4],
            &[3, 1, 2, 4, 5, 0xb4, 0, 0],
            &[3, 255, 2, 4],
            // As far as round to itself, if the place were taken modulo 64.
            &[3, 66, 2, 4, 5, 0xb4, 0, 0],
            // The head ends before the option does.
            &[1, 1, 2, 4],
            &[1, 1, 1, 2],
            &[1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 5, 0xb4],
        ] {
            assert_eq!(found(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn a_lower_one_has_the_right_checksum_at_any_place(before in 0..8_usize, bytes: u16, most: u16) {
            let mut options = vec![1; before];
            options.extend([2, 4]);
            options.extend(bytes.to_be_bytes());
            options.resize(options.len().next_multiple_of(4), 0);
            let mut frame = syn(&options).frame();
            let lowered = lower(&mut frame, 34, most);
            prop_assert_eq!(lowered, bytes > most);
            prop_assert_eq!(faults(&frame), Vec::<String>::new());
            let found = greatest_segment(&frame[..], 34).unwrap();
            prop_assert_eq!(found.bytes, bytes.min(most));
        }

        #[test]
        fn any_options_are_read_inside_of_the_packet(
            options in prop::collection::vec(any::<u8>(), 0..=10).prop_map(|it| it.repeat(4)),
            cut in 0..60_usize,
        ) {
            let mut frame = syn(&options).frame();
            frame.truncate(frame.len().saturating_sub(cut));
            let found = greatest_segment(&frame[..], 34);
            prop_assert!(found.is_none_or(|it| it.at + 2 <= frame.len() && it.at >= 54 + 2));
            let _ = lower(&mut frame, 34, 1);
        }
    }
}
