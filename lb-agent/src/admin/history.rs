//! What the services did in the last minutes: counts of steps of a few seconds, kept in rings, and since when each
//! instance is in its state.
//!
//! Counters rise until their owner begins anew. One that fell, or that nobody told, leaves a gap: a rate is never
//! guessed. A series that never changed takes no memory; the most that others take is bounded.

mod told;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_front::{FrontStats, ServiceTraffic};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(super) use told::Past;
pub(super) use told::{HISTORY_PATH, Totals, tell};

use super::router::Desk;
use crate::{
    catalog::InstanceKey,
    cow_map::CowMap,
    snapshot::{self, Service, ServiceName, Snapshot, State},
    stats::Stats,
};

/// Samples until told to stop.
pub(super) async fn run(desk: Desk, stop: CancellationToken) {
    let mut snapshots = desk.snapshots.clone();
    let mut ticks = interval(desk.history.read().step);
    // A late sample is one longer step, not several at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    snapshots.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                let snapshot = snapshots.borrow_and_update().clone();
                if let Some(snapshot) = snapshot {
                    desk.history.write(|rings| rings.follow(&snapshot, SystemTime::now()));
                }
            }
            _ = ticks.tick() => {
                let stats = desk.read_stats().await;
                let front = desk.front.borrow().clone();
                let sample = sample(stats.as_deref(), front.as_ref());
                desk.history.write(|rings| rings.add(sample, SystemTime::now()));
            }
        }
    }
}

/// The rings, for one that writes and many that read.
#[derive(Debug)]
pub(super) struct History(RwLock<Rings>);

impl History {
    pub(super) fn new(step: Duration) -> Self {
        Self(RwLock::new(Rings {
            step,
            ..Rings::default()
        }))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Rings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Rings) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Steps that are kept.
pub(super) const POINTS: usize = 120;
/// Services beyond these have no history: with all series, 10,000 of them take 24 MB.
const SERVICES: usize = 10_000;
/// Backends beyond these have none, either.
const BACKENDS: usize = 20_000;
/// In the place of a count that is not known.
const GAP: u32 = u32::MAX;

/// What a service's series count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// New flows.
    Flows,
    /// Connects that were refused or failed.
    Failures,
    /// Open flows at the end of the step: the one that is no count of what happened within it.
    Active,
    /// Requests through the front.
    Requests,
    /// Those of them that failed: the answer was 5xx, or there was none.
    Errors,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Flows,
        Self::Failures,
        Self::Active,
        Self::Requests,
        Self::Errors,
    ];
}

/// What was counted by one moment, since its counters began.
#[derive(Debug, Default)]
pub(super) struct Sample {
    services: BTreeMap<String, Counts>,
    told: Told,
}

/// Who was heard: what one who was heard does not name is at zero with him.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    kernel: bool,
    front: bool,
}

/// Of one service; `None` is not known.
#[derive(Debug, Default)]
struct Counts {
    values: [Option<u64>; Kind::ALL.len()],
    http: Option<Http>,
    backends: BTreeMap<InstanceKey, u64>,
}

/// What the front counted for a service since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Http {
    pub(super) requests: u64,
    /// Answered with 5xx, or not at all.
    pub(super) errors: u64,
    pub(super) p50_microseconds: Option<u64>,
    pub(super) p99_microseconds: Option<u64>,
    pub(super) received: u64,
    pub(super) sent: u64,
}

