//! The figures of the data plane, read from the maps slice by slice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use lb_common::ServiceKey;
use nix::time::{ClockId, clock_gettime};

use super::Stage;
use crate::{
    catalog::InstanceKey,
    snapshot::{ServiceName, Snapshot},
    stats::{BackendStats, ServiceStats, Stats},
};

/// Figures on their way. A slice of them takes about as long as a change does.
pub(super) struct Count {
    pub(super) stats: Stats,
    /// Whose backends are counted.
    snapshot: Arc<Snapshot>,
    /// [`Stage::leaving`] beside that snapshot: whoever leaves meanwhile counts once.
    left: BTreeMap<SocketAddr, Vec<(ServiceName, InstanceKey)>>,
    part: Part,
}

/// What is counted next: what comes after this.
enum Part {
    Endpoints(Bound<ServiceKey>),
    Services(Bound<ServiceName>),
    Leaving,
}

impl Count {
    /// Nothing counted yet.
    pub(super) fn new(stage: &Stage) -> Self {
        let stats = Stats {
            maps: stage.maps.fill(&stage.installed),
            programs: stage.programs.attached().collect(),
            ..Stats::default()
        };
        Self {
            stats,
            snapshot: Arc::clone(&stage.snapshot),
            left: stage.leaving.clone(),
            part: Part::Endpoints(Bound::Unbounded),
        }
    }

    /// Counts the next slice; whether there is another one.
    pub(super) fn go_on(&mut self, stage: &Stage) -> bool {
        let part = match std::mem::replace(&mut self.part, Part::Leaving) {
            Part::Endpoints(after) => match self.endpoints(stage, after) {
                Some(last) => Part::Endpoints(Bound::Excluded(last)),
                None => Part::Services(Bound::Unbounded),
            },
            Part::Services(after) => match self.services(stage, after) {
                Some(last) => Part::Services(Bound::Excluded(last)),
                None => Part::Leaving,
            },
            Part::Leaving => {
                self.leaving(stage);
                return false;
            }
        };
        self.part = part;
        true
    }

    /// Counts what flows through endpoints; the last of them, if there may be more.
    fn endpoints(&mut self, stage: &Stage, after: Bound<ServiceKey>) -> Option<ServiceKey> {
        let endpoints = &stage.wanted.desired().services;
        let mut last = None;
        for (key, endpoint) in endpoints.range((after, Bound::Unbounded)).take(SLICE) {
            last = Some(*key);
            let table = stage.installed.services.get(key).map(|it| it.table);
            let Some(counters) = table.and_then(|table| stage.maps.counters(table).ok()) else {
                continue;
            };
            let figures = self.stats.services.entry(endpoint.name.clone());
            let figures = figures.or_default();
            figures.flows += counters.flows;
            figures.refused += counters.refused.iter().sum::<u64>();
            figures.failed += counters.failed;
        }
        last
    }

    /// Counts what is open at backends of services; the last of them, if there may be more.
    fn services(&mut self, stage: &Stage, after: Bound<ServiceName>) -> Option<ServiceName> {
        let snapshot = Arc::clone(&self.snapshot);
        let services = snapshot.services.range((after, Bound::Unbounded));
        let now = monotonic_nanos();
        let mut last = None;
        let mut room = SLICE;
        for (name, service) in services {
            let mut counted = BTreeSet::new();
            for (key, backend) in &service.backends {
                if let Some(figures) = read(stage, &backend.address, now, false) {
                    // TCP and UDP instances at one address share its count.
                    let first = counted.insert(backend.address);
                    self.note(name, key, figures, first);
                }
            }
            last = Some(name);
            room = room.saturating_sub(1 + service.backends.len());
            if room == 0 {
                break;
            }
        }
        last.cloned()
    }

    /// Counts what is open at backends that nobody names any more.
    fn leaving(&mut self, stage: &Stage) {
        let now = monotonic_nanos();
        for (address, owners) in std::mem::take(&mut self.left) {
            for (name, key) in &owners {
                if let Some(figures) = read(stage, &address, now, true) {
                    self.note(name, key, figures, true);
                }
            }
        }
    }

    /// Notes what was read of an instance; `first` of those that it was read for.
    fn note(&mut self, name: &ServiceName, key: &InstanceKey, read: BackendStats, first: bool) {
        let services: &mut BTreeMap<ServiceName, ServiceStats> = &mut self.stats.services;
        let figures = services.entry(name.clone()).or_default();
        figures.active += if first { read.active } else { 0 };
        // One that moved is where it is now.
        figures.backends.entry(key.clone()).or_insert(read);
    }
}

fn read(stage: &Stage, address: &SocketAddr, now: u64, leaving: bool) -> Option<BackendStats> {
    let backend = stage.installed.backends.get(address)?;
    let suspected = stage.maps.suspected_until(backend.id.index);
    Some(BackendStats {
        active: stage.maps.active(backend.counted_at.index).unwrap_or(0),
        suspect: suspected.is_ok_and(|until| until > now),
        leaving,
    })
}

fn monotonic_nanos() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return 0;
    };
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}

/// Endpoints or backends that are counted before a change gets its turn: about a millisecond.
const SLICE: usize = 1024;
