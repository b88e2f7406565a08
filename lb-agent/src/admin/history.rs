//! What the services did in the last minutes: counts of steps of a few seconds, kept in rings, and since when each
//! instance is in its state.
//!
//! Counters rise until their owner begins anew. One that fell, or that nobody told, leaves a gap: a rate is never
//! guessed. A series that never changed takes no memory; the most that others take is bounded. Here are the stage and all
//! rings; what one of them is has `series`, and what goes in `sample`.

mod sample;
mod series;
mod states;
mod told;

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(super) use told::Past;
pub(super) use told::{HISTORY_PATH, Totals, tell};

pub(super) use self::sample::{Http, Sample};
use self::{
    sample::{Told, sample},
    series::{BackendTrack, Track},
    states::States,
};
use super::router::Desk;
use crate::{catalog::InstanceKey, snapshot::Snapshot};

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
                let snapshot = desk.snapshots.borrow().clone().unwrap_or_default();
                let sample = sample(&snapshot, stats.as_deref(), front.as_ref());
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

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