fn sample(stats: Option<&Stats>, front: Option<&FrontStats>) -> Sample {
    let told = Told {
        kernel: stats.is_some(),
        front: front.is_some(),
    };
    let mut sample = Sample {
        services: BTreeMap::new(),
        told,
    };
    for (name, stats) in stats.into_iter().flat_map(|stats| &stats.services) {
        let counts = sample.services.entry(name.label()).or_default();
        let mut set = |kind: Kind, value| counts.values[kind as usize] = Some(value);
        set(Kind::Flows, stats.flows);
        set(Kind::Failures, stats.refused.total() + stats.failed);
        set(Kind::Active, stats.active);
        let backends = stats.backends.iter();
        counts.backends = backends
            .map(|(key, stats)| (key.clone(), stats.handshakes.count()))
            .collect();
    }
    for ended in front.into_iter().flat_map(|front| &front.terminations) {
        let counts = sample.services.entry(ended.service.clone()).or_default();
        let http = counts.http.get_or_insert_default();
        http.requests += ended.count;
        if ended.is_error() {
            http.errors += ended.count;
        }
    }
    for traffic in front.into_iter().flat_map(|front| &front.traffic) {
        let counts = sample.services.entry(traffic.service.clone()).or_default();
        let http = counts.http.get_or_insert_default();
        http.p50_microseconds = percentile(traffic, 50);
        http.p99_microseconds = percentile(traffic, 99);
        (http.received, http.sent) = (traffic.received, traffic.sent);
    }
    for counts in sample.services.values_mut() {
        // A front that was heard and does not name it has served nothing of it yet.
        let none = told.front.then(Http::default);
        if let Some(http) = counts.http.as_ref().or(none.as_ref()) {
            counts.values[Kind::Requests as usize] = Some(http.requests);
            counts.values[Kind::Errors as usize] = Some(http.errors);
        }
    }
    sample
}

/// The bound that so many percent of the requests did not exceed; `None` without any. The last bucket has no bound, so
/// that it answers its beginning.
///
/// The other one, `stats::percentile`, estimates within a bucket. Here nothing is estimated: the page writes this as `≤`.
fn percentile(traffic: &ServiceTraffic, percent: u64) -> Option<u64> {
    let count: u64 = traffic.buckets.iter().sum();
    let rank = (count * percent).div_ceil(100);
    let mut below = 0;
    for (bucket, many) in traffic.buckets.iter().enumerate() {
        below += many;
        if below >= rank && count > 0 {
            let last = ServiceTraffic::BOUNDS.len() - 1;
            return Some(ServiceTraffic::BOUNDS[bucket.min(last)]);
        }
    }
    None
}

/// All series.
#[derive(Debug)]
pub(super) struct Rings {
    /// Between two samples.
    pub(super) step: Duration,
    /// Samples so far.
    samples: usize,
    services: HashMap<String, Track>,
    /// How many backends have a ring, so that they stay bounded.
    backends: usize,
    /// Who was heard in the last sample.
    told: Told,
    states: States,
}

/// The series of one service.
#[derive(Debug, Default)]
struct Track {
    /// Its first sample. Before that all is a gap.
    born: usize,
    last: [Option<u64>; Kind::ALL.len()],
    series: [Series; Kind::ALL.len()],
    http: Option<Http>,
    backends: BTreeMap<InstanceKey, BackendTrack>,
}

impl Track {
    fn new(number: usize, before: Told) -> Self {
        let known = |kind| match kind {
            Kind::Flows | Kind::Failures | Kind::Active => before.kernel,
            Kind::Requests | Kind::Errors => before.front,
        };
        Self {
            born: number.saturating_sub(usize::from(before.kernel || before.front)),
            last: Kind::ALL.map(|kind| known(kind).then_some(0)),
            ..Self::default()
        }
    }

    fn add(&mut self, number: usize, counts: &Counts) {
        for kind in Kind::ALL {
            let (slot, value) = (kind as usize, counts.values[kind as usize]);
            let point = match (kind, value) {
                (Kind::Active, Some(value)) => u32::try_from(value).unwrap_or(GAP).min(GAP - 1),
                _ => risen(self.last[slot], value),
            };
            self.series[slot].set(self.born, number, point);
            self.last[slot] = value;
        }
        self.http.clone_from(&counts.http);
    }

    /// Nobody told anything of it.
    fn miss(&mut self, number: usize) {
        self.add(number, &Counts::default());
        self.miss_backends(number);
    }

    fn miss_backends(&mut self, number: usize) {
        for backend in self.backends.values_mut() {
            backend.last = None;
            backend.series.set(backend.born, number, GAP);
        }
    }

