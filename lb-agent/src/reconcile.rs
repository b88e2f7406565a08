//! Brings the maps to what the newest snapshot asks for, and reads their figures.
//!
//! Owns the maps and what is known of their content. Deciding is in [`crate::desired`] and [`crate::plan`];
//! this is the short loop that does it: `follow` finds what is to be done, `settle` does that. It never removes what it
//! has not been told is gone.

mod audit;
mod books;
mod count;
mod follow;
mod kept;
mod metrics;
mod settle;
mod tracers;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lb_common::{BackendId, Client};
use thiserror::Error;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

pub use self::metrics::{Durations, Metrics};
use self::{
    audit::Audit,
    books::{Books, Met},
    count::Count,
    tracers::Tracers,
};
use crate::{
    askers::Askers,
    catalog::{InstanceKey, Problem},
    causes::error_chain,
    clients::Clients,
    desired::Wanted,
    installed::Installed,
    maps::{self, Events, Maps, Traces},
    plan::Todo,
    programs::Programs,
    snapshot::{ServiceName, Snapshot},
    stats::{Handshakes, KeptRequest, Stats, StatsRequest},
    trace::TraceRequest,
    views::Views,
    vip::Pools,
};

/// How often a failed step is tried again and backends that lost their last flow are freed.
const TICK: Duration = Duration::from_secs(1);

/// Events taken before everything else gets its turn again.
const EVENTS_AT_ONCE: usize = 256;

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

/// What the stage reads and writes.
pub struct Channels {
    /// What the maps should hold.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Who the clients are; `None` until that is known.
    pub clients: watch::Receiver<Option<Arc<Clients>>>,
    /// Backends that the kernel saw fail, for the health stage to probe.
    pub suspects: mpsc::Sender<SocketAddr>,
    /// Requests for figures.
    pub stats: mpsc::Receiver<StatsRequest>,
    /// Requests to follow the decisions for a service.
    pub traces: mpsc::Receiver<TraceRequest>,
    /// Requests for where a client is kept.
    pub kept: mpsc::Receiver<KeptRequest>,
    /// What did not fit into the maps.
    pub problems: watch::Sender<Vec<Problem>>,
    /// The snapshot that is in the maps: [`Snapshot::reached`].
    pub installed: watch::Sender<Option<u64>>,
}

/// The data plane, opened.
pub struct Plane {
    /// The attached programs.
    pub programs: Programs,
    /// Their maps.
    pub maps: Maps,
    /// What they tell of backends.
    pub events: Events,
    /// What they tell of decisions.
    pub traces: Traces,
    /// Where VIPs are.
    pub pools: Pools,
}

struct Stage {
    programs: Programs,
    maps: Maps,
    installed: Installed,
    /// The newest one, and an empty one before the first.
    snapshot: Arc<Snapshot>,
    /// What it asks for.
    wanted: Wanted,
    /// Who the clients are, nothing until that is known; and the ranges of addresses that services ask about.
    clients: Option<Arc<Clients>>,
    ranges: BTreeSet<IpNet>,
    /// The views that these make.
    views: Option<Arc<Views>>,
    /// Where the maps say that clients stand.
    told: BTreeMap<u64, Client>,
    /// Where the maps may not yet hold what is wanted.
    todo: Todo,
    /// Whether the kernel did not take where clients stand, or the hooks for datagrams.
    refused: bool,
    /// Since when there is no UDP service, while the hooks for datagrams stay for a while.
    lingers: Option<Instant>,
    /// Who was behind an address that nobody names any more.
    leaving: BTreeMap<SocketAddr, Vec<(ServiceName, InstanceKey)>>,
    books: Books,
    tracers: Tracers,
    audit: Audit,
    metrics: Arc<Metrics>,
}

