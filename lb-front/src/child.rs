//! The front's own process: gives up root and every capability before its first thread, then serves until it
//! is told to drain. It lives on when its agent dies, with its last routes.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use caps::{CapSet, Capability};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};
use tokio::{
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Front, Limits, Listeners, Reason, Workers,
    control::{self, CONTROL, FRONT, FRONT_TLS, Hello, Order, Report, VERSION},
    handover,
    stats::FrontStats,
};

/// Arguments of `lb-agent front`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChildArgs {
    /// Worker threads; one for each CPU unless given.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Seconds that requests in flight have to finish when the front is told to end.
    #[arg(long, default_value_t = 30)]
    pub grace_seconds: u64,
    /// Write the log as JSON, one object a line.
    #[arg(long)]
    pub log_json: bool,
    /// Write the log for systemd's journal.
    #[arg(long)]
    pub log_journald: bool,
    /// What it says that it is; an agent replaces a front of another kind than it would start.
    #[arg(long, default_value = "")]
    pub kind: String,
    /// Take nobody before the first routes have come: another front is still there for clients.
    #[arg(long)]
    pub successor: bool,
}

/// Why the front's process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// What it was started with is not usable.
    #[error("cannot take over the passed descriptors")]
    Descriptors(#[source] io::Error),
    /// It was not started by the agent, or by somebody who forgot half of it.
    #[error(
        "no descriptor named `{0}` was passed; `lb-agent front` is started by `lb-agent run`, or with LISTEN_FDS and LISTEN_FDNAMES"
    )]
    Missing(&'static str),
    /// It will not run with more rights than it needs.
    #[error("cannot give up capabilities")]
    Privileges(#[source] io::Error),
    /// The system denies threads or sockets.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// A worker ended by itself.
    #[error("a worker failed")]
    Worker(#[source] io::Error),
}

/// Everything that `lb-agent front` does. Call it before any thread is started: capabilities belong to
/// threads.
///
/// # Errors
/// When it cannot start, or a worker fails.
pub fn child_main(args: &ChildArgs) -> Result<(), ChildError> {
    let mut inherited = lb_sys::inherit::Inherited::take().map_err(ChildError::Descriptors)?;
    let mut listeners = |name| inherited.tcp(name).map_err(ChildError::Descriptors);
    let listeners = Listeners {
        plain: listeners(FRONT)?,
        tls: listeners(FRONT_TLS)?,
    };
    let control = inherited.unix(CONTROL).map_err(ChildError::Descriptors)?;
    let control = control
        .into_iter()
        .next()
        .ok_or(ChildError::Missing(CONTROL))?;
    if listeners.all().next().is_none() {
        return Err(ChildError::Missing(FRONT));
    }
    // Whoever started this process gives the orders, not whom it becomes.
    let master = geteuid();
    drop_privileges().map_err(ChildError::Privileges)?;
    lb_sys::memory::keep_for(KEEP);
    let count = args.workers.unwrap_or_else(cpus).max(1);
    let mut limits = limits(count);
    if args.successor {
        limits.first_routes = Limits::WHILE_ANOTHER_SERVES;
    }
    let front = Front::new(limits);
    let grace = Duration::from_secs(args.grace_seconds);
    let workers = Workers::start(&front, &listeners, count, grace).map_err(ChildError::Start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ChildError::Start)?;
    // The workers have their own; these are for the next front.
    let own = Own {
        kind: args.kind.clone(),
        listeners,
    };
    runtime.block_on(serve(front, workers, control, own, master))
}

/// What the front says of itself, and hands over.
struct Own {
    kind: String,
    listeners: Listeners,
}

async fn serve(
    front: Arc<Front>,
    mut workers: Workers,
    control: std::os::unix::net::UnixListener,
    own: Own,
    master: Uid,
) -> Result<(), ChildError> {
    control.set_nonblocking(true).map_err(ChildError::Start)?;
    let control = UnixListener::from_std(control).map_err(ChildError::Start)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ChildError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ChildError::Start)?;
    let (asked, mut figures) = tokio::sync::mpsc::channel::<oneshot::Sender<_>>(1);
    // At most one: a new agent takes the place of the one before it.
    let mut agent = JoinSet::new();
    let own = Arc::new(own);
    let mut alone = Instant::now();
    // Its connection is open until the last request is answered: the agent waits for that end.
    let mut leave = Leave::default();
    loop {
        tokio::select! {
            accepted = control.accept() => match accepted {
                Ok((stream, _)) if is_trusted(&stream, master) => {
                    agent.abort_all();
                    agent.spawn(attend(stream, front.clone(), own.clone(), asked.clone()));
                }
                Ok(_) => tracing::warn!("refused a control connection of another user"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = agent.join_next() => {
                alone = Instant::now();
                match ended {
                    Ok(Ok(Parted::Leave(order))) => {
                        leave = order;
                        break;
                    }
                    Ok(Ok(Parted::Gone)) => tracing::info!("the agent is gone; serving on with the last routes"),
                    Ok(Err(error)) => tracing::warn!(%error, "the control connection failed"),
                    Err(_) => {} // Replaced by a newer one.
                }
            }
            // It may be a successor that nobody will ever look for.
            () = sleep_until(alone + ALONE), if agent.is_empty() && !front.has_routes() => {
                tracing::warn!("no agent, and no routes: the front ends");
                break;
            }
            Some(asker) = figures.recv() => {
                let _ = asker.send(workers.stats().await); // It may be gone.
            }
            ended = workers.ended() => {
                let early = io::Error::other("a worker ended by itself");
                return Err(ChildError::Worker(ended.err().unwrap_or(early)));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // So that a new agent does not take a leaving front for one that stays.
    drop(control);
    // An open one would keep the port after the drain.
    drop((agent, own));
    let Leave { agent, patience } = &mut leave;
    let hurry = CancellationToken::new();
    let leaving = async {
        if let Some(patience) = *patience {
            tracing::info!("front retires: the next one takes the connections");
            tokio::select! {
                () = sleep(patience) => {}
                () = hurry.cancelled() => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        tracing::info!("front drains");
    };
    let last = tokio::select! {
        last = workers.retire(leaving) => last,
        never = obey_leaving(agent, &front, &hurry) => match never {},
    };
    let cut = last.terminations.iter();
    for cut in cut.filter(|cut| cut.reason == Reason::Draining) {
        tracing::warn!(
            service = cut.service,
            requests = cut.count,
            "requests cut at the end of the drain"
        );
    }
    front.log.end();
    drop(leave);
    Ok(())
}

/// How a control connection ended.
enum Parted {
    Gone,
    Leave(Leave),
}

/// The order to end.
#[derive(Default)]
struct Leave {
    /// Who ordered it; nobody did who sent a signal.
    agent: Option<UnixStream>,
    /// How long connections may stay that are only open; `None`: not at all.
    patience: Option<Duration>,
}

impl Leave {
    fn by(order: &Order, agent: UnixStream) -> Option<Self> {
        let patience = match order {
            Order::Drain => None,
            Order::Retire { seconds } => Some(Duration::from_secs(*seconds)),
            _ => return None,
        };
        Some(Self {
            agent: Some(agent),
            patience,
        })
    }
}

/// Obeys the agent that has ordered this front to end, as far as that still concerns it, to the end.
async fn obey_leaving(
    agent: &mut Option<UnixStream>,
    front: &Front,
    hurry: &CancellationToken,
) -> Infallible {
    if let Some(agent) = agent {
        while let Ok(Some(order)) = control::receive(agent).await {
            match order {
                Order::Drain => hurry.cancel(),
                Order::Log { file } if log_into(agent, front, file).await.is_err() => break,
                _ => {}
            }
        }
    }
    std::future::pending().await
}

/// Writes the access log into the `file` that comes next over `agent`, or to standard output.
async fn log_into(agent: &UnixStream, front: &Front, file: bool) -> io::Result<()> {
    if !file {
        front.log.write_to(None);
    } else if let Some(file) = handover::receive_file(agent).await? {
        front.log.write_to(file);
    } // An agent that ended in between leaves it where it was.
    Ok(())
}

/// Obeys one agent.
async fn attend(
    mut stream: UnixStream,
    front: Arc<Front>,
    own: Arc<Own>,
    figures: tokio::sync::mpsc::Sender<oneshot::Sender<FrontStats>>,
) -> io::Result<Parted> {
    let address = |listener: &std::net::TcpListener| listener.local_addr().ok();
    let hello = Hello {
        version: VERSION,
        pid: nix::unistd::getpid().as_raw(),
        listeners: own.listeners.all().filter_map(address).collect(),
        tls: own.listeners.tls.iter().filter_map(address).collect(),
        has_routes: front.has_routes(),
        kind: own.kind.clone(),
    };
    let listeners: Vec<_> = own.listeners.all().collect();
    handover::send(&stream, &hello, &listeners).await?;
    drop(own);
    match timeout(HELLO, control::receive(&mut stream)).await?? {
        Some(Order::Hello { version: VERSION }) => {}
        Some(Order::Hello { .. }) => return attend_another(stream).await,
        _ => return Ok(Parted::Gone),
    }
    let (mut orders, mut reports) = stream.into_split();
    let (followed, mut follows) = watch::channel(());
    let (shown, mut shows) = watch::channel(0);
    let report = async {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<FrontStats> = None;
        loop {
            tokio::select! {
                biased; // The agent waits for this, and sends no more until it has it.
                Ok(()) = follows.changed() => {
                    control::send(&mut reports, &Report::Follows).await?;
                    continue;
                }
                Ok(()) = shows.changed() => {
                    let number = *shows.borrow_and_update();
                    control::send(&mut reports, &Report::Shows(number)).await?;
                    continue;
                }
                _ = second.tick() => {}
            }
            let (asked, answer) = oneshot::channel();
            figures.send(asked).await.map_err(io::Error::other)?;
            let stats = answer.await.map_err(io::Error::other)?;
            if told.as_ref() != Some(&stats) {
                let news = told.as_ref().and_then(|told| stats.news(told));
                let report = news.map_or_else(|| Report::Figures(stats.clone()), Report::News);
                control::send(&mut reports, &report).await?;
                told = Some(stats);
            }
        }
    };
    let last = {
        let mut obeying = std::pin::pin!(obey(&mut orders, &front, &followed, &shown));
        tokio::select! {
            last = &mut obeying => last?,
            // What an agent ordered before it ended counts.
            Err::<(), io::Error>(_) = report => obeying.await?,
        }
    };
    let Some(last) = last else {
        return Ok(Parted::Gone);
    };
    let stream = orders.reunite(reports).map_err(io::Error::other)?;
    Ok(Leave::by(&last, stream).map_or(Parted::Gone, Parted::Leave))
}

/// Waits for what an agent of another version may order: to end, in one way or the other. It has the listeners for the
/// next front, and tells nothing of routes.
async fn attend_another(mut stream: UnixStream) -> io::Result<Parted> {
    let order = control::receive(&mut stream).await?;
    let leave = order.and_then(|order| Leave::by(&order, stream));
    Ok(leave.map_or(Parted::Gone, Parted::Leave))
}

/// Follows routes until the agent is gone, or orders to end: then gives that order.
async fn obey(
    orders: &mut OwnedReadHalf,
    front: &Front,
    followed: &watch::Sender<()>,
    shown: &watch::Sender<u64>,
) -> io::Result<Option<Order>> {
    while let Some(order) = control::receive(orders).await? {
        match order {
            Order::Routes(routes, settings) => front.publish(&routes, &settings),
            Order::Change(change) => front.change(&change),
            Order::Pages(pages) => {
                front.show(&pages);
                continue;
            }
            Order::Log { file } => {
                log_into((*orders).as_ref(), front, file).await?;
                continue;
            }
            Order::Drain | Order::Retire { .. } => return Ok(Some(order)),
            Order::Certificates(tls) => {
                match front.present(&tls) {
                    Ok(()) => drop(shown.send_replace(tls.number)),
                    Err(error) => {
                        tracing::error!(%error, "a certificate that the agent sent; those before stay");
                    }
                }
                continue;
            }
            Order::Hello { .. } => continue,
        }
        followed.send_replace(());
    }
    Ok(None)
}

/// Only root and the user who started this process may give orders, whatever the socket's directory allows.
fn is_trusted(stream: &UnixStream, master: Uid) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == master.as_raw() || peer.uid() == 0)
}

/// Gives up root and all capabilities for good. The front needs neither: its listeners are open.
fn drop_privileges() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    // Only who may change the bounding set has something in it to lose.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(io::Error::other)? {
        caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    }
    if geteuid().is_root()
        && let Err(error) = become_nobody()
    {
        tracing::warn!(
            %error,
            "the front keeps the agent's user, who may open what root owns; give the agent CAP_SETUID, CAP_SETGID and CAP_KILL"
        );
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Root without capabilities still owns the pinned maps, the admin socket and most files of the host.
fn become_nobody() -> io::Result<()> {
    // The last one is for the agent: without it, root cannot end a process of another user.
    for needed in [
        Capability::CAP_SETGID,
        Capability::CAP_SETUID,
        Capability::CAP_KILL,
    ] {
        if !caps::has_cap(None, CapSet::Effective, needed).map_err(io::Error::other)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{needed} is missing"),
            ));
        }
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    Ok(())
}

/// As many connections as descriptors allow: each request may need one on both sides.
fn limits(workers: usize) -> Limits {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // More is better, and less is not wrong.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let descriptors = usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX);
    let defaults = Limits::default();
    let share = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / workers / 2;
    let clients = share.clamp(16, MOST_CLIENTS);
    Limits {
        workers,
        client_connections: clients,
        // However few clients there are, none keeps all others out.
        connections_per_client: clients / 2,
        backend_connections: defaults.backend_connections.div_ceil(workers),
        // In HTTP/1 no client needs more than one.
        backend_connections_in_all: clients,
        queued: defaults.queued.div_ceil(workers),
        ..defaults
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The overflow user and group: owns nothing, and needs no entry in a user database.
const NOBODY: u32 = 65_534;

/// Listeners, runtimes, logs.
const RESERVED_DESCRIPTORS: usize = 128;

/// Per worker: at up to 64 KiB of buffers for each that is busy this is memory enough.
const MOST_CLIENTS: usize = 32 * 1024;

const HELLO: Duration = Duration::from_secs(5);

/// How long a front without routes waits for an agent.
const ALONE: Duration = Duration::from_secs(10);

/// How long memory stays with a front that may need it again: the first ones after a pause would wait for the kernel to clear as
/// much.
const KEEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
