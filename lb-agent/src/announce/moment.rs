//! Moments by a clock that goes on while the host is suspended.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// A moment of the monotonic clock, which stands still while the host is suspended, and for how long it had been by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the monotonic clock.
    pub(super) at: Instant,
    /// Since the host started.
    pub(super) suspended: Duration,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        // The kernel has had both clocks since Linux 2.6.39.
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        let monotonic = read(ClockId::CLOCK_MONOTONIC);
        // In this order: what passes between the two is not taken for a time without.
        let whole = read(ClockId::CLOCK_BOOTTIME);
        Self {
            at: Instant::now(),
            suspended: whole.saturating_sub(monotonic),
        }
    }

    /// So much later, if the host is not suspended in between.
    pub(super) fn after(self, time: Duration) -> Self {
        Self {
            at: self.at + time,
            ..self
        }
    }

    /// Whether it comes before the moment `end` that was foreseen: any time for which the host was suspended since has passed as well.
    pub(super) fn is_before(self, end: Self) -> bool {
        // The clocks are not read at once.
        let suspended = self.suspended.saturating_sub(end.suspended + NOISE);
        self.at + suspended < end.at
    }
}

/// What may pass between the readings of two clocks.
const NOISE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_for_which_the_host_was_suspended_has_passed() {
        let now = Moment::now();
        let end = now.after(Duration::from_secs(10));
        assert!(now.is_before(end) && !end.is_before(end));
        let woken = |suspended| Moment {
            at: now.at + Duration::from_secs(1),
            suspended: now.suspended + suspended,
        };
        assert!(woken(Duration::from_secs(8)).is_before(end));
        assert!(!woken(Duration::from_secs(10)).is_before(end));
    }

    #[test]
    fn this_host_is_not_suspended_between_two_looks() {
        let first = Moment::now();
        let second = Moment::now();
        assert!(second.suspended.abs_diff(first.suspended) < NOISE);
        assert!(second.at >= first.at);
    }
}
