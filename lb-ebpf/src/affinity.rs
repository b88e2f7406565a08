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
}
