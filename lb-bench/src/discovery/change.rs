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
use lb_common::{Service, ServiceKey};
use serde_json::Value;

use super::{
    consul::{Consul, Instance},
    front::Client,
    installed::Installed,
    watch::{Awaited, watch},
};
use crate::statistics::percentile;

pub(super) struct Churn {
    instances: usize,
    gap: Duration,
    time: Duration,
}

/// What it took.
#[derive(Debug, Default)]
pub(super) struct Delays {
    pub(super) map: Way,
    pub(super) front: Way,
    /// Changes that did not come through in time.
    pub(super) lost: usize,
}

/// What it took to one end of the way, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// From Consul's answer.
    answers: Vec<f64>,
    /// From the call that makes the change.
    changes: Vec<f64>,
}

/// A change that takes longer counts as lost.
const LOST: Duration = Duration::from_secs(20);
/// Between two looks at the map.
const PAUSE: Duration = Duration::from_micros(200);
/// Between two requests through the front for each change that is on its way. Each costs a CPU some 0.2 ms.
const FRONT_PAUSE: Duration = Duration::from_millis(1);
/// By then Consul holds the bench's own query.
const SETTLED: Duration = Duration::from_millis(5);

impl Delays {
    pub(super) fn count(&self) -> usize {
        self.map.changes.len() + self.lost
    }
}

impl Way {
    pub(super) fn of_answers(&self, percent: usize) -> Option<f64> {
        percentile(&self.answers, percent).map(rounded)
    }

    pub(super) fn of_changes(&self, percent: usize) -> Option<f64> {
        percentile(&self.changes, percent).map(rounded)
    }

    fn add(&mut self, arrived: Instant, began: Instant, answered: Instant) {
        let ms = |from| arrived.saturating_duration_since(from).as_secs_f64() * 1e3;
        // The agent may have had its answer a little earlier.
        self.answers.push(ms(answered));
        self.changes.push(ms(began));
    }
}

fn rounded(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

impl Churn {
    pub(super) fn new(instances: usize, per_second: u32, time: Duration) -> Self {
        Self {
            instances,
            gap: Duration::from_secs(1) / per_second,
            time,
        }
    }

    /// Changes services, each known by its VIP, and watches them arrive in the map and in what the front does.
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
        let (map, map_changes) = channel();
        let (front, front_changes) = channel();
        let awaited = Watchers { map, front };
        let failed = Mutex::new(None);
        let installed = &installed;
        scope(|watcher| {
            watcher.spawn(move || watch(&map_changes, PAUSE, |sign| installed.differs(sign)));
            watcher.spawn(move || {
                let mut client = Client::default();
                watch(&front_changes, FRONT_PAUSE, |&(service, reached)| {
                    client.reaches(service) == Some(reached)
                });
            });
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
                    let extra = self.extra(service);
                    scope.spawn(move || {
                        let (operations, then) = lock(states)[service].next(extra);
                        let reached = matches!(then, State::Passing | State::Recovered);
                        let change = Change {
                            service,
                            vip,
                            operations,
                            reached,
                        };
                        match change.make(consul, installed, &awaited) {
                            Ok(taken) => taken.add_to(&mut lock(delays)),
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
            if state != State::Absent {
                consul.change(&[self.extra(service).deregister()])?;
            }
        }
        Ok(std::mem::take(&mut *lock(&delays)))
    }

    /// The instance that comes and goes, the only one of its service that answers.
    fn extra(&self, service: usize) -> Instance {
        Instance {
            service,
            n: self.instances,
            answers: true,
        }
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

/// Who looks for changes, and by what each is recognised.
#[derive(Clone)]
struct Watchers {
    /// The element of the service and what it is before.
    map: Sender<Awaited<(ServiceKey, Service)>>,
    /// The service, and whether requests reach it after.
    front: Sender<Awaited<(usize, bool)>>,
}

/// One change of one service.
struct Change {
    service: usize,
    vip: Ipv4Addr,
    operations: Vec<Value>,
    /// Whether requests reach the extra instance after it.
    reached: bool,
}

/// What one change took, where it came through.
struct Taken {
    began: Instant,
    answered: Instant,
    in_map: Option<Instant>,
    in_front: Option<Instant>,
}

impl Taken {
    fn add_to(&self, delays: &mut Delays) {
        let (Some(in_map), Some(in_front)) = (self.in_map, self.in_front) else {
            delays.lost += 1;
            return;
        };
        delays.map.add(in_map, self.began, self.answered);
        delays.front.add(in_front, self.began, self.answered);
    }
}

impl Change {
    /// Makes it. Consul answers the bench's own blocking query when it answers the agent's.
    fn make(&self, consul: &Consul, installed: &Installed, watchers: &Watchers) -> Result<Taken> {
        let service = self.service;
        let index = consul.listing(service, None)?.index;
        let before = installed.service(self.vip)?;
        scope(|scope| {
            let answered = scope.spawn(|| -> Result<Instant> {
                consul.listing(service, Some(index))?;
                Ok(Instant::now())
            });
            sleep(SETTLED);
            let ((in_map, map), (in_front, front)) = (channel(), channel());
            let began = Instant::now();
            let until = began + LOST;
            let sent = watchers.map.send(Awaited {
                sign: before,
                seen: in_map,
                until,
            });
            sent.ok().context("nobody watches the map")?;
            let sent = watchers.front.send(Awaited {
                sign: (service, self.reached),
                seen: in_front,
                until,
            });
            sent.ok().context("nobody watches the front")?;
            consul.change(&self.operations)?;
            let in_map = map.recv_timeout(LOST).ok();
            let in_front = front.recv_timeout(until.saturating_duration_since(Instant::now()));
            let answered = answered.join().ok();
            let answered = answered.context("the bench's own query failed")??;
            Ok(Taken {
                began,
                answered,
                in_map,
                in_front: in_front.ok(),
            })
        })
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
