//! The churn: changes at a steady pace, each of a service that no other change is on its way for.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
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
/// Between two requests through the front, by all changes that wait for it together: each costs the machine some 0.3 ms
/// of CPU, which must stay a small part of the load when many wait.
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
        let front = FrontWatch::default();
        let failed = Mutex::new(None);
        let installed = &installed;
        scope(|watcher| {
            watcher.spawn(move || watch(&map_changes, PAUSE, |sign| installed.differs(sign)));
            scope(|scope| {
                let began = Instant::now();
                let mut next = began;
                let mut random = fastrand::Rng::with_seed(7);
                while began.elapsed() < self.time && lock(&failed).is_none() {
                    let service = random.usize(..vips.len());
                    if !lock(&busy).insert(service) {
                        continue;
                    }
                    let watchers = Watchers {
                        map: map.clone(),
                        front: &front,
                    };
                    let vip = vips[service];
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
                        match change.make(consul, installed, &watchers) {
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
            drop(map);
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

/// Who looks for changes.
struct Watchers<'a> {
    /// A change is recognised by the element of the service and what it is before.
    map: Sender<Awaited<(ServiceKey, Service)>>,
    front: &'a FrontWatch,
}

/// Requests through the front, each change by itself: none waits for the answer to another.
#[derive(Default)]
struct FrontWatch {
    /// Those that nobody uses at the moment.
    clients: Mutex<Vec<Client>>,
    /// Changes that wait for the front.
    waiting: AtomicU32,
}

impl FrontWatch {
    /// When it is seen that requests to `service` reach an instance that answers, or no longer do.
    fn await_change(&self, service: usize, reached: bool, until: Instant) -> Option<Instant> {
        let mut client = lock(&self.clients).pop().unwrap_or_default();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let seen = loop {
            let seen = client.reaches(service) == Some(reached);
            let at = Instant::now();
            if seen {
                break Some(at);
            }
            if at >= until {
                break None;
            }
            sleep(FRONT_PAUSE * self.waiting.load(Ordering::Relaxed));
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        lock(&self.clients).push(client);
        seen
    }
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
            let (in_map, map) = channel();
            let began = Instant::now();
            let until = began + LOST;
            let sent = watchers.map.send(Awaited {
                sign: before,
                seen: in_map,
                until,
            });
            sent.ok().context("nobody watches the map")?;
            consul.change(&self.operations)?;
            let answered = answered.join().ok();
            let answered = answered.context("the bench's own query failed")??;
            // The agent has the answer no sooner, so nothing is lost by looking only now.
            let in_front = watchers.front.await_change(service, self.reached, until);
            let in_map = map.recv_timeout(until.saturating_duration_since(Instant::now()));
            Ok(Taken {
                began,
                answered,
                in_map: in_map.ok(),
                in_front,
            })
        })
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
