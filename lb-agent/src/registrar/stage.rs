//! The stage: whenever containers change, and every now and then, Consul is made to hold what they ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    apply::apply,
    config::Config,
    identity::identify,
    metrics::Metrics,
    plan::{Memory, Ownership, Step, plan},
    registration::CheckKind,
    settings::Settings,
    status::{Outputs, Status, publish},
    wish::{Wishes, wishes},
};
use crate::{
    catalog::Problem,
    discover::consul::{
        self, RequestError, SetupError,
        agent::{Agent, DOCKER_TTL, Identity},
        backoff::Backoff,
    },
    docker::{Containers, Engine, State},
};

/// Why the stage ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client can be made.
    #[error("cannot ask the Consul agent")]
    Client(#[source] SetupError),
}

/// Registers the containers of `engine` until `stop`. Where it deregisters them at its end, it does not if `keep` says that another one
/// follows at once. As long as the engine has not answered, nothing is registered and
/// nothing removed.
///
/// Of several addresses of Consul only the first is asked: a service belongs to the agent that registered it.
///
/// # Errors
/// When no HTTP client can be made. A Consul that is away is told in [`Status::error`].
pub async fn run(
    config: Config,
    mut consul: consul::Config,
    mut engine: watch::Receiver<Engine>,
    out: Outputs,
    metrics: Metrics,
    stop: CancellationToken,
    keep: CancellationToken,
) -> Result<(), Error> {
    consul.addresses.truncate(1);
    let agent = Agent::new(consul).map_err(Error::Client)?;
    let mut registrar = Registrar {
        config,
        agent,
        metrics,
        node: None,
        has_named: false,
        memory: Memory::default(),
        ending: BTreeMap::new(),
        backoff: Backoff::up_to(LONGEST_WAIT),
    };
    loop {
        let now = engine.borrow_and_update().clone();
        // Not interrupted by the next change: a busy engine could otherwise keep all of them from their end.
        let mut turn = pin!(registrar.turn(&now, &out));
        let pause = tokio::select! {
            () = stop.cancelled() => {
                // Not left between a registration and the maintenance that it ended.
                let _ = timeout(LAST_TURN, turn).await;
                break;
            }
            pause = &mut turn => pause,
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(pause) => {}
            changed = engine.changed() => if changed.is_err() {
                stop.cancelled().await;
                break;
            },
        }
    }
    if registrar.config.deregister_on_exit && !keep.is_cancelled() {
        let last = engine.borrow().clone();
        registrar.leave(&last).await;
    }
    Ok(())
}

/// The settings with which the containers of `engine` would be registered, and what is doubtful about them. A Consul
/// that is away is a problem here, and no more.
///
/// # Errors
/// When no HTTP client can be made.
pub async fn identified(
    config: &Config,
    mut consul: consul::Config,
    engine: &Engine,
) -> Result<(Settings, Vec<Problem>), Error> {
    consul.addresses.truncate(1);
    let agent = Agent::new(consul).map_err(Error::Client)?;
    let (node, away) = match agent.identity().await {
        Ok(identity) => (Some(identity), None),
        Err(error) => (None, Some(Problem::new("registrar", error.explain()))),
    };
    let none = Containers::new();
    let containers = engine.containers.as_deref().unwrap_or(&none);
    let name = engine.name.as_deref().unwrap_or_default();
    let identified = identify(config, node.as_ref(), name, containers);
    let (settings, mut problems) = identified.unwrap_or_else(|problem| {
        let unknown = Settings {
            host: "unknown".to_owned(),
            ..config.settings.clone()
        };
        (unknown, vec![problem])
    });
    problems.extend(away);
    Ok((settings, problems))
}

struct Registrar {
    config: Config,
    agent: Agent,
    metrics: Metrics,
    /// Who the Consul agent is; asked again after every failure.
    node: Option<Identity>,
    /// Whether it has ever said so.
    has_named: bool,
    memory: Memory,
    /// Since when containers are ending.
    ending: BTreeMap<String, Instant>,
    backoff: Backoff,
}

