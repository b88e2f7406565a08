//! How long a host may believe that its session with Consul is alive. Pure: time is given.
//!
//! Consul ends a session that was not renewed for its time to live, counted from when it heard of the renewal. We count
//! from when we asked, which is earlier by whatever the request took; so our belief always ends first, without any
//! clock that two hosts would share.

use std::time::Duration;

use super::moment::Moment;

/// The belief in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    time_to_live: Duration,
    until: Moment,
}

impl Lease {
    /// That of a session that was made, or renewed, by a request of `asked`.
    pub(super) fn new(time_to_live: Duration, asked: Moment) -> Self {
        Self {
            time_to_live,
            until: asked.after(time_to_live),
        }
    }

    /// Takes in that a request of `asked` renewed it. An answer to an older one shortens nothing.
    pub(super) fn renewed(&mut self, asked: Moment) {
        let until = asked.after(self.time_to_live);
        if self.until.at < until.at {
            self.until = until;
        }
    }

    /// From when on it is not to be believed any more.
    pub(super) fn until(&self) -> Moment {
        self.until
    }

    /// Time between two renewals: two of them may fail.
    pub(super) fn interval(&self) -> Duration {
        self.time_to_live / 3
    }

    /// For how long one renewal may take, and how long to wait after one that failed.
    pub(super) fn patience(&self) -> Duration {
        self.time_to_live / 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    #[test]
    fn it_ends_a_time_to_live_after_the_question_and_not_after_the_answer() {
        let asked = Moment::now();
        let mut lease = Lease::new(TTL, asked);
        assert_eq!(lease.until(), asked.after(TTL));
        lease.renewed(asked.after(Duration::from_secs(5)));
        assert_eq!(lease.until(), asked.after(Duration::from_secs(20)));
    }

    #[test]
    fn a_late_answer_to_an_old_question_shortens_nothing() {
        let asked = Moment::now();
        let mut lease = Lease::new(TTL, asked.after(Duration::from_secs(5)));
        lease.renewed(asked);
        assert_eq!(lease.until(), asked.after(Duration::from_secs(20)));
    }

    #[test]
    fn two_renewals_may_fail_before_it_ends() {
        let asked = Moment::now();
        let lease = Lease::new(TTL, asked);
        let third = asked.after(3 * lease.interval());
        assert_eq!(third, lease.until());
        let late = lease.interval() + 3 * lease.patience();
        assert!(asked.after(late).is_before(lease.until()));
    }
}
