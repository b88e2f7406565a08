//! What the stage is told, what it tells, and why it may end.

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::logging::LogFile;
use crate::{catalog::Problem, front::users::Lists, routes::RouteConfig};
use lb_front::{FrontStats, Pages, Settings, tls::Tls};

/// What the stage is told.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// The socket over which fronts obey; a front of an earlier agent is found by it.
    pub control: PathBuf,
    /// Where to listen when no listener was passed to the agent.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for TLS, likewise.
    pub listen_tls: Vec<SocketAddr>,
    /// What clients there are shown.
    pub certificates: Option<watch::Receiver<Arc<Tls>>>,
    /// Learns which of them clients are shown.
    pub shown: watch::Sender<u64>,
    /// How routes are made. Listeners of the front and the host's addresses are added to it.
    pub routes: RouteConfig,
    /// What the front answers.
    pub settings: Settings,
    /// Where its access log goes; `None`: to standard output.
    pub log_file: Option<LogFile>,
    /// The lists of users, of whom services may ask a password; `None` while they are not all known.
    pub users: watch::Receiver<Option<Arc<Lists>>>,
    /// The pages that stand for lines of the front's own; `None` while they are not all read.
    pub pages: watch::Receiver<Option<Pages>>,
    /// Worker threads of the front.
    pub workers: usize,
    /// How long requests in flight may take when everything ends.
    pub grace: Duration,
    /// How long connections may stay open at a front that another one follows.
    pub retirement: Duration,
    /// What kind of front this starts: its program, and what cannot change at run time. A living one of another kind is
    /// replaced.
    pub kind: String,
    /// The program that is the front, and its arguments without those that come from the fields above.
    pub program: PathBuf,
    /// See `program`.
    pub arguments: Vec<OsString>,
}

impl Supervisor {
    /// The usual: this very program as `front`, on `listen`.
    pub fn new(control: impl Into<PathBuf>, listen: Vec<SocketAddr>) -> Self {
        let grace = Duration::from_secs(30);
        Self {
            control: control.into(),
            listen,
            listen_tls: Vec::new(),
            certificates: None,
            shown: watch::Sender::default(),
            routes: RouteConfig::default(),
            settings: Settings::default(),
            log_file: None,
            // There are none.
            users: watch::Sender::new(Some(Arc::default())).subscribe(),
            pages: watch::Sender::new(Some(Pages::default())).subscribe(),
            workers: workers(),
            grace,
            retirement: Duration::from_secs(600),
            kind: String::new(),
            // By descriptor, so to speak: also right after the file was replaced by an upgrade.
            program: "/proc/self/exe".into(),
            arguments: vec!["front".into()],
        }
    }
}

/// Why there can be no front.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Somebody else listens there, or we may not.
    #[error("the front cannot listen on {address}; free it or choose another address")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The place for the control socket is not usable.
    #[error("cannot listen on the control socket {}", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A front may be there, and a second one would take half of its connections.
    #[error(
        "the front behind {} does not say hello, and is waited for; if it hangs, end that process (`lb-agent front`)",
        path.display()
    )]
    Silent {
        /// Its control socket.
        path: PathBuf,
        /// What came instead.
        source: io::Error,
    },
    /// There is one that another one should follow, and that serves on.
    #[error(
        "the front of an earlier agent serves on with its last routes, for no other can take its place"
    )]
    Follow(#[source] Box<SuperviseError>),
    /// The process cannot be started.
    #[error("cannot start the front")]
    Start(#[source] io::Error),
}

impl SuperviseError {
    /// Whether there may be a front all the same.
    pub(super) fn leaves_one(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Follow(_))
    }
}

/// How the stage is told that the agent ends.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The stage ends.
    pub stop: CancellationToken,
    /// Set before `stop` when the agent ends by a fault: the front is not to blame and serves on, for the
    /// next agent to adopt.
    pub keep_front: CancellationToken,
}

/// What the stage tells.
#[derive(Debug)]
pub struct Outputs {
    /// The front's own figures; `None` while there is no front.
    pub stats: watch::Sender<Option<FrontStats>>,
    /// What is wrong with routes, or with the front.
    pub problems: watch::Sender<Vec<Problem>>,
    /// The snapshot whose routes requests follow: [`Snapshot::reached`](crate::snapshot::Snapshot::reached).
    pub routed: watch::Sender<Option<u64>>,
    /// The stage's own figures.
    pub metrics: Arc<Metrics>,
}

/// Figures of the stage itself.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Changes of the routes that a front has come to follow.
    pub changes: AtomicU64,
    /// Microseconds from the arrival of the newest of them until requests followed it.
    pub last_duration_micros: AtomicU64,
}

pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