/// Runs until `stop`. The maps stay as they are: the data plane outlives the agent.
///
/// # Errors
/// When the maps cannot be read at the start, or the kernel's events cannot be awaited.
pub async fn run(
    Plane {
        programs,
        maps,
        events,
        traces,
        pools,
    }: Plane,
    mut channels: Channels,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let installed = maps.read_at_start()?;
    tracing::info!(
        services = installed.services.len(),
        backends = installed.backends.len(),
        "read back the maps"
    );
    let told = maps.clients()?;
    let mut stage = Stage {
        programs,
        maps,
        installed,
        snapshot: Arc::default(),
        wanted: Wanted::new(pools),
        clients: None,
        ranges: BTreeSet::new(),
        views: None,
        told,
        todo: Todo::default(),
        refused: false,
        lingers: None,
        leaving: BTreeMap::new(),
        books: Books::default(),
        tracers: Tracers::default(),
        audit: Audit::default(),
        metrics,
    };
    #[expect(
        deprecated,
        reason = "`register` is unsafe; `Events` keeps its one descriptor for its whole life"
    )]
    let mut events = AsyncFd::new(events)?;
    #[expect(deprecated, reason = "the same holds for `Traces`")]
    let mut traces = AsyncFd::new(traces)?;
    // It may be there already.
    channels.snapshots.mark_changed();
    channels.clients.mark_changed();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Figures on their way, and who waits for them.
    let mut counting: Option<(Count, Askers<Stats>)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = channels.snapshots.changed() => {
                // Who makes them has ended: so does the agent, and this may be heard of first.
                if changed.is_err() {
                    break;
                }
                stage.follow(&mut channels);
            }
            // Without whoever says so, everybody stands on the host.
            Ok(()) = channels.clients.changed() => {
                let clients = channels.clients.borrow_and_update().clone();
                if clients.is_some() {
                    stage.clients = clients;
                    stage.look();
                    stage.settle(&channels);
                }
            }
            ready = events.readable_mut() => {
                let mut ready = ready?;
                // A storm of failing connects must not hold up everything else.
                for _ in 0..EVENTS_AT_ONCE {
                    let Some(event) = ready.get_inner_mut().take() else {
                        ready.clear_ready();
                        break;
                    };
                    stage.suspect(BackendId::from_bits(event.backend), &channels.suspects);
                }
            }
            ready = traces.readable_mut() => {
                let mut ready = ready?;
                for _ in 0..EVENTS_AT_ONCE {
                    let Some(trace) = ready.get_inner_mut().take() else {
                        ready.clear_ready();
                        break;
                    };
                    stage.tell(trace);
                }
            }
            Some(request) = channels.kept.recv() => stage.kept(request),
            Some(request) = channels.traces.recv() => stage.trace(request, &channels),
            request = channels.stats.recv(), if counting.is_none() => match request {
                Some(first) => if let Some(askers) = Askers::gather(first, &mut channels.stats) {
                    // Whoever asks knows a snapshot: what is counted is at least that one.
                    if channels.snapshots.has_changed().unwrap_or_default() {
                        stage.follow(&mut channels);
                    }
                    counting = Some((Count::new(&stage), askers));
                },
                None => break,
            },
            // In slices, for a change must not wait until all is counted.
            () = tokio::task::yield_now(), if counting.is_some() => {
                counting = match counting.take() {
                    Some((_, askers)) if askers.are_gone() => None,
                    Some((mut count, askers)) => match count.go_on(&stage) {
                        true => Some((count, askers)),
                        false => {
                            askers.tell(count.stats);
                            None
                        }
                    },
                    None => None,
                };
            }
            _ = tick.tick() => {
                // What leaves may make room for what did not fit.
                stage.free_leaving();
                if !stage.todo.is_empty() || stage.refused || stage.lingers.is_some() {
                    stage.settle(&channels);
                }
                stage.tick_tracers(&channels);
                stage.audit(&channels);
                stage.metrics.beat.send_replace(());
            }
        }
    }
    stop.cancelled().await;
    stage.end_tracers(&channels);
    Ok(())
}

impl Stage {
    fn suspect(&self, id: BackendId, suspects: &mpsc::Sender<SocketAddr>) {
        self.metrics.suspicions.fetch_add(1, Ordering::Relaxed);
        let address = self.installed.addresses.get(&id.index);
        let known = address.filter(|address| {
            self.installed
                .backends
                .get(address)
                .is_some_and(|it| it.id == id)
        });
        // Probed is the address that the host uses.
        let known = known.and_then(|address| {
            let counted_at = self.installed.backends.get(address)?.counted_at;
            self.installed.addresses.get(&counted_at.index)
        });
        if let Some(&address) = known {
            tracing::debug!(%address, "the kernel saw a connect fail");
            // Full: the health stage has enough to probe, and the mark stands in the kernel anyway.
            let _ = suspects.try_send(address);
        }
    }

    /// Compares the next slice of what is known of the maps with what they hold; somebody else may have written to them.
    fn audit(&mut self, channels: &Channels) {
        let matches = self.audit.next(&self.maps, &self.installed);
        let actual = match matches {
            Ok(true) => return,
            Ok(false) => self.maps.read_back(),
            Err(error) => Err(error),
        };
        match actual {
            Ok(actual) => {
                tracing::warn!(
                    "the maps held something else than this agent wrote; correcting them"
                );
                self.todo = Todo::all(&actual, self.wanted.desired());
                self.installed = actual;
                self.settle(channels);
            }
            Err(error) => tracing::warn!(error = error_chain(&error), "cannot read back the maps"),
        }
    }
}

/// The handshakes that the kernel has counted at this address, and how many more failed.
fn counted(maps: &Maps, installed: &Installed, address: SocketAddr) -> Option<(Met, u64)> {
    let id = installed.backends.get(&address)?.id;
    let latency = maps.latency(id.index).ok()?;
    Some(((id, Handshakes::from(&latency)), latency.failed))
}
