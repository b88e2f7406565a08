//! Brings the maps to what the newest snapshot asks for, and reads their figures.
//!
//! Owns the maps and what is known of their content. Deciding is in [`crate::desired`] and [`crate::plan`];
//! this is the short loop that does it. It never removes what it has not been told is gone.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lb_common::BackendId;
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{InstanceKey, Problem},
    desired::Desired,
    installed::Installed,
    maps::{self, Events, Maps},
    plan::plan,
    programs::Programs,
    snapshot::{ServiceName, Snapshot},
    stats::{BackendStats, ServiceStats, Stats, StatsRequest},
};

/// How often a failed step is tried again and backends that lost their last flow are freed.
const TICK: Duration = Duration::from_secs(1);

/// How often the maps are read back and compared with what is known of them.
const AUDIT: Duration = Duration::from_secs(60);

/// Why the stage ended.
#[derive(Debug, Error)]
pub enum Error {
    /// The maps cannot be read at the start.
    #[error("cannot read back the pinned maps")]
    ReadBack(#[from] maps::Error),
    /// The kernel's events cannot be awaited.
    #[error("cannot wait for the kernel's events")]
    Events(#[from] io::Error),
}

/// Figures of the stage itself.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Map writes carried out.
    pub operations: AtomicU64,
    /// Map writes that the kernel refused.
    pub failures: AtomicU64,
    /// Microseconds from the newest snapshot's arrival to the last map write.
    pub last_duration_micros: AtomicU64,
    /// Backends that the kernel reported as failing.
    pub suspicions: AtomicU64,
}

/// What the stage reads and writes.
pub struct Channels {
    /// What the maps should hold.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Backends that the kernel saw fail, for the health stage to probe.
    pub suspects: mpsc::Sender<SocketAddr>,
    /// Requests for figures.
    pub stats: mpsc::Receiver<StatsRequest>,
    /// What did not fit into the maps.
    pub problems: watch::Sender<Vec<Problem>>,
    /// True once the first complete snapshot is in the maps.
    pub installed: watch::Sender<bool>,
}

struct Stage {
    programs: Programs,
    maps: Maps,
    installed: Installed,
    snapshot: Option<Arc<Snapshot>>,
    desired: Desired,
    /// Who was last known behind an address: names the backends that are leaving.
    owners: BTreeMap<SocketAddrV4, Vec<(ServiceName, InstanceKey)>>,
    /// Whether the last plan was carried out whole.
    settled: bool,
    metrics: Arc<Metrics>,
}

/// Runs until `stop`. The maps stay as they are: the data plane outlives the agent.
///
/// # Errors
/// When the maps cannot be read at the start, or the kernel's events cannot be awaited.
pub async fn run(
    programs: Programs,
    maps: Maps,
    events: Events,
    mut channels: Channels,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let installed = maps.read_back()?;
    tracing::info!(
        services = installed.services.len(),
        backends = installed.backends.len(),
        "read back the maps"
    );
    let mut stage = Stage {
        programs,
        maps,
        installed,
        snapshot: None,
        desired: Desired::default(),
        owners: BTreeMap::new(),
        settled: true,
        metrics,
    };
    #[expect(
        deprecated,
        reason = "`register` is unsafe; `Events` keeps its one descriptor for its whole life"
    )]
    let mut events = AsyncFd::new(events)?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut audit = interval(AUDIT);
    audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = channels.snapshots.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let snapshot = channels.snapshots.borrow_and_update().clone();
                if let Some(snapshot) = snapshot {
                    stage.adopt(snapshot);
                    stage.settle(&channels);
                }
            }
            ready = events.readable_mut() => {
                let mut ready = ready?;
                while let Some(event) = ready.get_inner_mut().take() {
                    stage.suspect(BackendId::from_bits(event.backend), &channels.suspects);
                }
                ready.clear_ready();
            }
            request = channels.stats.recv() => match request {
                // Whoever asked may have gone.
                Some(reply) => drop(reply.send(stage.figures())),
                None => return Ok(()),
            },
            _ = tick.tick() => if !stage.settled || stage.has_leaving() {
                stage.settle(&channels);
            },
            _ = audit.tick() => stage.audit(&channels),
        }
    }
}

