//! Makes the [`Snapshot`]: what the sources say, the VIPs, our own probes' verdicts and the operators' orders
//! in one value, of which everything downstream is a function.
//!
//! Before a source has answered only that is published, as an incomplete snapshot without a service: unknown is
//! never empty. The first
//! change is published at once and what follows within a short window in one piece. The stage owns the orders.

mod compose;
mod journal;
mod known;
mod orders;
mod ramps;

#[cfg(any(test, fuzzing))]
pub(crate) use orders::fuzz;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use compose::{Facts, assemble};
pub use ramps::Percents;

use crate::{
    admin::Events,
    catalog::{Problem, SourceState},
    cpu,
    health::Verdicts,
    order::{Order, OrderOutcome, OrderRequest, Orders},
    snapshot::Snapshot,
    vip::{Vips, Wanted},
    wait::{any_changed, at},
};
use compose::{Last, compose};
use known::Known;
use orders::Standing;
use ramps::Ramps;

/// What the stage reads.
pub struct Inputs {
    /// Every configured source, by name.
    pub sources: BTreeMap<String, watch::Receiver<SourceState>>,
    /// The answer to [`Outputs::names`].
    pub vips: watch::Receiver<Option<Arc<Vips>>>,
    /// What our own probes say.
    pub verdicts: watch::Receiver<Arc<Verdicts>>,
    /// What operators ask for.
    pub orders: mpsc::Receiver<OrderRequest>,
    /// The containers of this host that are known to be ending or gone, by their full ids.
    pub departed: watch::Receiver<Arc<BTreeSet<String>>>,
    /// What other stages found wrong.
    pub problems: Vec<watch::Receiver<Vec<Problem>>>,
}

/// What the stage produces.
pub struct Outputs {
    /// The services and parts that need a VIP, with the address each wishes for; `None` before any source
    /// has answered.
    pub names: watch::Sender<Option<Wanted>>,
    /// The snapshot; `None` before it is known.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// What changed from one to the next.
    pub events: Events,
}

/// Publishes snapshots until `stop`. `state_dir` keeps the orders.
pub async fn run(state_dir: PathBuf, inputs: Inputs, outputs: Outputs, stop: CancellationToken) {
    let standing = Standing::load(state_dir).await;
    let mut stage = Stage {
        heard: None,
        known: Known::default(),
        changed: BTreeSet::new(),
        facts: None,
        since: SystemTime::now(),
        standing,
        ramps: Ramps::default(),
        next_step: None,
        cost: Duration::ZERO,
        outputs,
    };
    let Inputs {
        mut sources,
        mut vips,
        mut verdicts,
        orders: mut requests,
        mut departed,
        mut problems,
    } = inputs;
    // The sources may have answered before this stage began.
    let mut sources_changed = true;
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        stage.cost = Duration::ZERO;
        if std::mem::take(&mut sources_changed) {
            stage.learn(&mut sources).await;
        }
        if let Some(vips) = vips.borrow_and_update().clone() {
            let mut found = stage.standing.problems.clone();
            for problems in &mut problems {
                found.extend_from_slice(&problems.borrow_and_update());
            }
            let facts = Facts {
                vips,
                verdicts: verdicts.borrow_and_update().clone(),
                orders: stage.standing.orders.clone(),
                departed: departed.borrow_and_update().clone(),
                ramps: Arc::default(),
                problems: found,
                since: stage.since,
            };
            let began = cpu::time();
            stage.publish(facts);
            stage.cost += cpu::time().saturating_sub(began);
        }

        // Until the window has passed only three things matter: an operator waits for an answer, new VIPs answer
        // what was just published, and a container that ends must get no flow more.
        let window = Instant::now() + window(stage.cost);
        let mut changed = false;
        loop {
            select! {
                () = stop.cancelled() => return,
                () = sleep_until(window) => break,
                () = any_changed([&mut vips]) => {
                    changed = true;
                    break;
                }
                () = any_changed([&mut departed]) => {
                    changed = true;
                    break;
                }
                Some(request) = requests.recv() => changed |= stage.answer(request).await,
            }
        }
        while !changed {
            select! {
                () = stop.cancelled() => return,
                () = any_changed(sources.values_mut()) => {
                    sources_changed = true;
                    changed = true;
                }
                () = any_changed([&mut vips]) => changed = true,
                () = any_changed([&mut departed]) => changed = true,
                () = any_changed([&mut verdicts]) => changed = true,
                () = any_changed(&mut problems) => changed = true,
                () = at(stage.next_step) => changed = true,
                Some(request) = requests.recv() => changed |= stage.answer(request).await,
                _ = looks.tick() => {
                    sources_changed = stage.is_outdated(&sources);
                    changed = sources_changed;
                }
            }
        }
        sources_changed |= sources.values().any(|it| it.has_changed().unwrap_or(false));
    }
}

