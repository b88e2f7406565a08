//! Which backends of a service get no requests for a while because the last ones to them failed. A state
//! machine of one worker: time comes in.
//!
//! Live errors are a suspicion, unlike the verdicts that come with the routes. At most half of the backends are
//! out, never the last one, and whoever finds no other takes one that is out all the same.

use std::time::{Duration, Instant};

/// What a service's backends have done wrong. One that did nothing wrong is not in here.
#[derive(Debug)]
pub(crate) struct Ejector<B>(Vec<Record<B>>);

#[derive(Debug)]
struct Record<B> {
    backend: B,
    /// In a row. Stays where it is while the backend is out: the first failure after that ejects it again.
    failures: u32,
    why: &'static str,
    /// How often it was ejected without a good time in between.
    times: u32,
    /// When the last ejection ends, or ended.
    until: Option<Instant>,
    /// Thousandths of a turn that it has saved up since.
    credit: u32,
}

/// Whether a backend takes the request whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Full,
    /// It has just come back, and leaves this one to others if there are any.
    Less,
    /// It is ejected.
    None,
}

impl<B> Default for Ejector<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: PartialEq + Copy> Ejector<B> {
    /// Whether no backend has done anything wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A request to `backend`, one of `usable`, failed. Says for how long that ejects it, if it does.
    pub(crate) fn failed(
        &mut self,
        backend: B,
        why: &'static str,
        usable: usize,
        now: Instant,
    ) -> Option<Duration> {
        let known = self.0.iter().position(|record| record.backend == backend);
        let place = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(Record {
                backend,
                failures: 0,
                why,
                times: 0,
                until: None,
                credit: 0,
            });
        }
        let room = self.out(now) < usable / 2;
        let record = &mut self.0[place];
        // Sent before it was ejected, or for want of another.
        if record.is_out(now) {
            return None;
        }
        record.failures = (record.failures + 1).min(FAILURES);
        record.why = why;
        if record.failures < FAILURES || !room {
            return None;
        }
        record.times += 1;
        let time = record.time();
        record.until = Some(now + time);
        record.credit = 0;
        Some(time)
    }

    /// A request to `backend` was served.
    pub(crate) fn served(&mut self, backend: B, now: Instant) {
        let Some(place) = self.0.iter().position(|record| record.backend == backend) else {
            return;
        };
        let record = &mut self.0[place];
        if record.is_out(now) {
            return;
        }
        record.failures = 0;
        // Forgiven once it was good for as long as it was out.
        let time = record.time();
        if record.until.is_none_or(|until| now >= until + time) {
            self.0.swap_remove(place);
        }
    }

    /// Whether `backend` takes the request whose turn it is.
    pub(crate) fn share(&mut self, backend: B, now: Instant) -> Share {
        let mut records = self.0.iter_mut();
        let Some(record) = records.find(|record| record.backend == backend) else {
            return Share::Full;
        };
        let Some(until) = record.until else {
            return Share::Full;
        };
        let Some(back) = now.checked_duration_since(until) else {
            return Share::None;
        };
        if back >= RAMP {
            return Share::Full;
        }
        // Before the end of the ramp this is below a whole.
        let share = u32::try_from(back.as_millis() * u128::from(WHOLE) / RAMP.as_millis());
        record.credit += share.unwrap_or(WHOLE).max(LEAST);
        if record.credit < WHOLE {
            return Share::Less;
        }
        record.credit -= WHOLE;
        Share::Full
    }

    /// Whether `backend` is ejected.
    pub(crate) fn is_out(&self, backend: B, now: Instant) -> bool {
        let mut records = self.0.iter();
        records.any(|record| record.backend == backend && record.is_out(now))
    }

    /// The service has other backends now: those that are `live`, `usable` of them.
    pub(crate) fn keep(&mut self, live: impl Fn(B) -> bool, usable: usize, now: Instant) {
        self.0.retain(|record| live(record.backend));
        for _ in (usable / 2)..self.out(now) {
            let out = self.0.iter_mut().filter(|record| record.is_out(now));
            if let Some(first) = out.min_by_key(|record| record.until) {
                first.until = Some(now);
            }
        }
    }

    /// Who is out, until when, and why.
    pub(crate) fn ejected(&self, now: Instant) -> impl Iterator<Item = (B, Instant, &'static str)> {
        let out = self.0.iter().filter(move |record| record.is_out(now));
        out.filter_map(|record| Some((record.backend, record.until?, record.why)))
    }

    fn out(&self, now: Instant) -> usize {
        self.0.iter().filter(|record| record.is_out(now)).count()
    }
}