impl Registrar {
    /// Makes Consul hold what the containers ask for; says how long that will do.
    async fn turn(&mut self, engine: &Engine, out: &Outputs) -> Duration {
        if engine.containers.is_none() {
            return self.config.resync;
        }
        let mut status = {
            let before = out.status.borrow();
            Status {
                synced: before.synced,
                containers: before.containers.clone(),
                ..Status::default()
            }
        };
        let done = self.sync(engine, &mut status).await;
        let pause = match done {
            Ok(pause) => {
                self.backoff.succeeded();
                status.synced = Some(SystemTime::now());
                pause
            }
            Err(error) => {
                // It may come back with nothing, or with other settings.
                self.node = None;
                self.memory.reset();
                status.error = Some(error.explain());
                self.backoff.failed(fastrand::f64())
            }
        };
        let good = status.error.is_none() && status.problems.is_empty();
        self.metrics.up.set(good.into());
        publish(out, status);
        pause
    }

    async fn sync(
        &mut self,
        engine: &Engine,
        status: &mut Status,
    ) -> Result<Duration, RequestError> {
        let Some(containers) = engine.containers.as_deref() else {
            return Ok(self.config.resync);
        };
        let (settings, problems) = match self.identify(engine).await? {
            Ok(identified) => identified,
            Err(problem) => {
                status.problems.push(problem);
                return Ok(self.config.resync);
            }
        };
        status.host = Some(settings.host.clone());
        status.problems = problems;
        let overdue = self.overdue(containers);
        let (unread, ending) = (&engine.unread, self.config.deregister);
        let mut wished = wishes(containers, unread, &overdue, &settings, ending);
        let mut seen = std::mem::take(&mut wished.seen);
        seen.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        status.containers = Some(seen.into());
        status.services = wished.services.len();
        status.left_out = wished.left_out;
        let services = i64::try_from(wished.services.len()).unwrap_or(i64::MAX);
        self.metrics.services.set(services);
        status.problems.extend(wished.problems.iter().cloned());
        self.forget_due_reports(&wished);
        // A registration may change more than it says, such as a maintenance, and so may a removal, such as an alias:
        // look once more.
        for round in 0..ROUNDS {
            let held = self.agent.held().await?;
            self.memory.look(&wished, &held);
            let owner = owner(&self.config, &settings);
            let (steps, taken) = plan(&wished, &held, owner, &self.memory);
            let is_deep = |step| matches!(step, &Step::Register(_) | &Step::Deregister { .. });
            let deep = steps.iter().any(is_deep);
            let (agent, memory) = (&self.agent, &mut self.memory);
            let refused = apply(agent, steps, &wished, memory, &self.metrics).await?;
            let last = !deep || !refused.is_empty() || round + 1 == ROUNDS;
            if last {
                status.problems.extend(taken);
                status.problems.extend(refused);
                break;
            }
        }
        status.problems.sort();
        status.problems.dedup();
        Ok(self.pause(&wished))
    }

    /// The settings with the identity of this host, and what is doubtful about it.
    async fn identify(
        &mut self,
        engine: &Engine,
    ) -> Result<Result<(Settings, Vec<Problem>), Problem>, RequestError> {
        if self.node.is_none() {
            match self.agent.identity().await {
                Ok(identity) => (self.node, self.has_named) = (Some(identity), true),
                // A token that Consul cannot look up at the moment has no rights either: this host keeps its name, and
                // who never had the right is asked again each time.
                Err(error) if error.is_forbidden() && !self.has_named => {}
                Err(error) => return Err(error),
            }
        }
        let node = self.node.as_ref();
        let name = engine.name.as_deref().unwrap_or_default();
        let none = Containers::new();
        let containers = engine.containers.as_deref().unwrap_or(&none);
        let mut identified = identify(&self.config, node, name, containers);
        if let (Ok((settings, problems)), None, None) = (&mut identified, node, &self.config.host) {
            problems.push(Problem::new(
                "registrar",
                format!(
                    "the token may not read which node the Consul agent is, so that this host is {}, \
                     as the engine calls it; give it agent_prefix \"\" read, or set [registrar] host",
                    settings.host
                ),
            ));
        }
        Ok(identified)
    }