/// The state of the stage.
struct Stage {
    /// What the sources said last.
    heard: Option<BTreeMap<String, SourceState>>,
    /// What of it was understood.
    known: Known,
    /// The services that were learnt anew since the last snapshot.
    changed: BTreeSet<Arc<str>>,
    /// What the last snapshot was made of; `None` before the first.
    facts: Option<Facts>,
    /// When the sources said what is known.
    since: SystemTime,
    standing: Standing,
    ramps: Ramps,
    /// When the next backend under slow start gets more of its share.
    next_step: Option<Instant>,
    /// The CPU time that this round has taken.
    cost: Duration,
    outputs: Outputs,
}

impl Stage {
    /// Takes in what the sources say now, and asks for the VIPs of it.
    async fn learn(&mut self, sources: &mut BTreeMap<String, watch::Receiver<SourceState>>) {
        let states: BTreeMap<String, SourceState> = sources
            .iter_mut()
            .map(|(name, state)| (name.clone(), state.borrow_and_update().clone()))
            .collect();
        let heard = self.heard.replace(states.clone());
        if heard.is_some_and(|heard| says_the_same(&heard, &states)) {
            self.known.refresh(&states);
            return;
        }
        // Nobody else asks for it, and what is shared is copied when it changes.
        let ordered = !self.standing.orders.is_empty();
        let before = ordered.then(|| self.known.catalog().clone());
        let changed = cpu::measured(&mut self.cost, || self.known.learn(&states));
        self.changed.extend(changed);
        self.since = SystemTime::now();
        if self.known.answered() {
            let left = cpu::measured(&mut self.cost, || {
                let before = before.unwrap_or_default();
                orders::after_leaving(&self.standing.orders, &before, self.known.catalog())
            });
            if let Err(error) = self.standing.store(left).await {
                warn!(error, "orders for instances that left are kept");
            }
        }
        if states.values().all(|it| it.catalog.is_none()) {
            // Nothing is known yet; but why that is, is.
            let sources = self.known.sources().clone();
            let unknown = Snapshot {
                sources,
                ..Snapshot::default()
            };
            self.outputs.snapshots.send_if_modified(|current| {
                let changed = current.as_deref() != Some(&unknown);
                if changed {
                    *current = Some(Arc::new(unknown));
                }
                changed
            });
        } else {
            let ask = || {
                self.outputs.names.send_if_modified(|names| {
                    let wanted = Some(Wanted {
                        names: self.known.names().clone(),
                        answered: self.known.answered(),
                    });
                    let changed = *names != wanted;
                    *names = wanted;
                    changed
                })
            };
            cpu::measured(&mut self.cost, ask);
        }
    }

    /// Whether a source has answered again, though it said nothing new.
    fn is_outdated(&self, sources: &BTreeMap<String, watch::Receiver<SourceState>>) -> bool {
        let heard = |name| self.heard.as_ref()?.get(name)?.updated;
        let mut sources = sources.iter();
        sources.any(|(name, state)| state.borrow().updated != heard(name))
    }

