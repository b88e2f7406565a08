//! Level 1 of health: our own probes of every backend.
//!
//! One timer queue and a bounded number of probes at a time, however many targets there are. The stage owns
//! the state of each target, which lasts as long as some service lists it; others get [`Verdicts`]. It never
//! decides what a verdict means for a service.

mod machine;
mod metrics;
mod probe;
mod roster;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;

use crate::{
    options::CheckKind,
    snapshot::{Probe, Snapshot},
};
use probe::Outcome;
use roster::{Job, News, Now, Roster};

/// How backends are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// From one probe of a settled target to the next.
    pub interval: Duration,
    /// What a probe may take.
    pub timeout: Duration,
    /// Successes in a row until a target is up.
    pub rise: u32,
    /// Failures in a row until it is down.
    pub fall: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// What a probe asks of whom.
pub type Target = (SocketAddr, CheckKind);

/// What our probes say of every target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// By target; one that is not probed (`lb_check=off`) is listed as such.
    pub by_target: BTreeMap<Target, Probe>,
    /// Whether every target that the sources named at first has had its first verdict. Never taken back.
    pub settled: bool,
}

impl Verdicts {
    /// The verdict on `address` asked in this way.
    pub fn of(&self, address: SocketAddr, check: &CheckKind) -> Option<&Probe> {
        self.by_target.get(&(address, check.clone()))
    }
}

/// Probes the backends of the newest snapshot until `stop`. An address from `suspects` (the kernel saw a
/// connect to it fail) is probed at once.
pub async fn run(
    config: Config,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    mut suspects: mpsc::Receiver<SocketAddr>,
    verdicts: watch::Sender<Arc<Verdicts>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut roster = Roster::new(config);
    let mut probes: JoinSet<(Job, Outcome)> = JoinSet::new();
    let mut board = Board::new(verdicts);
    let noise = RandomState::new();
    // The first snapshot may be there already.
    snapshots.mark_changed();
    loop {
        let room = PROBES_AT_ONCE - probes.len();
        for job in roster.due(Instant::now(), room) {
            probes.spawn(async move {
                let outcome = probe::probe(&job.target, config.timeout).await;
                (job, outcome)
            });
        }
        let now = Instant::now();
        board.publish(&mut roster, &metrics, now);
        let due = roster.next_due().filter(|_| probes.len() < PROBES_AT_ONCE);
        let wake = due.into_iter().chain(board.due(&roster, now)).min();
        select! {
            () = stop.cancelled() => return,
            Ok(()) = snapshots.changed() => {
                if let Some(snapshot) = &*snapshots.borrow_and_update() {
                    roster.follow(targets(snapshot), Now::read());
                    if snapshot.answered && board.waits_for.is_none() {
                        board.waits_for = Some(roster.starting().cloned().collect());
                    }
                }
            }
            Some(address) = suspects.recv() => roster.suspect(address, Instant::now()),
            Some(ended) = probes.join_next(), if !probes.is_empty() => {
                // A probe that panicked is a fault of this module, not of the backend.
                let Ok((job, outcome)) = ended else { continue };
                metrics.count(&outcome);
                let noise = noise.hash_one(job.number);
                roster.finished(job, outcome, Now::read(), noise);
            }
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
    }
}

/// Publishes the verdicts: a change of state at once, and then not again for a moment.
struct Board {
    verdicts: watch::Sender<Arc<Verdicts>>,
    /// The targets that the sources named at first and that have no verdict yet; `None` before every source
    /// has answered. Who comes later is not waited for: on a busy host somebody always starts.
    waits_for: Option<BTreeSet<Target>>,
    settled: bool,
    published: Option<Instant>,
}

impl Board {
    fn new(verdicts: watch::Sender<Arc<Verdicts>>) -> Self {
        Self {
            verdicts,
            waits_for: None,
            settled: false,
            published: None,
        }
    }

    fn publish(&mut self, roster: &mut Roster, metrics: &Metrics, now: Instant) {
        let settles = !self.settled && self.has_heard_of_all(roster);
        if !settles && self.due(roster, now).is_none_or(|due| due > now) {
            return;
        }
        self.settled |= settles;
        self.published = Some(now);
        let by_target = roster.report();
        metrics.show_targets(&by_target);
        let settled = self.settled;
        self.verdicts
            .send_replace(Arc::new(Verdicts { by_target, settled }));
    }

    /// Whether every first target has its verdict, or left.
    fn has_heard_of_all(&mut self, roster: &Roster) -> bool {
        self.waits_for.as_mut().is_some_and(|targets| {
            targets.retain(|target| roster.starts(target));
            targets.is_empty()
        })
    }

    /// When the news of `roster` are to be told.
    fn due(&self, roster: &Roster, now: Instant) -> Option<Instant> {
        let pause = match roster.news() {
            News::None => return None,
            News::Details => DETAILS_EVERY,
            News::Verdicts => PUBLISH_EVERY,
        };
        Some(self.published.map_or(now, |published| published + pause))
    }
}

fn targets(snapshot: &Snapshot) -> BTreeSet<Target> {
    let services = snapshot.services.values();
    services
        .flat_map(|service| {
            let check = &service.options.check;
            let addresses = service.backends.values().map(|backend| backend.address);
            addresses.map(move |address| (address, check.clone()))
        })
        .collect()
}

/// Bounds the descriptors in use; the rest waits for its turn.
const PROBES_AT_ONCE: usize = 512;

/// Between two publications of changed verdicts, so that ten thousand of them are not ten thousand values.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// Between two publications when only the times that probes took have changed.
const DETAILS_EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
