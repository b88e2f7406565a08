//! The agent's side of the front: finds one that is still alive or starts one, sends it routes, and hears its
//! figures.
//!
//! The stage owns the listeners together with the front, and the child process. A front that dies is
//! started again on the same listeners, whose queues meanwhile keep the clients. One that was started by an earlier agent
//! as something else is replaced: the next one is started on its very listeners, and when requests follow its routes
//! the old one is told to go.

use std::{
    error::Error as _,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    net::unix::OwnedWriteHalf,
    process::Child,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use interface::workers;
use listen::Group;
use living::{Living, find, greet, is_nobody, successor};
use sent::Sent;
use telling::Telling;

use lb_front::{
    Listeners,
    control::{self, CONTROL, FRONT, FRONT_TLS, Order, Report, VERSION},
    tls::Tls,
};

use crate::{catalog::Problem, routes::RouteConfig, snapshot::Snapshot};

pub use interface::{End, Metrics, Outputs, SuperviseError, Supervisor};
pub use logging::LogFile;

mod interface;
mod listen;
mod living;
mod logging;
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
    inherited: impl Into<Listeners>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    outputs: Outputs,
    end: End,
) -> Result<(), SuperviseError> {
    let inherited = inherited.into();
    let plain = Group::new(FRONT, &config.listen, inherited.plain);
    let tls = Group::new(FRONT_TLS, &config.listen_tls, inherited.tls);
    // Who asks for nothing at all takes what there is.
    let plain = match config.listen_tls.is_empty() {
        true => plain.anywhere(),
        false => plain,
    };
    let mut stage = Stage {
        config,
        plain,
        tls,
        child: None,
        former: None,
        retired: None,
        snapshots,
        outputs,
        trouble: None,
        end,
    };
    let mut pause = FIRST_PAUSE;
    let mut first = true;
    let mut left = false;
    while !stage.end.stop.is_cancelled() {
        let began = Instant::now();
        match stage.front().await {
            Ok(front) => {
                (first, left) = (false, false);
                let ended = stage.accompany(front).await;
                stage.outputs.stats.send_replace(None);
                if let Err(error) = ended {
                    tracing::warn!(%error, "the front ended; starting another one");
                    stage.report(Some(format!("it ended ({error}) and is started again")));
                }
            }
            Err(error) if first && !error.leaves_one() => return Err(error),
            Err(error) => {
                first = false;
                left = matches!(error, SuperviseError::Follow(_));
                let causes = std::iter::successors(error.source(), |it| (*it).source());
                let why: Vec<_> = causes.map(ToString::to_string).collect();
                let why = why.join(": ");
                tracing::error!(%error, why, "no front of this agent");
                stage.report(Some(format!("{error} ({why})")));
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
    // One that could not be replaced is not kept either.
    if left && !stage.end.keep_front.is_cancelled() {
        stage.end_left().await;
    }
    Ok(())
}

struct Stage {
    config: Supervisor,
    /// The listeners of the present front, for the next one.
    plain: Group,
    /// Those for TLS.
    tls: Group,
    /// The present front, if this agent started it.
    child: Option<Child>,
    /// Serves until the present one follows its routes.
    former: Option<Living>,
    /// The one before, with what is still open there.
    retired: Option<Living>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    outputs: Outputs,
    /// What is wrong with the front itself, beside the problems of its routes.
    trouble: Option<Problem>,
    end: End,
}

impl Stage {
    /// A living front, or a new one.
    async fn front(&mut self) -> Result<Living, SuperviseError> {
        self.former = None;
        let control = self.config.control.clone();
        match find(&control).await {
            Ok(mut front) if self.fits(&front) => {
                tracing::info!(pid = front.hello.pid, "adopted a living front");
                let living = std::mem::take(&mut front.listeners);
                self.plain.adopt(living.plain);
                self.tls.adopt(living.tls);
                return Ok(front);
            }
            Ok(front) if front.listeners.all().next().is_some() => {
                let next = self.follow(front).await;
                return next.map_err(|error| SuperviseError::Follow(Box::new(error)));
            }
            Ok(front) => {
                let hello = &front.hello;
                tracing::warn!(
                    pid = hello.pid,
                    version = hello.version,
                    "replacing a front that cannot hand over its listeners"
                );
                // First beside it, so that nobody is refused in between. Where it has an address for itself that
                // fails, and is made again below, when it lets go.
                let _ = self.listen();
                if let Err(error) = front.terminate(&control).await {
                    tracing::warn!(%error, "the other front cannot be told to end; end its process (`lb-agent front`)");
                }
            }
            Err(error) if is_nobody(&error) => tracing::debug!(%error, "no living front"),
            // Our own can be ended for sure, so that there is never a second one.
            Err(error) if self.child.is_some() => {
                tracing::warn!(%error, "replacing a silent front");
            }
            Err(source) => {
                return Err(SuperviseError::Silent {
                    path: control,
                    source,
                });
            }
        }
        self.end_child(Duration::ZERO).await;
        self.listen()?;
        self.child = Some(self.start(&control, &[])?);
        greet(&control).await.map_err(SuperviseError::Start)
    }

    /// Whether `front` is what this agent would start, where it would.
    fn fits(&self, front: &Living) -> bool {
        front.hello.version == VERSION
            && front.hello.kind == self.config.kind
            && self.plain.fits(&front.listeners.plain)
            && self.tls.fits(&front.listeners.tls)
    }

    /// A front in the place of `former`, which goes on until the new one follows its routes.
    async fn follow(&mut self, mut former: Living) -> Result<Living, SuperviseError> {
        let hello = &former.hello;
        tracing::info!(
            pid = hello.pid,
            version = hello.version,
            kind = hello.kind,
            "another front follows a living one"
        );
        self.end_child(Duration::ZERO).await;
        // Those that are not wanted any more are closed with that front.
        let handed = std::mem::take(&mut former.listeners);
        for (own, handed) in [(&mut self.plain, handed.plain), (&mut self.tls, handed.tls)] {
            own.inherit(&handed).map_err(SuperviseError::Start)?;
        }
        self.listen()?;
        let place = successor(&self.config.control);
        self.child = Some(self.start(&place, &["--successor"])?);
        match greet(&place).await {
            Ok(front) => {
                self.former = Some(former);
                Ok(front)
            }
            Err(error) => {
                self.end_child(Duration::ZERO).await;
                // Nobody is behind it any more.
                let _ = fs::remove_file(&place);
                Err(SuperviseError::Start(error))
            }
        }
    }

    /// Requests follow the present front's routes: the one before may go.
    async fn take_over(&mut self) {
        let Some(mut former) = self.former.take() else {
            return;
        };
        let seconds = self.config.retirement.as_secs();
        // In this order: whoever looks for a front in between finds the new one by what is left of it.
        if let Err(error) = former.order(&Order::Retire { seconds }).await {
            tracing::info!(%error, "the front before is gone");
        }
        let control = &self.config.control;
        if let Err(error) = fs::rename(successor(control), control) {
            tracing::warn!(%error, "the next agent will not find this front");
        }
        tracing::info!(pid = former.hello.pid, "the front before retires");
        self.retired = Some(former);
    }

    /// Sees to it that there are listeners at every address.
    fn listen(&mut self) -> Result<(), SuperviseError> {
        let workers = self.config.workers;
        self.plain.listen(workers)?;
        self.tls.listen(workers)
    }

    /// Lets go of all listeners.
    fn let_go(&mut self) {
        self.plain.all.clear();
        self.tls.all.clear();
    }

    fn start(&self, path: &Path, arguments: &[&str]) -> Result<Child, SuperviseError> {
        let control = listen::control(path).map_err(|source| SuperviseError::Control {
            path: path.to_owned(),
            source,
        })?;
        let mut passed = vec![(CONTROL, OwnedFd::from(control))];
        for group in [&self.plain, &self.tls] {
            for listener in &group.all {
                let copy = listener.try_clone().map_err(SuperviseError::Start)?;
                passed.push((group.name, copy.into()));
            }
        }
        let mut command = std::process::Command::new(&self.config.program);
        command.args(&self.config.arguments);
        command.arg(format!("--workers={}", self.config.workers));
        command.arg(format!("--grace-seconds={}", self.config.grace.as_secs()));
        command.arg(format!("--kind={}", self.config.kind));
        command.args(arguments);
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
        self.report(None);
        // The stage has what it needs of them.
        front.listeners = Listeners::default();
        // The one before has some, if there is one.
        let mut has_routes = front.hello.has_routes || self.former.is_some();
        let log = self.config.log_file.as_ref();
        let mut reopen = log.map(|log| log.reopen.clone());
        if let Some(reopen) = &mut reopen {
            reopen.mark_unchanged();
        }
        // Before the routes: the first request has its line.
        self.tell_log(&mut front.orders).await?;
        let mut telling = Telling::new(routes, self.config.settings.clone());
        let (stats_out, mut reports) = (self.outputs.stats.clone(), front.reports);
        let shown = self.config.shown.clone();
        let (followed_in, mut followed) = watch::channel(());
        let mut hear = std::pin::pin!(async move {
            while let Some(report) = control::receive(&mut reports).await? {
                match report {
                    Report::Figures(stats) => {
                        stats_out.send_replace(Some(stats));
                    }
                    Report::Follows => followed_in.send_replace(()),
                    Report::Shows(number) => drop(shown.send_replace(number)),
                }
            }
            Err::<(), _>(io::Error::from(io::ErrorKind::UnexpectedEof))
        });
        // Before the routes: what follows them must be able to shake hands.
        let mut certificates = self.config.certificates.clone();
        if let Some(certificates) = &mut certificates {
            tell_certificates(&mut front.orders, certificates).await?;
        }
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
                () = logging::wish(&mut reopen) => self.tell_log(&mut front.orders).await?,
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
                Ok(()) = changed(&mut certificates) => {
                    if let Some(certificates) = &mut certificates {
                        tell_certificates(&mut front.orders, certificates).await?;
                    }
                }
                // Where nobody sends them they stay as they are.
                Ok(()) = self.config.users.changed(), if news.is_none() => news = Some(Instant::now()),
                // Its end is heard above.
                Ok(()) = followed.changed(), if sent.is_some() => {
                    if let Some(sent) = sent.take() {
                        self.take_over().await;
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
                    // A service that asks for a password must not be closed for want of a list that was not read yet.
                    let Some(users) = self.config.users.borrow_and_update().clone() else {
                        continue;
                    };
                    let began = Instant::now();
                    has_routes |= snapshot.complete;
                    let told;
                    (telling, told) = telling.order(snapshot, users).await?;
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
        let keep = self.end.keep_front.is_cancelled();
        let mut others = Vec::from_iter(self.retired.take());
        // One that has nothing to serve is not worth keeping.
        let kept = match &self.former {
            Some(former) => keep.then_some(former.hello.pid),
            None => {
                (keep && (front.hello.has_routes || telling.has_told())).then_some(front.hello.pid)
            }
        };
        if let Some(pid) = kept {
            tracing::warn!(pid, "the front serves on with the last routes");
            if self.former.is_none() {
                return Ok(());
            }
        } else {
            others.extend(self.former.take());
        }
        // The port is free for others as soon as the front lets go of it, not only when its drain is over.
        self.let_go();
        // It may have ended by itself in this moment.
        let _ = control::send(&mut front.orders, &Order::Drain).await;
        for other in &mut others {
            let _ = other.order(&Order::Drain).await;
        }
        let limit = self.config.grace + Duration::from_secs(1);
        // One that was adopted is not our child; its end is the end of the connection.
        let all = async {
            let _ = (&mut hear).await;
            for other in &mut others {
                other.ended().await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!(pid = front.hello.pid, "the front did not drain in time");
        }
        self.end_child(Duration::from_secs(1)).await;
        // Nobody is behind them any more.
        let _ = fs::remove_file(successor(&self.config.control));
        if kept.is_none() {
            let _ = fs::remove_file(&self.config.control);
        }
        Ok(())
    }

    /// Tells the front behind `orders` where its access log goes, and the fronts before, which end with what they have.
    async fn tell_log(&mut self, orders: &mut OwnedWriteHalf) -> io::Result<()> {
        let log = self.config.log_file.as_ref();
        let file = match log.map(|log| log.open().map_err(|error| (log, error))) {
            None => None,
            Some(Ok(file)) => Some(file),
            Some(Err((log, error))) => {
                let path = log.path.display();
                let message = format!(
                    "its access log stays where it is: {path} cannot be opened ({error}); SIGHUP has it tried again"
                );
                self.report(Some(message));
                return Ok(());
            }
        };
        self.report(None);
        let before = self.former.iter_mut().chain(&mut self.retired);
        for other in before.filter(|it| it.hello.version == VERSION) {
            // It may have ended by now.
            let _ = logging::tell(&mut other.orders, file.as_ref()).await;
        }
        logging::tell(orders, file.as_ref()).await
    }

    /// Ends a front that serves on without this agent.
    async fn end_left(&mut self) {
        self.let_go();
        if let Ok(mut front) = find(&self.config.control).await
            && front.order(&Order::Drain).await.is_ok()
        {
            let limit = self.config.grace + Duration::from_secs(1);
            if timeout(limit, front.ended()).await.is_err() {
                tracing::warn!(pid = front.hello.pid, "the front did not drain in time");
            }
        }
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

/// Tells of the newest certificates.
async fn tell_certificates(
    orders: &mut (impl AsyncWrite + Unpin),
    certificates: &mut watch::Receiver<Arc<Tls>>,
) -> io::Result<()> {
    let tls = certificates.borrow_and_update().clone();
    let order = Order::Certificates((*tls).clone());
    timeout(ORDER, control::send(orders, &order)).await?
}

/// Ends when there are other certificates; never where there is no TLS.
async fn changed(
    certificates: &mut Option<watch::Receiver<Arc<Tls>>>,
) -> Result<(), watch::error::RecvError> {
    match certificates {
        Some(certificates) => certificates.changed().await,
        None => std::future::pending().await,
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
