//! Level 1 of health: our own probes of every backend.
//!
//! One timer queue and a bounded number of probes at a time, however many targets there are. The stage owns
//! the state of each target, which lasts as long as some service lists it and no other container has its address; others
//! get [`Verdicts`]. It never decides what a verdict means for a service.

mod metrics;
mod probe;

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use lb_core::health::{Config, Target, Verdicts};
use lb_core::health::{
    Outcome, PROBES_AT_ONCE,
    roster::{Job, News, Now, Roster},
};
use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;

use crate::snapshot::{Service, Snapshot, changes};

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
    let mut followed = Arc::new(Snapshot::default());
    // The first snapshot may be there already.
    snapshots.mark_changed();
    loop {
        let room = PROBES_AT_ONCE - probes.len();
        for job in roster.due(Instant::now().into_std(), room) {
            probes.spawn(async move {
                let outcome = probe::probe(&job.target, config.timeout).await;
                (job, outcome)
            });
        }
        let now = Instant::now();
        board.publish(&mut roster, &metrics, now);
        let due = roster
            .next_due()
            .map(Instant::from_std)
            .filter(|_| probes.len() < PROBES_AT_ONCE);
        let wake = due.into_iter().chain(board.due(&roster, now)).min();
        select! {
            () = stop.cancelled() => return,
            Ok(()) = snapshots.changed() => {
                let snapshot = snapshots.borrow_and_update().clone();
                if let Some(snapshot) = snapshot {
                    follow(&mut roster, &followed, &snapshot);
                    if snapshot.answered && !board.answered {
                        board.answered = true;
                        roster.wait_for_starting();
                    }
                    followed = snapshot;
                }
            }
            Some(address) = suspects.recv() => roster.suspect(address, Instant::now().into_std()),
            Some(ended) = probes.join_next(), if !probes.is_empty() => {
                // A probe that panicked is a fault of this module, not of the backend.
                let Ok((job, outcome)) = ended else { continue };
                metrics.count(&outcome);
                let noise = noise.hash_one(job.number);
                roster.finished(job, outcome, read_clocks(), noise);
            }
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
    }
}

/// Publishes the verdicts: a change of state at once, and then not again for a moment.
struct Board {
    verdicts: watch::Sender<Arc<Verdicts>>,
    /// Whether every source has answered. Who comes later is not waited for: on a busy host somebody always starts.
    answered: bool,
    settled: bool,
    published: Option<Instant>,
}

impl Board {
    fn new(verdicts: watch::Sender<Arc<Verdicts>>) -> Self {
        Self {
            verdicts,
            answered: false,
            settled: false,
            published: None,
        }
    }

    fn publish(&mut self, roster: &mut Roster, metrics: &Metrics, now: Instant) {
        let settles = !self.settled && self.answered && !roster.is_waiting();
        if !settles && self.due(roster, now).is_none_or(|due| due > now) {
            return;
        }
        self.settled |= settles;
        self.published = Some(now);
        let mut verdicts = roster.report();
        verdicts.settled = self.settled;
        metrics.show_targets(roster.states());
        self.verdicts.send_replace(Arc::new(verdicts));
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

/// Makes the targets of `after` the ones to probe, where those of `before` were.
fn follow(roster: &mut Roster, before: &Snapshot, after: &Snapshot) {
    let now = read_clocks();
    let changes: Vec<_> = changes(&before.services, &after.services).collect();
    // The new ones first: a target that one service hands to another keeps its state.
    for (target, container) in changes.iter().filter_map(|it| it.2).flat_map(targets) {
        roster.list(target, container, now);
    }
    for (target, container) in changes.iter().filter_map(|it| it.1).flat_map(targets) {
        roster.unlist(&target, container.map(|it| &**it));
    }
}

/// Each target with its container.
fn targets(service: &Arc<Service>) -> impl Iterator<Item = (Target, Option<&Arc<str>>)> {
    service.backends.values().map(|it| {
        let target = (it.address, service.options.check_of(&it.tags).clone());
        (target, it.container.as_ref())
    })
}

/// This moment, as the roster is told it.
fn read_clocks() -> Now {
    Now {
        instant: Instant::now().into_std(),
        wall: SystemTime::now(),
    }
}

/// Between two publications of changed verdicts, so that ten thousand of them are not ten thousand values.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// Between two publications when only the times that probes took have changed.
const DETAILS_EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
