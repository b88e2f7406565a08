//! Where a handshake's time is counted.

use lb_common::{FIRST_BUCKET_MICROS, LATENCY_BUCKETS};

/// The bucket of `micros`, below [`LATENCY_BUCKETS`].
#[inline(always)]
pub const fn bucket(micros: u32) -> u32 {
    let doublings = u32::BITS - (micros / FIRST_BUCKET_MICROS).leading_zeros();
    let last = LATENCY_BUCKETS - 1;
    if doublings < last { doublings } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_twice_as_much_as_the_one_before() {
        for (micros, expect) in [
            (0, 0),
            (63, 0),
            (64, 1),
            (127, 1),
            (128, 2),
            (65_535, 10),
            (65_536, 11),
            (u32::MAX, 11),
        ] {
            assert_eq!(bucket(micros), expect, "{micros}");
        }
    }
}
