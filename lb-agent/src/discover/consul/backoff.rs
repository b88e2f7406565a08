//! How long to wait after a failure: doubling, bounded, with jitter.

use std::time::Duration;

/// Counts the failures in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    longest: Duration,
    failures: u32,
}

/// The first wait, before jitter.
const SHORTEST: Duration = Duration::from_millis(250);

impl Backoff {
    /// Waits that grow up to `longest`.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self {
            longest,
            failures: 0,
        }
    }

    /// The wait after one more failure. `chance`, from 0 to 1, spreads hosts that failed together over the
    /// upper half of it.
    pub(crate) fn failed(&mut self, chance: f64) -> Duration {
        let full = SHORTEST
            .saturating_mul(1 << self.failures.min(16))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_waiting(&self) -> bool {
        self.failures > 0
    }

    /// Starts over after a success.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        let waits: Vec<_> = (0..5).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 1000, 1000]);
        assert!(backoff.is_waiting());
        backoff.succeeded();
        assert!(!backoff.is_waiting());
        assert_eq!(backoff.failed(0.0).as_millis(), 125);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff::up_to(Duration::from_secs(30));
        backoff.failures = u32::MAX;
        assert_eq!(backoff.failed(1.0), Duration::from_secs(30));
    }
}