    /// The containers that are ending for longer than the window.
    fn overdue(&mut self, containers: &Containers) -> BTreeSet<String> {
        let now = Instant::now();
        let is_ending = |id: &str| {
            containers
                .get(id)
                .is_some_and(|it| it.state == State::Ending)
        };
        self.ending.retain(|id, _| is_ending(id));
        for id in containers.keys().filter(|id| is_ending(id)) {
            self.ending.entry(id.clone()).or_insert(now);
        }
        let window = self.config.drain;
        let late = self
            .ending
            .iter()
            .filter(|(_, since)| now - **since >= window);
        late.map(|(id, _)| id.clone()).collect()
    }

    /// Lets reports be sent again whose time is half over, and those of checks that are gone.
    fn forget_due_reports(&mut self, wished: &Wishes) {
        let mut renewals: BTreeMap<&str, Option<Duration>> = BTreeMap::new();
        for wish in wished.services.values() {
            for check in &wish.registration.checks {
                renewals.insert(&check.id, self.renewal(&check.kind));
            }
        }
        let now = Instant::now();
        self.memory.reported.retain(|check, (_, at)| {
            // A little early is better than late.
            let is_due = |renewal: Duration| now - *at >= renewal.mul_f64(0.9);
            renewals
                .get(&**check)
                .is_some_and(|it| !it.is_some_and(is_due))
        });
    }

    /// How often a check must hear from us.
    fn renewal(&self, kind: &CheckKind) -> Option<Duration> {
        match kind {
            CheckKind::Docker => Some(DOCKER_TTL / 2),
            CheckKind::Heartbeat(ttl) => Some(self.config.ttl_refresh.unwrap_or(*ttl / 2)),
            _ => None,
        }
    }

    /// How long Consul may be left alone.
    fn pause(&self, wished: &Wishes) -> Duration {
        let checks = wished
            .services
            .values()
            .flat_map(|it| &it.registration.checks);
        let renewals = checks.filter_map(|check| self.renewal(&check.kind));
        let now = Instant::now();
        let drains = self.ending.values().map(|since| *since + self.config.drain);
        // Those that are over have had their end.
        let drains = drains.filter_map(|end| end.checked_duration_since(now));
        let drains = drains.filter(|left| !left.is_zero());
        renewals
            .chain(drains)
            .fold(self.config.resync, Duration::min)
    }

    /// Removes everything that is ours.
    async fn leave(&mut self, engine: &Engine) {
        let gone = async {
            let Ok((settings, _)) = self.identify(engine).await? else {
                return Ok(());
            };
            let held = self.agent.held().await?;
            let none = Wishes::default();
            let owner = owner(&self.config, &settings);
            let (steps, _) = plan(&none, &held, owner, &self.memory);
            let (agent, memory) = (&self.agent, &mut self.memory);
            let refused = apply(agent, steps, &none, memory, &self.metrics).await?;
            for problem in refused {
                warn!(%problem, "not deregistered");
            }
            Ok::<_, RequestError>(())
        };
        if let Err(error) = gone.await {
            warn!(error = %error.explain(), "the services of this host stay registered");
        }
    }
}

fn owner<'o>(config: &'o Config, settings: &'o Settings) -> Ownership<'o> {
    Ownership {
        host: &settings.host,
        adopt: &config.adopt,
    }
}

/// For what was begun when the registrar ends.
const LAST_TURN: Duration = Duration::from_secs(3);
/// Looks at Consul for one change.
const ROUNDS: usize = 3;
/// Between attempts while Consul is away.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
