//! The Internet checksum, RFC 1071, and its change by parts, RFC 1624.
//!
//! Nothing is swapped: one's complement addition gives the same bytes in either order. Sums are of four bytes at once,
//! which comes to the same after folding, and 64 bits hold more of them than a packet has.

use super::bytes::add32;

/// What changes in the bytes that a checksum covers. Every part lies at an even place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// Nothing.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Two bytes become others.
    #[inline(always)]
    pub const fn replace16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Four bytes become others.
    #[inline(always)]
    pub const fn replace32(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Sixteen bytes become others.
    #[inline(always)]
    pub const fn replace128(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.replace32(old[0], new[0])
            .replace32(old[1], new[1])
            .replace32(old[2], new[2])
            .replace32(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The changes as one sum of 32 bits, which is how helpers of the kernel take them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is folded to 32 bits")]
    pub const fn partial(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The checksum after the changes: RFC 1624, equation 3.
    #[inline(always)]
    pub const fn apply(self, check: u16) -> u16 {
        !fold(self.0 + !check as u64)
    }

    /// The same for UDP, where a checksum of zero says that there is none.
    #[inline(always)]
    pub const fn apply_udp(self, check: u16) -> u16 {
        if check == 0 {
            return 0;
        }
        match self.apply(check) {
            0 => 0xffff,
            other => other,
        }
    }
}

/// A sum as the 16 bits that it comes to.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is folded to 16 bits")]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    // At most 0x1_0000_ffff before the first fold to 16 bits, so each of these can carry once more.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of `N` bytes, an even number, to be added to others and folded.
#[inline(always)]
pub fn sum<const N: usize>(window: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(2)) }
    let (words, rest) = window.as_chunks::<4>();
    let mut sum = 0;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    match rest {
        [first, second] => sum + u64::from(u16::from_ne_bytes([*first, *second])),
        _ => sum,
    }
}

/// The same for `N` bytes of a packet, a multiple of four.
#[inline(always)]
pub(super) fn sum_of_part<const N: usize>(window: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(4)) }
    let mut sum = 0;
    for word in window.as_chunks::<4>().0 {
        sum = add32::<0, 4>(word, sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{raw16, raw32, raw128, samples::checksum, set16, set32, set128};

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(u16::from_be(fold(sum(&bytes))), 0xddf2);
        assert_eq!(checksum(&[&bytes]), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // The older formula of RFC 1141 answers 0xffff here.
        let delta = Delta::new().replace16(0x5555, 0x3285);
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn udp_keeps_no_checksum_and_never_writes_one_of_zero() {
        let delta = Delta::new().replace16(0x5555, 0x3285);
        assert_eq!(delta.apply_udp(0), 0);
        assert_eq!(delta.apply_udp(0xdd2f), 0xffff);
    }

    #[test]
    fn the_greatest_sum_folds() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_ffff_0000_0001), 0x0001);
        assert_eq!(fold(0), 0);
        // Each fold to 16 bits carries once more.
        assert_eq!(fold(0x0001_0000_ffff_ffff), 0x0001);
        // The first fold to 32 bits carries, too.
        assert_eq!(Delta(0x1_ffff_ffff).partial(), 1);
        assert_eq!(Delta(u64::MAX).partial(), u32::MAX);
    }

    proptest! {
        #[test]
        fn a_partial_sum_is_the_same_change(changes: Vec<(u32, u32)>, check: u16) {
            let delta = changes.iter().fold(Delta::new(), |delta, &(old, new)| delta.replace32(old, new));
            prop_assert_eq!(fold(delta.partial().into()), fold(delta.0));
            prop_assert_eq!(!fold(u64::from(delta.partial()) + u64::from(!check)), delta.apply(check));
        }

        #[test]
        fn a_sum_of_words_is_a_sum_of_pairs(bytes: [u8; 22]) {
            prop_assert_eq!(u16::from_be(!fold(sum(&bytes))), checksum(&[&bytes]));
            let part = bytes.first_chunk::<20>().unwrap();
            prop_assert_eq!(sum_of_part(part), sum(part));
        }

        #[test]
        fn a_change_by_parts_is_a_new_sum(
            mut bytes: [u8; 32],
            first: u16, second: u32, third: [u32; 4],
        ) {
            // Not all zeroes: no packet is.
            bytes[0] |= 1;
            let check = !fold(sum(&bytes));
            let old = (
                raw16::<2, 32>(&bytes),
                raw32::<4, 32>(&bytes),
                raw128::<8, 32>(&bytes),
            );
            let delta = Delta::new()
                .replace16(old.0, first)
                .and(Delta::new().replace32(old.1, second))
                .replace128(old.2, third);
            set16::<2, 32>(&mut bytes, first);
            set32::<4, 32>(&mut bytes, second);
            set128::<8, 32>(&mut bytes, third);
            prop_assert_eq!(delta.apply(check), !fold(sum(&bytes)));
        }
    }
}