    /// Drops the backends that are not in `there`; answers how many.
    fn forget(&mut self, there: &BTreeMap<InstanceKey, u64>) -> usize {
        let before = self.backends.len();
        self.backends.retain(|key, _| there.contains_key(key));
        before - self.backends.len()
    }
}

#[derive(Debug, Default)]
struct BackendTrack {
    born: usize,
    last: Option<u64>,
    series: Series,
    last_flow_unix: Option<u64>,
}

impl BackendTrack {
    fn add(&mut self, number: usize, value: u64, now: SystemTime) {
        let point = risen(self.last, Some(value));
        if point != GAP && point > 0 {
            self.last_flow_unix = Some(unix(now));
        }
        self.series.set(self.born, number, point);
        self.last = Some(value);
    }
}

/// One ring; while every point is the same, only that.
#[derive(Debug)]
struct Series {
    ring: Option<Box<[u32; POINTS]>>,
    every: u32,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            ring: None,
            every: GAP,
        }
    }
}

impl Series {
    /// The first sample, `born`, only tells where counting begins.
    fn set(&mut self, born: usize, sample: usize, point: u32) {
        if sample == born + 1 && self.ring.is_none() {
            self.every = point;
        } else if sample > born && (self.ring.is_some() || point != self.every) {
            let every = self.every;
            let ring = self.ring.get_or_insert_with(|| Box::new([every; POINTS]));
            ring[sample % POINTS] = point;
        }
    }

    /// The points of the samples before `end`, oldest first; those up to `born` are gaps.
    fn line(&self, born: usize, end: usize) -> Vec<Option<u32>> {
        let from = end.saturating_sub(POINTS);
        (from..end).map(|sample| self.point(born, sample)).collect()
    }

    fn point(&self, born: usize, sample: usize) -> Option<u32> {
        let ring = self.ring.as_ref();
        let point = ring.map_or(self.every, |ring| ring[sample % POINTS]);
        (sample > born && point != GAP).then_some(point)
    }
}

/// What was added since `last`; a gap if that is not known or more than `now`.
fn risen(last: Option<u64>, now: Option<u64>) -> u32 {
    match (last, now) {
        (Some(last), Some(now)) if now >= last => {
            u32::try_from(now - last).unwrap_or(GAP).min(GAP - 1)
        }
        _ => GAP,
    }
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            step: super::STEP,
            samples: 0,
            services: HashMap::new(),
            backends: 0,
            told: Told::default(),
            states: States::default(),
        }
    }
}

impl Rings {
    fn add(&mut self, mut sample: Sample, now: SystemTime) {
        let number = self.samples;
        self.samples += 1;
        let before = std::mem::replace(&mut self.told, sample.told);
        let mut freed = 0;
        self.services.retain(|label, track| {
            if sample.services.contains_key(label) {
                return true;
            }
            if sample.told.kernel {
                // The service is gone.
                freed += track.backends.len();
                return false;
            }
            track.miss(number);
            true
        });
        self.backends -= freed;
        for (label, counts) in std::mem::take(&mut sample.services) {
            if self.services.len() >= SERVICES && !self.services.contains_key(&label) {
                continue;
            }
            let track = self.services.entry(label);
            let track = track.or_insert_with(|| Track::new(number, before));
            track.add(number, &counts);
            match sample.told.kernel {
                true => self.backends -= track.forget(&counts.backends),
                false => track.miss_backends(number),
            }
            for (key, value) in counts.backends {
                if !track.backends.contains_key(&key) {
                    if self.backends >= BACKENDS {
                        continue;
                    }
                    self.backends += 1;
                }
                let backend = track.backends.entry(key).or_insert_with(|| BackendTrack {
                    born: number.saturating_sub(usize::from(before.kernel)),
                    last: before.kernel.then_some(0),
                    ..BackendTrack::default()
                });
                backend.add(number, value, now);
            }
        }
    }

