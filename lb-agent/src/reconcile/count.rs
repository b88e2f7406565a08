//! The figures of the data plane, read from the maps slice by slice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use lb_common::Refusal;
use nix::time::{ClockId, clock_gettime};

use super::{Stage, counted};
use crate::{
    catalog::InstanceKey,
    snapshot::{ServiceName, Snapshot},
    stats::{BackendStats, Handshakes, ServiceStats, Stats},
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

/// What is counted next.
enum Part {
    /// The services after this one.
    Services(Bound<ServiceName>),
    Leaving,
}

impl Count {
    /// Nothing counted yet.
    pub(super) fn new(stage: &Stage) -> Self {
        let stats = Stats {
            maps: stage.maps.fill(&stage.installed),
            programs: stage.programs.attached().collect(),
            unknown: stage
                .maps
                .counters(0)
                .map_or(0, |it| it.refused[Refusal::Unknown as usize]),
            clients: stage.told.len(),
            views: stage.views.as_ref().map_or(0, |it| it.views.len()),
            ..Stats::default()
        };
        Self {
            stats,
            snapshot: Arc::clone(&stage.snapshot),
            left: stage.leaving.clone(),
            part: Part::Services(Bound::Unbounded),
        }
    }

    /// Counts the next slice; whether there is another one.
    pub(super) fn go_on(&mut self, stage: &Stage) -> bool {
        let part = match std::mem::replace(&mut self.part, Part::Leaving) {
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

    /// Tells all that a service has counted.
    fn add_up(&mut self, stage: &Stage, name: &ServiceName) {
        let read = |table| stage.maps.counters(table).unwrap_or_default();
        let met = |address| counted(&stage.maps, &stage.installed, address).map(|(met, _)| met);
        let (counters, handshakes) = stage.books.total(name, read, met);
        let figures = self.stats.services.entry(name.clone()).or_default();
        figures.add(&counters);
        figures.handshakes += handshakes;
    }

    /// Counts what services have counted, and what is open at their backends; the last of them, if there may be more.
    fn services(&mut self, stage: &Stage, after: Bound<ServiceName>) -> Option<ServiceName> {
        let snapshot = Arc::clone(&self.snapshot);
        let services = snapshot.services.tail(after.as_ref());
        let now = monotonic_nanos();
        let mut last = None;
        let mut room = SLICE;
        for (name, service) in services {
            self.add_up(stage, name);
            let mut counted = BTreeSet::new();
            for (key, backend) in &service.backends {
                // TCP and UDP instances at one address share its count.
                let first = counted.insert(backend.address);
                self.note(stage, name, key, backend.addresses(), (now, false, first));
            }
            last = Some(name);
            let looks = stage.books.endpoints(name) + service.backends.len();
            room = room.saturating_sub(1 + looks);
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
                self.note(stage, name, key, [address].into_iter(), (now, true, true));
            }
        }
    }

    /// Counts what is open at an instance, and how connects to each of its addresses went; `first` of those that share
    /// them.
    fn note(
        &mut self,
        stage: &Stage,
        name: &ServiceName,
        key: &InstanceKey,
        addresses: impl Iterator<Item = SocketAddr>,
        (now, leaving, first): (u64, bool, bool),
    ) {
        let mut read = BackendStats {
            leaving,
            ..BackendStats::default()
        };
        // The first one counts the flows of all of them.
        let mut active = None;
        let mut known = false;
        for address in addresses {
            if let Some(freed) = stage.books.freed(name, address) {
                known = true;
                read.failed += freed.failed;
                read.handshakes += freed.handshakes;
            }
            let Some(backend) = stage.installed.backends.get(&address) else {
                continue;
            };
            known = true;
            let index = backend.id.index;
            let count = || stage.maps.active(backend.counted_at.index).unwrap_or(0);
            active.get_or_insert_with(count);
            if let Ok(latency) = stage.maps.latency(index) {
                read.failed += latency.failed;
                read.handshakes += Handshakes::from(&latency);
            }
            let suspected = stage.maps.suspected_until(index);
            if suspected.is_ok_and(|until| until > now) {
                read.suspect = true;
                self.stats.suspects.insert(address);
            }
        }
        if !known {
            return;
        }
        read.active = active.unwrap_or(0);
        let services: &mut BTreeMap<ServiceName, ServiceStats> = &mut self.stats.services;
        let figures = services.entry(name.clone()).or_default();
        figures.active += if first { read.active } else { 0 };
        // One that moved is where it is now.
        figures.backends.entry(key.clone()).or_insert(read);
    }
}

pub(super) fn monotonic_nanos() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return 0;
    };
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}

/// Endpoints or backends that are counted before a change gets its turn: about a millisecond.
const SLICE: usize = 1024;
