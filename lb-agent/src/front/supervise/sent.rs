//! Routes on their way to the front, and the rest after them.

use std::time::Duration;

use tokio::time::Instant;

pub(super) struct Sent {
    /// Whether the front is ready with them.
    pub(super) ready: bool,
    /// When that arrived.
    pub(super) since: Instant,
    /// When it was looked at.
    pub(super) began: Instant,
    /// The CPU time that this took.
    pub(super) cost: Duration,
}

impl Sent {
    /// When the next may be looked at, if this is done `now`. Who changes a large catalog without a pause must not keep
    /// a CPU busy; a first change is told at once, and where a change costs little hardly any waits.
    ///
    /// CPU time is what counts: on a busy machine most of the time goes by in waiting for a CPU, and to rest for that as
    /// well would only add to it.
    pub(super) fn rested(&self, now: Instant) -> Instant {
        now + (self.cost * REST).min(LONGEST_REST)
    }
}

/// After a change has reached the front the stage rests this many times the CPU time that it took. The front, which
/// reads what the stage writes, takes about as much.
const REST: u32 = 4;

/// At most so long.
const LONGEST_REST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(waited: Duration, cost: Duration) -> Duration {
        let began = Instant::now();
        let now = began + waited;
        let sent = Sent {
            ready: true,
            since: began,
            began,
            cost,
        };
        sent.rested(now) - now
    }

    #[test]
    fn the_stage_rests_for_its_work_and_not_for_waiting() {
        let cost = Duration::from_micros(100);
        let quiet = rest(cost, cost);
        assert_eq!(quiet, Duration::from_micros(400));
        assert_eq!(rest(Duration::from_millis(80), cost), quiet);
    }

    #[test]
    fn a_large_catalog_is_not_kept_waiting_for_long() {
        let cost = Duration::from_secs(1);
        assert_eq!(rest(cost, cost), Duration::from_millis(500));
    }
}
