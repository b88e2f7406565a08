//! The end of a drain, and what maintenance is: after the deadline the flows that still go to a backend that was taken out are cut.
//!
//! Follows the snapshots; owns what is known of deadlines. Deciding is in [`deadlines`], looking and ending in
//! [`crate::sockets`]. Only flows through the service's VIP are cut, never a direct connection. A new agent counts
//! every deadline anew, but for those that an operator set.

pub mod deadlines;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::deadlines::{Deadlines, Now, Pending};
use crate::{
    catalog::{InstanceKey, Problem},
    causes::error_chain,
    snapshot::{ServiceName, Snapshot},
    sockets::{self, Failure, Sight, Sockets, Target},
    wait::at,
};

/// Figures of the stage.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Flows that were cut.
    pub cut: AtomicU64,
    /// Times that a flow could not be cut.
    pub failures: AtomicU64,
}

/// What the stage shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When the flows to which backends will be cut. Those that have none left are not here.
    pub cuts: BTreeMap<Whose, SystemTime>,
    /// Where flows are seen; `None` before the first look.
    pub sight: Option<Sight>,
}

/// Whose flows will be cut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Those of this instance of a service.
    Instance(ServiceName, InstanceKey),
    /// Those to an address. Who had it left while no agent looked; the service is known if it still has its VIP.
    Address(Option<ServiceName>, Target),
}

/// What the stage reads and writes.
pub struct Channels {
    /// Says who is taken out.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What is shown.
    pub status: watch::Sender<Status>,
    /// What is wrong.
    pub problems: watch::Sender<Vec<Problem>>,
    /// The number of the last complete snapshot whose flows are cut when it says so.
    pub followed: watch::Sender<Option<u64>>,
}

/// Runs until `stop`.
///
/// # Errors
/// When the thread that sees the sockets has ended.
pub async fn run(
    sockets: Sockets,
    mut channels: Channels,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), sockets::Error> {
    let mut stage = Stage {
        deadlines: Deadlines::default(),
        snapshot: None,
        sight: None,
        unsupported: false,
        metrics,
    };
    loop {
        let next = stage.deadlines.next().map(Into::into);
        let problem = tokio::select! {
            // What has come back since is known before anything is cut.
            biased;
            () = stop.cancelled() => return Ok(()),
            changed = channels.snapshots.changed() => {
                if changed.is_err() {
                    stop.cancelled().await;
                    return Ok(());
                }
                let newest = channels.snapshots.borrow_and_update().clone();
                // Before it is complete nobody is known to be gone.
                match newest.filter(|it| it.complete) {
                    Some(newest) => stage.follow(newest, &sockets).await?,
                    None => None,
                }
            }
            () = at(next) => Some(stage.end(&sockets).await?),
        };
        if let Some(problems) = problem {
            channels.problems.send_if_modified(|old| {
                let changed = *old != problems;
                *old = problems;
                changed
            });
        }
        channels.status.send_replace(stage.status());
        // Later than what is announced: who waited for it finds that.
        let followed = stage.snapshot.as_ref().map(|it| it.number);
        channels
            .followed
            .send_if_modified(|old| std::mem::replace(old, followed) != followed);
    }
}

struct Stage {
    deadlines: Deadlines,
    /// The newest complete one.
    snapshot: Option<Arc<Snapshot>>,
    sight: Option<Sight>,
    /// Whether this kernel was seen to end no sockets.
    unsupported: bool,
    metrics: Arc<Metrics>,
}

impl Stage {
    /// Returns the problems, if it asked the kernel.
    async fn follow(
        &mut self,
        newest: Arc<Snapshot>,
        sockets: &Sockets,
    ) -> Result<Option<Vec<Problem>>, sockets::Error> {
        let before = self.snapshot.replace(Arc::clone(&newest));
        if let Some(before) = before {
            self.deadlines.follow(&before, &newest, Now::read());
            return Ok(None);
        }
        // Flows of a former agent's time.
        let mut problems = Vec::new();
        match sockets.targets().await {
            Err(sockets::Error::Gone) => return Err(sockets::Error::Gone),
            Err(error) => problems.push(cannot_see(&error)),
            Ok((flows, sight)) => {
                self.deadlines.adopt(&newest, &flows, Now::read());
                self.sight = Some(sight);
            }
        }
        let nothing = Snapshot::default();
        self.deadlines.follow(&nothing, &newest, Now::read());
        Ok(Some(problems))
    }

    /// Ends the flows whose time is over. Returns the problems.
    async fn end(&mut self, sockets: &Sockets) -> Result<Vec<Problem>, sockets::Error> {
        let due = self.deadlines.due(Instant::now());
        let outcome = match sockets.end(due.clone()).await {
            Ok(outcome) => outcome,
            Err(sockets::Error::Gone) => return Err(sockets::Error::Gone),
            Err(error) => {
                for target in &due {
                    self.deadlines.failed(target, Instant::now());
                }
                return Ok(vec![cannot_see(&error)]);
            }
        };
        let unsupported = outcome.error == Some(Failure::Unsupported);
        self.unsupported |= unsupported;
        for target in &due {
            let ended = outcome.ended.get(target).copied().unwrap_or(0);
            if ended > 0 {
                let Target { vip, address } = target;
                tracing::info!(%vip, %address, flows = ended, "cut the flows to a backend that was taken out");
                self.metrics.cut.fetch_add(ended, Ordering::Relaxed);
            }
            let now = Instant::now();
            let failed = outcome.failed.contains(target);
            // Unknown is not empty: where a namespace could not be looked into, there may be more.
            match failed || ended == 0 && outcome.sight.missed {
                false => self.deadlines.ended(target, ended, now),
                true if failed && unsupported => self.deadlines.given_up(target),
                true => self.deadlines.failed(target, now),
            }
        }
        self.metrics
            .failures
            .fetch_add(outcome.failed.len() as u64, Ordering::Relaxed);
        self.sight = Some(outcome.sight);
        let mut problems = Vec::new();
        if self.unsupported {
            problems.push(Problem::new(
                SUBJECT,
                "this kernel cannot cut flows, so those to a backend that was taken out live until they end; \
                 it lacks CONFIG_INET_DIAG_DESTROY",
            ));
        }
        if let Some(Failure::Refused(why)) = outcome.error {
            let message = format!(
                "a flow to a backend that was taken out cannot be cut: {why}; trying again. The agent needs CAP_NET_ADMIN"
            );
            problems.push(Problem::new(SUBJECT, message));
        }
        Ok(problems)
    }

    fn status(&self) -> Status {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let open = self.deadlines.pending().iter();
        let open = open.filter(|(_, pending)| pending.is_open());
        let cuts = open.flat_map(|(target, pending)| {
            let at = clock + pending.deadline().saturating_duration_since(now);
            whose(target, pending).into_iter().map(move |it| (it, at))
        });
        Status {
            cuts: cuts.collect(),
            sight: self.sight.clone(),
        }
    }
}

/// Every instance that had the address, or the address where that is not known.
fn whose(target: &Target, pending: &Pending) -> Vec<Whose> {
    let instances = pending.instances.iter().cloned();
    match &pending.service {
        Some(service) if !pending.instances.is_empty() => instances
            .map(|instance| Whose::Instance(service.clone(), instance))
            .collect(),
        service => vec![Whose::Address(service.clone(), *target)],
    }
}

fn cannot_see(error: &sockets::Error) -> Problem {
    let message = format!(
        "flows to a backend that was taken out live until they end: {}",
        error_chain(error)
    );
    Problem::new(SUBJECT, message)
}

/// What a problem of this stage is about.
const SUBJECT: &str = "drains";
