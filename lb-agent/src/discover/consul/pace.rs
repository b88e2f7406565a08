//! A token bucket without a clock: the time comes in, the wait goes out.

use std::time::Duration;

use tokio::time::Instant;

/// Lets `burst` calls through at once, and then one per interval (the generic cell rate algorithm).
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    tolerance: Duration,
    /// When the next call would be due if calls came exactly one per interval.
    due: Option<Instant>,
}

impl Bucket {
    /// Room for `burst` calls, refilled with one per `interval`.
    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        Self {
            interval,
            tolerance: interval * burst.saturating_sub(1),
            due: None,
        }
    }

    /// How long it is until a call may be made, without taking a token.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let due = self.due.map_or(now, |due| due.max(now));
        due.duration_since(now).saturating_sub(self.tolerance)
    }

    /// Takes a token and says how long its owner waits before the call.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let wait = self.wait(now);
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + self.interval);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_at_once_and_the_rest_waits_its_turn() {
        let mut bucket = Bucket::new(5, SECOND);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(bucket.take(now), Duration::ZERO);
        }
        assert_eq!(bucket.take(now), SECOND);
        assert_eq!(bucket.take(now), 2 * SECOND);
    }

    #[test]
    fn an_idle_bucket_fills_up_to_the_burst_and_no_further() {
        let mut bucket = Bucket::new(2, SECOND);
        let now = Instant::now();
        bucket.take(now);
        let later = now + 3600 * SECOND;
        assert_eq!(bucket.take(later), Duration::ZERO);
        assert_eq!(bucket.take(later), Duration::ZERO);
        assert_eq!(bucket.take(later), SECOND);
    }

    proptest::proptest! {
        #[test]
        fn no_second_ever_sees_more_than_burst_and_rate(gaps in proptest::collection::vec(0u64..2500, 1..80)) {
            let mut bucket = Bucket::new(5, SECOND);
            let start = Instant::now();
            let mut now = start;
            let mut calls = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                calls.push(now + bucket.take(now));
            }
            calls.sort();
            for (n, call) in calls.iter().enumerate() {
                let within = calls[n..].iter().filter(|c| c.duration_since(*call) < 10 * SECOND).count();
                proptest::prop_assert!(within <= 5 + 10, "{within} calls within ten seconds");
            }
        }
    }
}