impl Stage {
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        for (name, service) in &snapshot.services {
            for (key, backend) in &service.backends {
                if let SocketAddr::V4(address) = backend.address {
                    let owners = self.owners.entry(address).or_default();
                    let owner = (name.clone(), key.clone());
                    if !owners.contains(&owner) {
                        owners.push(owner);
                    }
                }
            }
        }
        self.snapshot = Some(snapshot);
    }

    /// Plans against the newest snapshot and carries the plan out, up to the first refused step.
    fn settle(&mut self, channels: &Channels) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        let started = Instant::now();
        let (desired, mut problems) = Desired::new(snapshot);
        // An unreadable count keeps the backend: unknown is not zero.
        let active = |index| self.maps.active(index).unwrap_or(u64::MAX);
        let (steps, unfit) = plan(&self.installed, &desired, active, started);
        problems.extend(unfit);
        self.desired = desired;
        self.settled = true;
        for step in &steps {
            if let Err(error) = self.maps.carry_out(step, &mut self.installed) {
                self.metrics.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    ?step,
                    error = error_chain(&error),
                    "a map write failed and will be tried again"
                );
                problems.push(Problem::new(
                    "data plane",
                    format!("{}; trying again", error_chain(&error)),
                ));
                self.settled = false;
                break;
            }
            self.metrics.operations.fetch_add(1, Ordering::Relaxed);
        }
        if !steps.is_empty() {
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.metrics
                .last_duration_micros
                .store(micros, Ordering::Relaxed);
            tracing::debug!(steps = steps.len(), micros, "changed the maps");
        }
        let installed = &self.installed;
        self.owners
            .retain(|address, _| installed.backends.contains_key(address));
        channels.problems.send_if_modified(|old| {
            let changed = *old != problems;
            *old = problems;
            changed
        });
        if self.settled && self.desired.complete {
            channels
                .installed
                .send_if_modified(|done| !std::mem::replace(done, true));
        }
    }

    fn has_leaving(&self) -> bool {
        self.desired.complete
            && self
                .installed
                .backends
                .keys()
                .any(|address| !self.desired.backends.contains_key(address))
    }

    fn suspect(&self, id: BackendId, suspects: &mpsc::Sender<SocketAddr>) {
        self.metrics.suspicions.fetch_add(1, Ordering::Relaxed);
        let found = self
            .installed
            .backends
            .iter()
            .find(|(_, backend)| backend.id == id);
        if let Some((&address, _)) = found {
            tracing::debug!(%address, "the kernel saw a connect fail");
            // Full: the health stage has enough to probe, and the mark stands in the kernel anyway.
            let _ = suspects.try_send(address.into());
        }
    }

    /// Compares what is known of the maps with what they hold; somebody else may have written to them.
    fn audit(&mut self, channels: &Channels) {
        match self.maps.read_back() {
            Ok(actual)
                if actual.services == self.installed.services
                    && actual.backends == self.installed.backends => {}
            Ok(actual) => {
                tracing::warn!(
                    "the maps held something else than this agent wrote; correcting them"
                );
                self.installed = actual;
                self.settle(channels);
            }
            Err(error) => tracing::warn!(error = error_chain(&error), "cannot read back the maps"),
        }
    }

    fn figures(&self) -> Stats {
        let mut stats = Stats {
            maps: self.maps.fill(&self.installed),
            ..Stats::default()
        };
        stats.programs = self.programs.attached().collect();
        for (key, endpoint) in &self.desired.services {
            let figures = stats.services.entry(endpoint.name.clone()).or_default();
            let table = self
                .installed
                .services
                .get(key)
                .map(|service| service.table);
            if let Some(counters) = table.and_then(|table| self.maps.counters(table).ok()) {
                figures.flows += counters.flows;
                figures.refused += counters.refused;
                figures.failed += counters.failed;
            }
        }
        let now = monotonic_nanos();
        for (address, backend) in &self.installed.backends {
            let active = self.maps.active(backend.id.index).unwrap_or(0);
            let suspect = self
                .maps
                .suspected_until(backend.id.index)
                .is_ok_and(|until| until > now);
            let leaving = !self.desired.backends.contains_key(address);
            for (name, instance) in self.owners.get(address).into_iter().flatten() {
                let figures: &mut ServiceStats = stats.services.entry(name.clone()).or_default();
                figures.active += active;
                figures.backends.insert(
                    instance.clone(),
                    BackendStats {
                        active,
                        suspect,
                        leaving,
                    },
                );
            }
        }
        stats
    }
}

/// The error and its causes on one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

fn monotonic_nanos() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return 0;
    };
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}
