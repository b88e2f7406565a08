//! The agent's side of the front: finds one that is still alive or starts one, sends it routes, and hears its
//! figures.
//!
//! The stage owns the listeners while no front has them, and the child process. A front that dies is
//! started again on the same listeners, whose queues meanwhile keep the clients.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt as _,
    process::Child,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use interface::workers;
use living::{Living, greet, is_nobody};
use sent::Sent;
use telling::Telling;

use lb_front::control::{self, CONTROL, FRONT, Hello, Order, Report, VERSION};

use crate::{catalog::Problem, routes::RouteConfig, snapshot::Snapshot};

pub use interface::{End, Metrics, Outputs, SuperviseError, Supervisor};

mod interface;
mod listen;
mod living;
mod sent;
mod telling;

/// Listeners at `address`, one for each worker of the usual front.
///
/// # Errors
/// When the address is taken, or is not ours to take.
pub fn listeners(address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    listen::group(address, workers())
}

/// Keeps a front running and informed until the end, then drains and ends it, unless it is to be kept.
/// `inherited` are listeners that were passed to the agent under the name `front`; without any, it listens by itself once it knows that no
/// living front already does.
///
/// # Errors
/// When the first front cannot be started. Later failures are reported as problems and tried again, and so is the silence
/// of one that may be there.
pub async fn supervise(
    config: Supervisor,
    inherited: Vec<TcpListener>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    outputs: Outputs,
    end: End,
) -> Result<(), SuperviseError> {
    let mut stage = Stage {
        config,
        listeners: inherited,
        child: None,
        snapshots,
        outputs,
        trouble: None,
        end,
    };
    let mut pause = FIRST_PAUSE;
    let mut first = true;
    while !stage.end.stop.is_cancelled() {
        let began = Instant::now();
        match stage.front().await {
            Ok(front) => {
                first = false;
                let ended = stage.accompany(front).await;
                stage.outputs.stats.send_replace(None);
                if let Err(error) = ended {
                    tracing::warn!(%error, "the front ended; starting another one");
                    stage.report(Some(format!("it ended ({error}) and is started again")));
                }
            }
            Err(error) if first && !matches!(error, SuperviseError::Silent { .. }) => {
                return Err(error);
            }
            Err(error) => {
                first = false;
                let why = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, why, "no front");
                stage.report(Some(format!("{error} ({})", why.unwrap_or_default())));
            }
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = stage.end.stop.cancelled() => {}
        }
    }
    Ok(())
}

struct Stage {
    config: Supervisor,
    /// Those passed to the agent, or bound for the present front; empty beside an adopted one.
    listeners: Vec<TcpListener>,
    /// The present front, if this agent started it.
    child: Option<Child>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    outputs: Outputs,
    /// What is wrong with the front itself, beside the problems of its routes.
    trouble: Option<Problem>,
    end: End,
}

impl Stage {
    /// A living front, or a new one.
    async fn front(&mut self) -> Result<Living, SuperviseError> {
        match greet(&self.config.control).await {
            Ok(front) if front.hello.version == VERSION => {
                tracing::info!(pid = front.hello.pid, "adopted a living front");
                return Ok(front);
            }
            Ok(Living { hello, .. }) => {
                tracing::warn!(
                    pid = hello.pid,
                    version = hello.version,
                    "replacing a front of another version"
                );
                // First beside it, so that nobody is refused in between. Where it has an address for itself that
                // fails, and is made again below, when it lets go.
                let _ = self.listen();
                // It drains. It may be gone by now.
                let _ = kill(Pid::from_raw(hello.pid), Signal::SIGTERM);
            }
            Err(error) if is_nobody(&error) => tracing::debug!(%error, "no living front"),
            // Our own can be ended for sure, so that there is never a second one.
            Err(error) if self.child.is_some() => {
                tracing::warn!(%error, "replacing a silent front");
            }
            Err(source) => {
                let path = self.config.control.clone();
                return Err(SuperviseError::Silent { path, source });
            }
        }
        self.end_child(Duration::ZERO).await;
        self.listen()?;
        self.child = Some(self.start()?);
        greet(&self.config.control)
            .await
            .map_err(SuperviseError::Start)
    }

    /// Sees to it that there are listeners.
    fn listen(&mut self) -> Result<(), SuperviseError> {
        if self.listeners.is_empty() {
            let mut all = Vec::new();
            for &address in &self.config.listen {
                let bound = listen::group(address, self.config.workers);
                all.extend(bound.map_err(|source| SuperviseError::Listen { address, source })?);
            }
            self.listeners = all;
        }
        Ok(())
    }