impl<B> Record<B> {
    fn is_out(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn time(&self) -> Duration {
        (FIRST * self.times).min(MOST)
    }
}

/// Failures in a row.
const FAILURES: u32 = 5;
/// For the first time; each further time is longer by as much.
const FIRST: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(300);
/// From its return to its full share.
const RAMP: Duration = Duration::from_secs(10);
/// A whole turn in thousandths, and what one gets that has just come back.
const WHOLE: u32 = 1000;
const LEAST: u32 = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fail(ejector: &mut Ejector<u8>, times: usize, usable: usize, now: Instant) -> Option<u64> {
        let last = (0..times).map(|_| ejector.failed(1, "refused", usable, now));
        last.last().flatten().map(|time| time.as_secs())
    }

    #[test]
    fn five_failures_in_a_row_eject_one_of_two_and_each_time_is_longer() {
        let mut ejector = Ejector::default();
        let mut now = Instant::now();
        assert_eq!(fail(&mut ejector, 4, 2, now), None);
        ejector.served(1, now);
        assert!(ejector.is_empty());
        assert_eq!(fail(&mut ejector, 5, 2, now), Some(30));
        assert_eq!(ejector.share(1, now), Share::None);
        // What was in flight does not count.
        assert_eq!(fail(&mut ejector, 9, 2, now), None);
        for time in [60, 90, 120, 150, 180, 210, 240, 270, 300, 300] {
            now += Duration::from_secs(400);
            assert_eq!(ejector.share(1, now), Share::Full);
            assert_eq!(fail(&mut ejector, 1, 2, now), Some(time));
        }
        // Good for as long as it was out: the next time is a first time.
        now += Duration::from_secs(600);
        ejector.served(1, now);
        assert!(ejector.is_empty());
    }

    #[test]
    fn the_only_backend_is_never_ejected() {
        let mut ejector = Ejector::default();
        assert_eq!(fail(&mut ejector, 100, 1, Instant::now()), None);
    }

    #[test]
    fn one_that_comes_back_gets_more_from_turn_to_turn() {
        let mut ejector = Ejector::default();
        let now = Instant::now();
        fail(&mut ejector, 5, 2, now);
        let back = now + FIRST;
        let mut full = |second| {
            let now = back + Duration::from_secs(second);
            (0..100)
                .filter(|_| ejector.share(1, now) == Share::Full)
                .count()
        };
        assert_eq!([0, 5, 9, 10].map(&mut full), [10, 50, 90, 100]);
    }

    #[test]
    fn with_fewer_backends_fewer_are_out() {
        let mut ejector = Ejector::default();
        let now = Instant::now();
        for backend in [1, 2] {
            for _ in 0..5 {
                ejector.failed(backend, "refused", 4, now);
            }
        }
        assert_eq!(ejector.ejected(now).count(), 2);
        ejector.keep(|_| true, 3, now);
        assert_eq!(ejector.ejected(now).count(), 1);
        ejector.keep(|_| true, 1, now);
        assert_eq!(ejector.ejected(now).count(), 0);
        ejector.keep(|_| false, 1, now);
        assert!(ejector.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Fail(u8),
        Serve(u8),
        Wait(u64),
        Scale(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..8u8).prop_map(Step::Fail),
            2 => (0..8u8).prop_map(Step::Serve),
            1 => (1..60u64).prop_map(Step::Wait),
            1 => (0..9usize).prop_map(Step::Scale),
        ]
    }

    proptest! {
        #[test]
        fn at_most_half_are_out_never_the_last_and_everybody_comes_back(
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let mut ejector = Ejector::default();
            let mut now = Instant::now();
            let mut usable = 8;
            for step in steps {
                match step {
                    Step::Fail(backend) if usize::from(backend) < usable => {
                        ejector.failed(backend, "refused", usable, now);
                    }
                    Step::Serve(backend) => ejector.served(backend, now),
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Scale(to) => {
                        usable = to;
                        ejector.keep(|backend| usize::from(backend) < to, to, now);
                    }
                    Step::Fail(_) => {}
                }
                let out = ejector.ejected(now).count();
                prop_assert!(out <= usable / 2);
                prop_assert!(out == 0 || out < usable);
                prop_assert!(ejector.0.len() <= usable);
            }
            now += MOST + RAMP;
            for backend in 0..8 {
                prop_assert_eq!(ejector.share(backend, now), Share::Full);
            }
        }
    }
}
