//! The front's own process: gives up root and every capability before its first thread, then serves until it
//! is told to drain. It lives on when its agent dies, with its last routes.

mod agent;
mod privileges;

use std::{io, sync::Arc, time::Duration};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Uid, geteuid},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    agent::{Leave, Parted, attend, is_trusted, obey_leaving},
    privileges::drop_privileges,
};
use super::{
    Front, Limits, Listeners, Reason, Workers,
    control::{CONTROL, FRONT, FRONT_TLS},
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

/// Listeners, runtimes, logs.
const RESERVED_DESCRIPTORS: usize = 128;

/// Per worker: at up to 64 KiB of buffers for each that is busy this is memory enough.
const MOST_CLIENTS: usize = 32 * 1024;

/// How long a front without routes waits for an agent.
const ALONE: Duration = Duration::from_secs(10);

/// How long memory stays with a front that may need it again: the first ones after a pause would wait for the kernel to clear as
/// much.
const KEEP: Duration = Duration::from_secs(10);