    fn start(&self) -> Result<Child, SuperviseError> {
        let path = &self.config.control;
        let control = listen::control(path).map_err(|source| SuperviseError::Control {
            path: path.clone(),
            source,
        })?;
        let mut passed = vec![(CONTROL, OwnedFd::from(control))];
        for listener in &self.listeners {
            let copy = listener.try_clone().map_err(SuperviseError::Start)?;
            passed.push((FRONT, copy.into()));
        }
        let mut command = std::process::Command::new(&self.config.program);
        command.args(&self.config.arguments);
        command.arg(format!("--workers={}", self.config.workers));
        command.arg(format!("--grace-seconds={}", self.config.grace.as_secs()));
        command.stdin(std::process::Stdio::null());
        // The agent's environment may hold tokens, and the front talks to everybody.
        command.env_clear();
        command.envs(std::env::var_os(LOG_LEVEL).map(|level| (LOG_LEVEL, level)));
        // A group of its own: Ctrl-C on a terminal is for the agent, which then drains the front.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        lb_sys::inherit::pass(&mut command, passed);
        tokio::process::Command::from(command)
            .spawn()
            .map_err(SuperviseError::Start)
    }

    /// Sends routes and hears figures until the front ends, which is an error, or the agent does.
    async fn accompany(&mut self, mut front: Living) -> io::Result<()> {
        let own = self.config.routes.clone();
        let listeners = own
            .listeners
            .iter()
            .chain(&front.hello.listeners)
            .copied()
            .collect();
        let routes = RouteConfig { listeners, ..own };
        self.report(self.elsewhere(&front.hello));
        let mut has_routes = front.hello.has_routes;
        let mut telling = Telling::new(routes, self.config.settings.clone());
        let (stats_out, mut reports) = (self.outputs.stats.clone(), front.reports);
        let (followed_in, mut followed) = watch::channel(());
        let mut hear = std::pin::pin!(async move {
            while let Some(report) = control::receive(&mut reports).await? {
                match report {
                    Report::Figures(stats) => {
                        stats_out.send_replace(Some(stats));
                    }
                    Report::Follows => followed_in.send_replace(()),
                }
            }
            Err::<(), _>(io::Error::from(io::ErrorKind::UnexpectedEof))
        });
        let mut patience = std::pin::pin!(sleep(PATIENCE));
        let mut patient = true;
        // Since when there is a snapshot that was not looked at, and what the front has not yet said that it follows.
        let mut news = Some(Instant::now());
        let mut sent: Option<Sent> = None;
        let mut rested = Instant::now();
        loop {
            let until = sent.as_ref().map_or(rested, |sent| sent.began + ORDER);
            tokio::select! {
                ended = &mut hear => {
                    // Gone, or only cut off: then it is adopted like any other.
                    if let Some(child) = &mut self.child
                        && let Ok(status) = timeout(CRASH_TIME, child.wait()).await
                    {
                        self.child = None;
                        return Err(status.map_or_else(|error| error, |status| io::Error::other(status.to_string())));
                    }
                    return ended;
                }
                () = self.end.stop.cancelled() => break,
                () = &mut patience, if patient => {
                    patient = false;
                    news.get_or_insert_with(Instant::now);
                }
                changed = self.snapshots.changed(), if news.is_none() => {
                    if changed.is_err() {
                        self.end.stop.cancelled().await;
                        break;
                    }
                    news = Some(Instant::now());
                }
                // Its end is heard above.
                Ok(()) = followed.changed(), if sent.is_some() => {
                    if let Some(sent) = sent.take() {
                        self.follows(&sent);
                        rested = sent.rested(Instant::now());
                    }
                }
                () = sleep_until(until), if sent.is_some() => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not follow its routes"));
                }
                () = sleep_until(until), if news.is_some() && sent.is_none() => {
                    let since = news.take().unwrap_or(until);
                    let snapshot = self.snapshots.borrow_and_update().clone();
                    // Unknown is not empty: a front with routes keeps them until all sources and probes have
                    // spoken. A new one waits a moment for that, its connections in the kernel's queue.
                    let reached = snapshot.as_ref().and_then(|it| it.reached());
                    let Some(snapshot) = snapshot.filter(|it| it.complete || (it.is_known() && !has_routes && !patient)) else {
                        // Its routes are as new as anything that was kept, but not made of this.
                        if has_routes && reached.is_some() && self.outputs.routed.borrow().is_none() {
                            self.routed(Some(0));
                        }
                        continue;
                    };
                    let began = Instant::now();
                    has_routes |= snapshot.complete;
                    let told;
                    (telling, told) = telling.order(snapshot).await?;
                    self.show(&telling);
                    let this = Sent { reached, since, began, cost: told.cost };
                    if let Some(order) = told.order {
                        timeout(ORDER, front.orders.write_all(&order)).await??;
                        sent = Some(this);
                    } else {
                        self.routed(this.reached);
                        rested = this.rested(Instant::now());
                    }
                }
            }
        }
        // One that has nothing to serve is not worth keeping.
        if self.end.keep_front.is_cancelled() && (front.hello.has_routes || telling.has_told()) {
            tracing::warn!(
                pid = front.hello.pid,
                "the front serves on with the last routes"
            );
            return Ok(());
        }
        // The port is free for others as soon as the front lets go of it, not only when its drain is over.
        self.listeners.clear();
        // It may have ended by itself in this moment.
        let _ = control::send(&mut front.orders, &Order::Drain).await;
        let limit = self.config.grace + Duration::from_secs(1);
        // One that was adopted is not our child; its end is the end of the connection.
        if timeout(limit, &mut hear).await.is_err() {
            tracing::warn!(pid = front.hello.pid, "the front did not drain in time");
        }
        self.end_child(Duration::from_secs(1)).await;
        // Nobody is behind it any more.
        let _ = std::fs::remove_file(&self.config.control);
        Ok(())
    }

    /// Waits for the end of the child, and enforces it after `limit`, so that no zombie and no second front
    /// stays.
    async fn end_child(&mut self, limit: Duration) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if timeout(limit, child.wait()).await.is_err() {
            tracing::warn!(
                pid = child.id(),
                "the front did not end in time; killing it"
            );
            // Fails only when it has ended in between.
            let _ = child.kill().await;
        }
    }

    /// Tells what could not become a route.
    fn show(&self, telling: &Telling) {
        let mut problems: Vec<Problem> = telling.problems().cloned().collect();
        problems.extend(self.trouble.clone());
        self.outputs.problems.send_if_modified(|known| {
            let new = *known != problems;
            *known = problems;
            new
        });
    }

    /// The front says that requests follow what was `sent`.
    fn follows(&self, sent: &Sent) {
        let metrics = &self.outputs.metrics;
        let micros = u64::try_from(sent.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        metrics.changes.fetch_add(1, Ordering::Relaxed);
        metrics
            .last_duration_micros
            .store(micros, Ordering::Relaxed);
        self.routed(sent.reached);
    }

    fn routed(&self, reached: Option<u64>) {
        if reached.is_some() {
            self.outputs.routed.send_replace(reached);
        }
    }

    /// Whether an adopted front listens somewhere else than it should.
    fn elsewhere(&self, hello: &Hello) -> Option<String> {
        let passed = self
            .listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok());
        let mut wanted: BTreeSet<_> = passed.collect();
        if wanted.is_empty() {
            wanted.extend(&self.config.listen);
        }
        let has: BTreeSet<_> = hello.listeners.iter().copied().collect();
        // Port 0 is whatever the kernel chose.
        let missing = wanted
            .iter()
            .find(|address| address.port() != 0 && !has.contains(address))?;
        Some(format!(
            "it was started by an earlier agent and does not listen on {missing}; end it (its process drains on SIGTERM) to have it started anew"
        ))
    }

    fn report(&mut self, trouble: Option<String>) {
        let trouble = trouble.map(|message| Problem::new("front", message));
        self.outputs.problems.send_if_modified(|known| {
            let before = known.clone();
            known.retain(|problem| Some(problem) != self.trouble.as_ref());
            known.extend(trouble.clone());
            *known != before
        });
        self.trouble = trouble;
    }
}

/// The one variable that agent and front share.
const LOG_LEVEL: &str = "LB_LOG";

/// How long a front without routes waits for a complete snapshot before it takes an incomplete one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a front may take to read an order, and then to follow it.
const ORDER: Duration = Duration::from_secs(10);

/// How long a front that has lost its control connection may take to be gone.
const CRASH_TIME: Duration = Duration::from_millis(500);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
