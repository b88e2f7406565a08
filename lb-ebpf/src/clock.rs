//! Whole seconds without a division, which would cost a packet as much as looking its flow up.

/// `nanos` in whole seconds that wrap after 136 years. It is 17 ms behind at most in the first year, and never goes back.
#[inline(always)]
pub const fn whole_seconds(nanos: u64) -> u32 {
    // 2^56 / 10^9, which leaves room for 146 years.
    const SCALE: u64 = 72_057_594;
    (((nanos >> 24) * SCALE) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_second_begins_a_little_late() {
        assert_eq!(whole_seconds(0), 0);
        assert_eq!(whole_seconds(SECOND - 1), 0);
        assert_eq!(whole_seconds(SECOND + 17_000_000), 1);
    }

    proptest! {
        #[test]
        fn it_is_the_quotient_but_for_its_edge(nanos in 0..365 * 86_400 * SECOND) {
            let late = nanos.saturating_sub(34_000_000) / SECOND;
            let seconds = u64::from(whole_seconds(nanos));
            prop_assert!(seconds <= nanos / SECOND && seconds >= late);
        }

        #[test]
        fn it_never_goes_back(nanos in 0..100 * 365 * 86_400 * SECOND, more in 0..10 * SECOND) {
            prop_assert!(whole_seconds(nanos + more) >= whole_seconds(nanos));
        }
    }
}
