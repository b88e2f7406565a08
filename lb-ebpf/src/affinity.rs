//! Clients that come back.

/// A moment of the coarse monotonic clock, in whole seconds that wrap after 136 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u32);

impl Seconds {
    /// From nanoseconds.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "136 years fit, and the difference is taken modulo"
    )]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos / 1_000_000_000) as u32)
    }

    /// Whether no more than `limit` seconds have passed since `earlier`.
    #[inline(always)]
    pub const fn within(self, earlier: Self, limit: u32) -> bool {
        self.0.wrapping_sub(earlier.0) <= limit
    }
}

/// A well-spread integer of a cookie: those of network namespaces follow one another. The finalizer of
/// MurmurHash3's 64-bit variant, by Austin Appleby, who put it in the public domain.
#[inline(always)]
pub const fn mix(cookie: u64) -> u32 {
    let mut x = cookie;
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^= x >> 33;
    (x >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_remembered_for_so_long_and_across_the_wrap() {
        let at = Seconds::from_nanos;
        assert!(at(10_900_000_000).within(at(10_000_000_000), 0));
        assert!(at(15_000_000_000).within(at(10_000_000_000), 5));
        assert!(!at(16_000_000_000).within(at(10_000_000_000), 5));
        assert!(Seconds(1).within(Seconds(u32::MAX), 2));
    }

    #[test]
    fn cookies_that_follow_one_another_spread_evenly() {
        let mut times = [0_u32; 16];
        for cookie in 0..16_000 {
            times[(mix(cookie) >> 28) as usize] += 1;
        }
        assert!(times.iter().all(|&n| n.abs_diff(1000) < 150), "{times:?}");
    }
}