    /// Notes which states have changed; answers them.
    fn follow(&mut self, snapshot: &Snapshot, now: SystemTime) -> usize {
        self.states.follow(snapshot, unix(now))
    }

    /// The points of a service, oldest first; counts of one step each, `None` where they are not known.
    pub(super) fn line(&self, label: &str, kind: Kind) -> Vec<Option<u32>> {
        match self.services.get(label) {
            Some(track) => track.series[kind as usize].line(track.born, self.samples),
            None if self.is_told(kind) => vec![Some(0); (self.samples - 1).min(POINTS)],
            None => Vec::new(),
        }
    }

    /// Whether one who counts these was heard, so that what he does not name is at zero.
    fn is_told(&self, kind: Kind) -> bool {
        let told = match kind {
            Kind::Flows | Kind::Failures | Kind::Active => self.told.kernel,
            Kind::Requests | Kind::Errors => self.told.front,
        };
        told && self.samples > 1
    }

    /// New flows of a backend over TCP.
    pub(super) fn backend_line(&self, label: &str, key: &InstanceKey) -> Vec<Option<u32>> {
        match self.services.get(label).and_then(|it| it.backends.get(key)) {
            Some(backend) => backend.series.line(backend.born, self.samples),
            None if self.is_told(Kind::Flows) => vec![Some(0); (self.samples - 1).min(POINTS)],
            None => Vec::new(),
        }
    }

    /// How many a second the last step of a service saw, without the rest of its line.
    pub(super) fn last_rate(&self, label: &str, kind: Kind) -> Option<f64> {
        let Some(track) = self.services.get(label) else {
            return self.is_told(kind).then_some(0.0);
        };
        let series = &track.series[kind as usize];
        let last = series.point(track.born, self.samples.checked_sub(1)?);
        self.rate(&[last])
    }

    /// How many a second the last step of a line saw.
    pub(super) fn rate(&self, line: &[Option<u32>]) -> Option<f64> {
        let last = line.last().copied().flatten()?;
        Some(f64::from(last) / self.step.as_secs_f64())
    }

    /// When the last flow to a backend began, to a step; `None` if none did since the agent looks.
    pub(super) fn last_flow_unix(&self, label: &str, key: &InstanceKey) -> Option<u64> {
        let track = self.services.get(label)?;
        track.backends.get(key)?.last_flow_unix
    }

    /// What the front counted; `None` if it served no request of it.
    pub(super) fn http(&self, label: &str) -> Option<&Http> {
        self.services.get(label)?.http.as_ref()
    }

    /// Since when a backend is in its state; `None` if it already was when the agent first looked.
    pub(super) fn since_unix(&self, label: &str, key: &InstanceKey) -> Option<u64> {
        self.states.since.get(label)?.get(key)?.1
    }
}

/// Since when each backend is in its state.
#[derive(Debug, Default)]
struct States {
    before: CowMap<ServiceName, std::sync::Arc<Service>>,
    since: HashMap<String, BTreeMap<InstanceKey, (State, Option<u64>)>>,
    /// Whether a first snapshot was seen: what is in that has been so for nobody knows how long.
    begun: bool,
}

impl States {
    fn follow(&mut self, snapshot: &Snapshot, now_unix: u64) -> usize {
        let since = self.begun.then_some(now_unix);
        let mut changed = 0;
        for (name, _, after) in snapshot::changes(&self.before, &snapshot.services) {
            let label = name.label();
            let Some(after) = after else {
                self.since.remove(&label);
                continue;
            };
            let known = self.since.entry(label).or_default();
            let there: HashSet<&InstanceKey> = after.backends.keys().collect();
            known.retain(|key, _| there.contains(key));
            for (key, backend) in &after.backends {
                let state = backend.state();
                let known = known.entry(key.clone()).or_insert((state, since));
                if known.0 != state {
                    *known = (state, since);
                    changed += 1;
                }
            }
        }
        self.before = snapshot.services.clone();
        self.begun |= snapshot.is_known();
        changed
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
