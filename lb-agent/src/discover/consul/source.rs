//! What the stage owns: the table of what is known, and who follows what.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::warn;

use super::{
    checks::Checks,
    follow::{self, Event, Shared},
    hosts::{self, Lookups},
    keep,
    metrics::Metrics,
    pace::Bucket,
    parse::Listing,
    read::Reading,
    table::{Hitch, Table, Task},
    turns::{Standing, Turns},
};
use crate::catalog::Problem;

/// What the stage owns.
pub(super) struct Source {
    shared: Arc<Shared>,
    metrics: Metrics,
    /// Dropped at the end, and its tasks with it.
    pub(super) tasks: JoinSet<()>,
    pub(super) table: Table,
    services: BTreeMap<Arc<str>, Follower>,
    pub(super) standings: BTreeMap<Arc<str>, Standing>,
    hosts: BTreeMap<Arc<str>, AbortHandle>,
    lookups: Arc<Lookups>,
    /// The last list of all checks, and when it came.
    checks: Option<(Instant, Checks)>,
    pub(super) turns: Turns,
    turn_pace: Bucket,
    /// When the next turn may be given.
    turn: Option<Instant>,
}

struct Follower {
    task: AbortHandle,
    turn: watch::Sender<()>,
}

impl Source {
    pub(super) fn new(shared: Arc<Shared>, metrics: Metrics) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::names(shared.clone()));
        tasks.spawn(follow::checks(shared.clone()));
        Self {
            shared,
            metrics,
            tasks,
            table: Table::default(),
            services: BTreeMap::new(),
            standings: BTreeMap::new(),
            hosts: BTreeMap::new(),
            lookups: Arc::default(),
            checks: None,
            turns: Turns::default(),
            turn_pace: Bucket::new(TURN_BURST, TURN_PACE),
            turn: None,
        }
    }

    /// Takes what was kept on disk, to be used if Consul does not answer; says when it was true.
    pub(super) fn resume(
        &mut self,
        kept: Result<Option<keep::Saved>, String>,
    ) -> Option<SystemTime> {
        match kept {
            Ok(None) => None,
            Ok(Some(kept)) => {
                let updated = kept.updated;
                self.table = Table::resuming(kept.into_services());
                Some(updated)
            }
            Err(text) => {
                warn!(error = %text, "the kept catalog is lost");
                self.table.notice(Problem::new("source consul", text));
                None
            }
        }
    }

    /// Updates the table; also says whether the event was an answer about services.
    pub(super) fn take_in(&mut self, event: Event) -> bool {
        let (tasks, heard) = match event {
            Event::Agent(known) => {
                const AGENT: &str = "agent of Consul";
                self.table.settle(AGENT);
                if let Err(text) = known {
                    self.table.notice(Problem::new(AGENT, text));
                }
                (Vec::new(), false)
            }
            Event::Names(Ok(read)) => {
                self.metrics.up.set(1);
                let tasks = self.table.name(read.value, read.stale);
                // Some service somewhere has gained or lost an instance, or its tags changed.
                if *self.shared.polled.borrow() > 0 {
                    self.turns.want_all(&self.standings);
                }
                (tasks, true)
            }
            Event::Names(Err(trouble)) => {
                self.metrics.up.set(0);
                self.table.name_failed(trouble.explain());
                self.table.resume();
                (Vec::new(), false)
            }
            Event::Listing(service, Ok(mut read)) => {
                self.note(&service, &mut read);
                (self.table.list(&service, read.value, read.stale), true)
            }
            Event::Listing(service, Err(trouble)) => {
                let hitch = Hitch {
                    text: trouble.explain(),
                    is_final: trouble.is_final(),
                    is_of_rights: trouble.is_of_rights(),
                };
                (self.table.list_failed(&service, hitch), false)
            }
            Event::Checks(Ok(read)) => {
                self.compare(read.value);
                (Vec::new(), false)
            }
            // The list of services tells what is wrong with Consul. Without this signal there are turns.
            Event::Checks(Err(_)) => (Vec::new(), false),
            Event::Resolved(host, answer) => {
                self.table.resolved(&host, answer);
                (Vec::new(), false)
            }
        };
        for task in tasks {
            self.carry_out(task);
        }
        heard
    }

    fn carry_out(&mut self, task: Task) {
        match task {
            Task::Follow(service) => {
                let (turn, turns) = watch::channel(());
                let follower = follow::service(self.shared.clone(), service.clone(), turns);
                let task = self.tasks.spawn(follower);
                let standing = Standing {
                    changed: Instant::now(),
                    unchecked: true,
                    told: None,
                };
                self.standings.insert(service.clone(), standing);
                self.services.insert(service, Follower { task, turn });
            }
            Task::Leave(service) => {
                self.standings.remove(&service);
                if let Some(follower) = self.services.remove(&service) {
                    follower.task.abort();
                }
            }
            Task::Resolve(host) => {
                let events = self.shared.events.clone();
                let follower = hosts::follow(host.clone(), events, self.lookups.clone());
                self.hosts.insert(host, self.tasks.spawn(follower));
            }
            Task::Forget(host) => {
                if let Some(follower) = self.hosts.remove(&host) {
                    follower.abort();
                }
            }
        }
    }

    /// Notes where a service stands after its answer.
    fn note(&mut self, service: &str, read: &mut Reading<Listing>) {
        let Some(standing) = self.standings.get_mut(service) else {
            return;
        };
        standing.unchecked = read.value.unchecked;
        if read.moved {
            standing.changed = Instant::now();
        }
        let told = standing.told.insert(std::mem::take(&mut read.value.checks));
        // The list of checks may have come while the answer was on its way, and be newer.
        let is_older = self
            .checks
            .as_ref()
            .is_some_and(|(came, checks)| read.asked < *came && !checks.agree(service, told));
        if is_older {
            self.give_turn(service);
        }
    }

    /// Gives a turn to the services whose last answer is not what the list of checks says.
    fn compare(&mut self, checks: Checks) {
        // As often as the list of checks is read, and not out of the round's share.
        for (service, standing) in &self.standings {
            // Who has no answer yet is compared when it comes.
            let told = standing.told.as_ref();
            if told.is_some_and(|told| !checks.agree(service, told)) {
                self.give_turn(service);
            }
        }
        self.checks = Some((Instant::now(), checks));
    }

    /// When the next turn of the round is due; `None` if nobody waits for one.
    pub(super) fn turn_due(&mut self) -> Option<Instant> {
        if !self.turns.are_left() || *self.shared.polled.borrow() == 0 {
            return None;
        }
        let now = Instant::now();
        let pace = &mut self.turn_pace;
        Some(*self.turn.get_or_insert_with(|| now + pace.take(now)))
    }

    pub(super) fn take_turn(&mut self) {
        self.turn = None;
        if let Some(service) = self.turns.next(&self.standings) {
            self.give_turn(&service);
        }
    }

    fn give_turn(&self, service: &str) {
        if let Some(follower) = self.services.get(service) {
            follower.turn.send_replace(());
        }
    }

    /// Counts who has a blocking query, and tells how many cannot have one.
    pub(super) fn count(&self) {
        let shared = &self.shared;
        let max_watches = shared.max_watches();
        let watched = max_watches.saturating_sub(shared.watches.available_permits());
        let gauge = |n| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.watches.set(gauge(watched));
        let polled = self.table.len().saturating_sub(watched);
        self.metrics.polled.set(gauge(polled));
        let too_many = self.table.len().saturating_sub(max_watches);
        let before = shared.polled.send_replace(too_many);
        if before > 0 && too_many == 0 {
            // There are queries for all of them again.
            for follower in self.services.values() {
                follower.turn.send_replace(());
            }
        }
    }
}

/// Turns of a round in a second when changes go on and on, and how many pass at once after a quiet time.
const TURN_PACE: Duration = Duration::from_millis(20);

const TURN_BURST: u32 = 1000;
