//! The `consul` source: follows every service of a Consul and says what is registered.
//!
//! One blocking query follows the list of services, one each service. Where connections are few, the services
//! beyond them are read when the list of services or the list of all checks says that something changed. An
//! answer is believed only as far as `judge` and `read` allow: unknown is never empty. The source never
//! writes to Consul; the [`crate::vip`] stage does by `keys`, [`crate::announce`] by `lock`, the registrar by `agent`. Only this module knows Consul's
//! JSON. The table of what is known belongs to [`run`]; the followers send it what they learn.

mod address;
pub(crate) mod agent;
mod answer;
pub(crate) mod backoff;
mod checks;
mod client;
mod config;
mod error;
mod follow;
mod hosts;
mod index;
mod judge;
mod keep;
pub(crate) mod keys;
mod leader;
mod line;
pub(crate) mod lock;
pub(crate) mod look;
mod marks;
mod metrics;
mod pace;
mod parse;
mod read;
mod rights;
mod server;
mod servers;
mod table;
mod telling;
mod tls;
mod turns;
mod version;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use address::{Address, AddressError, FORMS};
pub use config::{BasicAuth, Config, Token, Warning};
pub use error::{Fault, RequestError, SetupError};
pub use keep::file_in;
pub use metrics::Metrics;
pub use tls::{Tls, TlsError};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    checks::Checks,
    client::Client,
    follow::{Event, Shared},
    hosts::Lookups,
    pace::Bucket,
    parse::Listing,
    read::Reading,
    table::{Hitch, Table, Task},
    telling::{Telling, publish},
    turns::{Standing, Turns},
};
use crate::catalog::{Problem, SourceState};

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

/// Key of [`crate::catalog::Instance::meta`] under which the tagged address `virtual`, which a user may set,
/// is passed on. Consul allows no colon in a user's own keys.
pub const VIRTUAL_ADDRESS: &str = "consul:virtual";

/// Why the source ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client can be made.
    #[error("cannot ask Consul")]
    Client(#[source] SetupError),
    /// A follower ended by a fault of ours.
    #[error("a follower of a Consul service failed")]
    Follower(#[source] JoinError),
}

/// Events that may wait; followers pause when the table falls behind.
const EVENTS: usize = 64;
/// How long Consul has for its first full answer before what was kept on disk is used.
const PATIENCE: Duration = Duration::from_secs(5);
/// Turns of a round in a second when changes go on and on, and how many pass at once after a quiet time.
const TURN_PACE: Duration = Duration::from_millis(20);
const TURN_BURST: u32 = 1000;
/// Everybody has a turn at least so often, whatever Consul's signals say.
const ROUND: Duration = Duration::from_secs(60);
/// How long the first full answer waits for what host names mean.
const PATIENCE_HOSTS: Duration = Duration::from_secs(5);

/// Follows Consul until `stop`.
///
/// # Errors
/// Only by a fault of the program. A Consul that is away, or answers nonsense, is told in
/// [`SourceState::error`].
pub async fn run(
    config: Config,
    out: watch::Sender<SourceState>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (events, mut news) = mpsc::channel(EVENTS);
    let kept = keep::load(&config).await;
    let keeper = tokio::spawn(keep::run(config.clone(), out.subscribe(), stop.clone()));
    let metrics = config.metrics.clone();
    let client = Client::new(config).map_err(Error::Client)?;
    let shared = Arc::new(Shared::new(client, events));
    let mut source = Source::new(shared.clone(), metrics);
    let kept_at = source.resume(kept);
    let patience = Instant::now() + PATIENCE;
    let mut impatient = false;
    let mut hosts_until = None;
    let mut telling = Telling::default();
    let mut round = Instant::now() + ROUND;
    let mut batch = Vec::new();
    let ended = loop {
        let turn = source.turn_due();
        if source.table.waits_for_hosts() {
            hosts_until.get_or_insert_with(|| Instant::now() + PATIENCE_HOSTS);
        } else {
            hosts_until = None;
        }
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(ended) = source.tasks.join_next() => match ended {
                Err(error) if !error.is_cancelled() => break Err(Error::Follower(error)),
                _ => continue,
            },
            _ = news.recv_many(&mut batch, EVENTS) => {}
            () = sleep_until(turn.unwrap_or(round)), if turn.is_some() => {
                source.take_turn();
                continue;
            }
            () = sleep_until(round) => {
                round += ROUND;
                source.turns.want_all(&source.standings);
                continue;
            }
            () = sleep_until(patience), if !impatient => {
                impatient = true;
                source.table.resume();
            }
            () = sleep_until(hosts_until.unwrap_or(round)), if hosts_until.is_some() => {
                source.table.wait_for_hosts_no_more();
            }
            () = sleep_until(telling.due.unwrap_or(round)), if telling.due.is_some() => {}
        }
        let mut heard = false;
        for event in batch.drain(..) {
            heard |= source.take_in(event);
        }
        source.count();
        publish(&out, &mut source.table, heard, kept_at, &mut telling);
    };
    // It ends with `stop`, after its last word.
    if ended.is_ok() {
        let _ = keeper.await;
    } else {
        keeper.abort();
    }
    ended
}

/// What the stage owns.
struct Source {
    shared: Arc<Shared>,
    metrics: Metrics,
    /// Dropped at the end, and its tasks with it.
    tasks: JoinSet<()>,
    table: Table,
    services: BTreeMap<Arc<str>, Follower>,
    standings: BTreeMap<Arc<str>, Standing>,
    hosts: BTreeMap<Arc<str>, AbortHandle>,
    lookups: Arc<Lookups>,
    /// The last list of all checks, and when it came.
    checks: Option<(Instant, Checks)>,
    turns: Turns,
    turn_pace: Bucket,
    /// When the next turn may be given.
    turn: Option<Instant>,
}

struct Follower {
    task: AbortHandle,
    turn: watch::Sender<()>,
}

impl Source {
    fn new(shared: Arc<Shared>, metrics: Metrics) -> Self {
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
    fn resume(&mut self, kept: Result<Option<keep::Saved>, String>) -> Option<SystemTime> {
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
    fn take_in(&mut self, event: Event) -> bool {
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
    fn turn_due(&mut self) -> Option<Instant> {
        if !self.turns.are_left() || *self.shared.polled.borrow() == 0 {
            return None;
        }
        let now = Instant::now();
        let pace = &mut self.turn_pace;
        Some(*self.turn.get_or_insert_with(|| now + pace.take(now)))
    }

    fn take_turn(&mut self) {
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
    fn count(&self) {
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
