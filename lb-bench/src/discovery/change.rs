//! The churn: changes at a steady pace, each of a service that no other change is on its way for.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    consul::{Consul, Instance},
    installed::{Awaited, Installed},
};

pub(super) struct Churn {
    instances: usize,
    gap: Duration,
    time: Duration,
}

/// What it took.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// Milliseconds from Consul's answer to the map.
    answers: Vec<f64>,
    /// Milliseconds from the call that makes the change to the map.
    changes: Vec<f64>,
    /// Changes that did not come through in time.
    pub(super) lost: usize,
}

/// A change that takes longer counts as lost.
const LOST: Duration = Duration::from_secs(20);
/// Between two looks at the map.
const PAUSE: Duration = Duration::from_micros(200);
/// By then Consul holds the bench's own query.
const SETTLED: Duration = Duration::from_millis(5);

impl Delays {
    pub(super) fn of_answers(&self, percent: usize) -> Option<f64> {
        percentile(&self.answers, percent)
    }

    pub(super) fn of_changes(&self, percent: usize) -> Option<f64> {
        percentile(&self.changes, percent)
    }

    pub(super) fn count(&self) -> usize {
        self.changes.len() + self.lost
    }
}

/// The smallest value that so many percent do not exceed.
fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    let value = values.get(rank - 1)?;
    Some((value * 100.0).round() / 100.0)
}

impl Churn {
    pub(super) fn new(instances: usize, per_second: u32, time: Duration) -> Self {
        Self {
            instances,
            gap: Duration::from_secs(1) / per_second,
            time,
        }
    }

    /// Changes services, each known by its VIP, and watches them arrive.
    ///
    /// # Errors
    /// When Consul refuses, or a service is not in the map.
    pub(super) fn run(
        &self,
        consul: &Consul,
        vips: Vec<Ipv4Addr>,
        installed: Installed,
    ) -> Result<Delays> {
        let delays = Mutex::new(Delays::default());
        // Services that are free to be changed, and whether the extra instance of each is there and passes.
        let states = Mutex::new(vec![State::Absent; vips.len()]);
        let busy = Mutex::new(BTreeSet::new());
        let (awaited, changes) = channel();
        let failed = Mutex::new(None);
        let installed = &installed;
        scope(|watcher| {
            watcher.spawn(move || installed.watch(&changes, PAUSE));
            scope(|scope| {
                let began = Instant::now();
                let mut next = began;
                let mut random = fastrand::Rng::with_seed(7);
                while began.elapsed() < self.time && lock(&failed).is_none() {
                    let service = random.usize(..vips.len());
                    if !lock(&busy).insert(service) {
                        continue;
                    }
                    let (awaited, vip) = (awaited.clone(), vips[service]);
                    let (delays, states, busy, failed) = (&delays, &states, &busy, &failed);
                    let extra = Instance {
                        service,
                        n: self.instances,
                    };
                    scope.spawn(move || {
                        let (operations, then) = lock(states)[service].next(extra);
                        match one(consul, installed, vip, service, &operations, awaited) {
                            Ok(taken) => lock(delays).add(taken),
                            Err(error) => *lock(failed) = Some(error),
                        }
                        lock(states)[service] = then;
                        lock(busy).remove(&service);
                    });
                    next += self.gap;
                    sleep(next.saturating_duration_since(Instant::now()));
                }
            });
            drop(awaited);
        });
        if let Some(error) = lock(&failed).take() {
            return Err(error);
        }
        let states = lock(&states).clone();
        for (service, state) in states.into_iter().enumerate() {
            let n = self.instances;
            if state != State::Absent {
                consul.change(&[Instance { service, n }.deregister()])?;
            }
        }
        Ok(std::mem::take(&mut *lock(&delays)))
    }
}

/// The extra instance of a service. Each change takes it one further, and each is seen in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Passing,
    Critical,
    Recovered,
}

impl State {
    fn next(self, extra: Instance) -> (Vec<Value>, Self) {
        match self {
            Self::Absent => (extra.register().to_vec(), Self::Passing),
            Self::Passing => (vec![extra.check("critical")], Self::Critical),
            Self::Critical => (vec![extra.check("passing")], Self::Recovered),
            Self::Recovered => (vec![extra.deregister()], Self::Absent),
        }
    }
}

/// What one change took, where it came through.
struct Taken {
    from_answer: Option<Duration>,
    from_change: Option<Duration>,
}

impl Delays {
    fn add(&mut self, taken: Taken) {
        let ms = |delay: Duration| delay.as_secs_f64() * 1e3;
        self.answers.extend(taken.from_answer.map(ms));
        self.changes.extend(taken.from_change.map(ms));
        self.lost += usize::from(taken.from_change.is_none());
    }
}

/// Makes one change. Consul answers the bench's own blocking query when it answers the agent's.
fn one(
    consul: &Consul,
    installed: &Installed,
    vip: Ipv4Addr,
    service: usize,
    operations: &[Value],
    awaited: Sender<Awaited>,
) -> Result<Taken> {
    let index = consul.listing(service, None)?.index;
    let (key, before) = installed.service(vip)?;
    scope(|scope| {
        let answered = scope.spawn(|| -> Result<Instant> {
            consul.listing(service, Some(index))?;
            Ok(Instant::now())
        });
        sleep(SETTLED);
        let (seen, arrival) = channel();
        let began = Instant::now();
        let change = Awaited {
            key,
            before,
            seen,
            until: began + LOST,
        };
        awaited
            .send(change)
            .ok()
            .context("nobody watches the map")?;
        consul.change(operations)?;
        let arrived = arrival.recv_timeout(LOST).ok();
        let answered = answered
            .join()
            .ok()
            .context("the bench's own query failed")??;
        Ok(Taken {
            // The agent may have had its answer a little earlier.
            from_answer: arrived.map(|at| at.saturating_duration_since(answered)),
            from_change: arrived.map(|at| at - began),
        })
    })
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(100.0));
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&values[..1], 99), Some(200.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