    /// Puts the newest snapshot into the channel; wakes its readers only if something is to be done.
    fn publish(&mut self, mut facts: Facts) {
        let now = Instant::now();
        // Whoever gave an order waits for the next number, also where the change was undone meanwhile.
        let awaited = !self.shows(&facts.orders);
        facts.ramps = Arc::new(self.ramps.percents(now));
        let before = self.outputs.snapshots.borrow().clone();
        let last = self.facts.as_ref().zip(before.as_deref());
        let last = last.map(|(facts, snapshot)| Last {
            snapshot,
            facts,
            changed: &self.changed,
        });
        let mut snapshot = compose(&self.known, &facts, last);
        self.changed.clear();
        let nothing = Snapshot::default();
        let old = before.as_deref().unwrap_or(&nothing);
        if self.ramps.follow(old, &snapshot, now) {
            // Nobody may see a newcomer with its whole share.
            let ramps = Arc::new(self.ramps.percents(now));
            let ramped = Facts {
                ramps,
                ..facts.clone()
            };
            let last = Last {
                snapshot: &snapshot,
                facts: &facts,
                changed: &self.changed,
            };
            snapshot = compose(&self.known, &ramped, Some(last));
            facts = ramped;
        }
        self.next_step = self.ramps.next(now);
        self.facts = Some(facts);
        self.outputs.snapshots.send_if_modified(|current| {
            let before = current.as_deref();
            let changed = awaited || before != Some(&snapshot);
            if changed {
                journal::record(
                    before.filter(|it| it.is_known()),
                    &snapshot,
                    &self.outputs.events,
                );
            }
            snapshot.number = number(before) + u64::from(changed);
            *current = Some(Arc::new(snapshot));
            changed
        });
    }

    /// Whether the last snapshot was made of these orders.
    fn shows(&self, orders: &Arc<Orders>) -> bool {
        let facts = self.facts.as_ref();
        facts.is_some_and(|facts| Arc::ptr_eq(&facts.orders, orders))
    }

    /// Answers an operator; whether the orders changed.
    async fn answer(&mut self, request: OrderRequest) -> bool {
        let before = self.standing.orders.clone();
        let answer = self.obey(&request).await;
        if let Ok(outcome) = &answer {
            let (service, mode) = (&request.service, request.mode.as_str());
            let deadline = request.deadline;
            for instance in &outcome.matched {
                info!(%service, %instance, mode, ?deadline, "ordered by an operator");
            }
        }
        // Whoever asked may have gone meanwhile.
        let _ = request.reply.send(answer);
        self.standing.orders != before
    }

    async fn obey(&mut self, request: &OrderRequest) -> Result<OrderOutcome, String> {
        let wanted = (&*request.service, request.backend.as_deref());
        let order = Order::new(request.mode, request.deadline, SystemTime::now());
        let (catalog, standing) = (self.known.catalog(), &self.standing.orders);
        let (orders, matched) = orders::after_request(standing, catalog, wanted, order)?;
        self.standing.store(orders).await?;
        let shown = self.shows(&self.standing.orders);
        Ok(OrderOutcome {
            matched,
            order,
            snapshot: number(self.outputs.snapshots.borrow().as_deref()) + u64::from(!shown),
        })
    }
}

/// The number of what the channel holds.
fn number(current: Option<&Snapshot>) -> u64 {
    current.map_or(0, |snapshot| snapshot.number)
}

/// Whether nothing but the time of the answers differs. A source keeps the allocation of what stays the same.
fn says_the_same(
    before: &BTreeMap<String, SourceState>,
    now: &BTreeMap<String, SourceState>,
) -> bool {
    let same = |before: &SourceState, now: &SourceState| {
        let catalogs = match (&before.catalog, &now.catalog) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        catalogs && before.kept == now.kept && before.error == now.error
    };
    before.len() == now.len()
        && before
            .iter()
            .all(|(name, before)| now.get(name).is_some_and(|now| same(before, now)))
}

/// How long changes are gathered after a round that took `cost` of CPU time: the stage then takes a fifth of one CPU at
/// most, and where a round costs little hardly any change waits.
fn window(cost: Duration) -> Duration {
    (cost * 4).clamp(SHORTEST_WINDOW, WINDOW)
}

/// The longest time for which changes are gathered after one was published.
const WINDOW: Duration = Duration::from_millis(50);

/// The shortest.
const SHORTEST_WINDOW: Duration = Duration::from_millis(2);

/// How old the times of the sources' answers may be in a snapshot.
const LOOK_EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
