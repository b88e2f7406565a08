//! `lb_rate`: how many requests a client may make, by the generic cell rate algorithm.
//!
//! For each client there is one number, the time at which its next request would come if it came as regularly as it may.
//! It may be early by as much as the burst allows. All workers share these numbers, or a client would have a share for each of
//! its connections; a lock is held for a look at one of many small maps.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};

use super::{Answer, text};
use crate::{answer::Reason, crowd, generations::Generations, rules};

/// How often a client may ask.
pub(super) struct Rate {
    /// Nanoseconds between two requests of one that asks as fast as it may.
    interval: u64,
    /// How many nanoseconds early it may be.
    early: u64,
}

/// The clients of one service, each as its next time in nanoseconds since the first request.
pub(crate) struct Paces {
    begun: Instant,
    key: RandomState,
    shards: Box<[Mutex<Generations<IpAddr, u64>>]>,
}

impl Rate {
    pub(super) fn new(rule: &rules::Rate) -> Self {
        // A client that asks a billion times a second is not limited.
        let interval =
            (rule.seconds.saturating_mul(SECOND) / u64::from(rule.requests.max(1))).max(1);
        Self {
            interval,
            early: interval.saturating_mul(u64::from(rule.burst.max(1)) - 1),
        }
    }

    /// The answer to a client that asks too fast.
    pub(super) fn refuse(&self, paces: &Paces, client: IpAddr) -> Option<Answer> {
        let wait = paces.take(self, client, paces.begun.elapsed()).err()?;
        let mut response = text(
            StatusCode::TOO_MANY_REQUESTS,
            Bytes::from_static(b"rate_limited: too many requests of this client\n"),
        );
        let seconds = wait.as_nanos().div_ceil(u128::from(SECOND)).max(1);
        // Nobody has to know a long time to the second.
        let seconds = match u64::try_from(seconds).unwrap_or(u64::MAX) {
            seconds @ ..=60 => seconds,
            seconds => seconds.div_ceil(60).saturating_mul(60),
        };
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        Some(Answer {
            reason: Reason::RateLimited,
            response,
        })
    }
}

impl Default for Paces {
    fn default() -> Self {
        let shard = || Mutex::new(Generations::new(CLIENTS));
        Self {
            begun: Instant::now(),
            key: RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }
}

impl Paces {
    /// Counts a request of `client` at the time `now`. One that comes too early is not counted, and told how early.
    fn take(&self, rate: &Rate, client: IpAddr, now: Duration) -> Result<(), Duration> {
        let client = crowd::site(client);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let shard = self.key.hash_one(client) % SHARDS as u64;
        let shard = usize::try_from(shard).unwrap_or_default();
        // Whoever panicked left one number or the other, and both are right.
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = shard.find(&client).unwrap_or(now).max(now);
        // The rule may have become a stricter one: nobody waits for longer than it says.
        let latest = now.saturating_add(rate.early);
        let next = next.min(latest.saturating_add(rate.interval));
        if next > latest {
            shard.put(client, next);
            return Err(Duration::from_nanos(next - latest));
        }
        shard.put(client, next.saturating_add(rate.interval));
        Ok(())
    }
}

const SECOND: u64 = 1_000_000_000;

const SHARDS: usize = 16;

/// Clients of a generation in each shard: 16,000 of a service in all.
const CLIENTS: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn rate(requests: u32, seconds: u64, burst: u32) -> Rate {
        Rate::new(&rules::Rate {
            requests,
            seconds,
            burst,
        })
    }

    fn client(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    const ONE: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_let_through_and_then_what_is_regular() {
        let (rate, paces) = (rate(10, 1, 3), Paces::default());
        let at = |milliseconds| paces.take(&rate, client(1), Duration::from_millis(milliseconds));
        for _ in 0..3 {
            assert_eq!(at(0), Ok(()));
        }
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(60), Err(Duration::from_millis(40)));
        assert_eq!(at(100), Ok(()));
        assert!(at(100).is_err());
        // Others have nothing to do with it, and after a rest the whole burst is there again.
        assert_eq!(paces.take(&rate, client(2), Duration::ZERO), Ok(()));
        for _ in 0..3 {
            assert_eq!(at(10_000), Ok(()));
        }
        assert!(at(10_000).is_err());
    }

    #[test]
    fn a_stricter_rule_does_not_punish_for_the_former_one() {
        let paces = Paces::default();
        let (generous, strict) = (rate(1, 3600, 10), rate(1, 1, 1));
        for _ in 0..10 {
            assert_eq!(paces.take(&generous, client(1), ONE), Ok(()));
        }
        assert_eq!(paces.take(&strict, client(1), ONE), Err(ONE));
        assert_eq!(paces.take(&strict, client(1), 2 * ONE), Ok(()));
    }

    #[test]
    fn extreme_rules_do_no_harm() {
        let paces = Paces::default();
        let rules = [
            rate(u32::MAX, 1, u32::MAX),
            rate(1, 86_400, 1_000_000),
            rate(0, 0, 0),
        ];
        for (rule, who) in rules.iter().zip(1..) {
            assert_eq!(paces.take(rule, client(who), ONE), Ok(()));
        }
    }

    proptest! {
        /// Of any times, no window holds more than the burst and what is regular within it.
        #[test]
        fn no_window_holds_more_than_it_may(
            requests in 1_u32..50,
            burst in 1_u32..20,
            gaps in proptest::collection::vec((0_u64..50, 0_u8..3), 1..200),
        ) {
            let (rate, paces) = (rate(requests, 1, burst), Paces::default());
            let mut now = 0;
            let mut let_in: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            for (gap, who) in gaps {
                now += gap;
                if paces.take(&rate, client(who), Duration::from_millis(now)).is_ok() {
                    let_in.entry(who).or_default().push(now);
                }
            }
            for times in let_in.values() {
                for (at, from) in times.iter().enumerate() {
                    for (count, to) in times[at..].iter().enumerate() {
                        let regular = (to - from) * u64::from(requests) / 1000;
                        prop_assert!((count as u64) < u64::from(burst) + regular + 1, "{times:?}");
                    }
                }
            }
        }
    }
}
