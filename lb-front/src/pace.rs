//! Whether a client that owes us a body sends it at a pace worth its place. Each piece in time is not enough: one byte
//! before each deadline would keep a connection, and a backend's, for ever.

use std::time::Duration;

use tokio::time::Instant;

/// How one body comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    /// How long we have waited for it, all in all.
    waited: Duration,
    /// Since when we wait now.
    since: Option<Instant>,
}

impl Pace {
    /// We want more and there is none.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now)
    }

    /// This many bytes came.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// When the wait that began at `since` is too long: none longer than `idle`, and all of them together no longer
    /// than twice that, and a second for each `rate` bytes that came.
    pub(super) fn deadline(&self, since: Instant, idle: Duration, rate: u64) -> Instant {
        let Some(earned) = self.bytes.checked_div(rate) else {
            return since + idle; // A rate of zero is no rule.
        };
        let total = idle * 2 + Duration::from_secs(earned);
        since + total.saturating_sub(self.waited).min(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// How many seconds a client lasts that sends `bytes` every `pause` seconds, up to an hour.
    fn lasts(bytes: usize, pause: u64, rate: u64) -> u64 {
        let begin = Instant::now();
        let mut pace = Pace::default();
        let mut now = begin;
        while now < begin + Duration::from_secs(3600) {
            let since = pace.wait(now);
            let deadline = pace.deadline(since, IDLE, rate);
            now += Duration::from_secs(pause);
            if deadline < now {
                return (deadline - begin).as_secs();
            }
            pace.take(bytes, now);
        }
        3600
    }

    #[test]
    fn a_byte_before_each_deadline_does_not_last() {
        assert_eq!(lasts(1, 59, 16), 120);
        assert_eq!(lasts(1, 1, 16), 127);
        assert_eq!(lasts(1, 59, 0), 3600);
        assert_eq!(lasts(1_000_000, 61, 16), 60);
    }

    #[test]
    fn a_steady_client_lasts() {
        assert_eq!(lasts(16, 1, 16), 3600);
        assert_eq!(lasts(1000, 59, 16), 3600);
    }

    #[test]
    fn what_we_keep_waiting_is_not_the_clients_time() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        for hour in 0..10 {
            let now = begin + Duration::from_secs(3600 * hour);
            pace.wait(now);
            pace.take(1, now + Duration::from_secs(1));
        }
        let now = begin + Duration::from_secs(36_000);
        let since = pace.wait(now);
        assert_eq!(pace.deadline(since, IDLE, 16), now + IDLE);
    }
}
