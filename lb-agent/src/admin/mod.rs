//! The admin interface: the status page, the API, the metrics and the health endpoints, on a unix socket
//! for the command line and on TCP for browsers and scrapers.
//!
//! It shows values that other stages own and passes an operator's wishes on; it decides nothing itself,
//! and no GET changes anything. Its own state is the token, the sessions that were opened with it, and two counters.

mod action;
mod audit;
mod clients;
mod components;
pub(crate) mod compose;
mod configuration;
pub mod events;
pub(crate) mod explain;
mod exposition;
pub mod figures;
mod flows;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod guesses;
mod history;
mod log;
mod metrics;
mod openapi;
pub mod otlp;
pub(crate) mod packets;
mod page;
mod places;
mod process;
mod published;
mod readiness;
mod refusals;
mod registered;
pub mod report;
mod reports;
mod router;
#[cfg(test)]
pub(crate) mod sample;
mod serve;
mod session;
mod socket;
mod stream;
pub mod text;
mod token;
pub(crate) mod trace;
mod vips;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_front::FrontStats;
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use events::Events;
pub use figures::{Figure, Figures, Sample};
pub use guard::Published;
pub use readiness::Readiness;
pub use report::{Component, Mark};
pub use socket::{SocketError, bind_socket};
pub use token::TokenError;

use self::{
    action::Counts,
    guard::{Actor, Guard, Rank},
    guesses::Guesses,
    history::History,
    otlp::Pusher,
    reports::ReportRequest,
    router::{Desk, router},
    session::Sessions,
    stream::Streams,
    token::Token,
};
use crate::{
    clients::Clients,
    config::Setting,
    last_lines::LastLines,
    order::OrderRequest,
    packet, registrar, removal,
    snapshot::Snapshot,
    sockets::Sockets,
    stats::{KeptRequest, StatsRequest},
    trace::TraceRequest,
    vip,
};

/// How the admin interface is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the token is kept that changes over TCP must show; made on first use.
    pub state_dir: PathBuf,
    /// The token file of the operator's own choice; needed to listen beyond loopback.
    pub token_file: Option<PathBuf>,
    /// Host names under which the page may be asked for, beside loopback addresses and `localhost`.
    pub names: Vec<String>,
    /// Between two points of the page's graphs.
    pub step: Duration,
    /// Who reads it under these names.
    pub published: Published,
    /// The users who may use the unix socket, beside root and the agent's own.
    pub allow_uids: BTreeSet<u32>,
    /// Whether single backends have metrics of their own.
    pub per_backend: bool,
    /// Where metrics are pushed to; `None` pushes none.
    pub otlp: Option<otlp::Config>,
}

/// The [`Config::step`] for people: ten minutes are in sight.
pub const STEP: Duration = Duration::from_secs(5);

/// What the admin interface shows, and whom it passes wishes on to.
pub struct Inputs {
    /// The value that everything else is made of; `None` until discovery has answered.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Asks the data plane for its figures.
    pub stats: mpsc::Sender<StatsRequest>,
    /// Asks to follow the decisions for a service.
    pub traces: mpsc::Sender<TraceRequest>,
    /// Asks where a client is kept.
    pub kept: mpsc::Sender<KeptRequest>,
    /// Asks for the open flows.
    pub sockets: Sockets,
    /// Whose flows will be cut.
    pub removal: watch::Receiver<removal::Status>,
    /// The front's own figures; `None` while there is no front.
    pub front: watch::Receiver<Option<FrontStats>>,
    /// Passes orders about instances on.
    pub orders: mpsc::Sender<OrderRequest>,
    /// Where an order must have come before it is in force.
    pub followers: Vec<Follower>,
    /// Asks for the virtual addresses, and passes changes of them on.
    pub vips: mpsc::Sender<vip::Request>,
    /// Who the clients on this host are; `None` until the Docker Engine has answered.
    pub clients: watch::Receiver<Option<Arc<Clients>>>,
    /// How registration is; `None` where this agent registers nothing.
    pub registrar: Option<watch::Receiver<registrar::Status>>,
    /// The packet path; `None` where there is none.
    pub packet: Option<packet::Handle>,
    /// The configuration as it is shown, without secrets.
    pub settings: Vec<Setting>,
    /// Where the virtual addresses and their IPv6 twins are.
    pub pools: vip::Pools,
    /// What happened; changes that are asked for are added here.
    pub events: Events,
    /// The last lines of the log.
    pub log: LastLines,
    /// Whether the agent is ready.
    pub readiness: Readiness,
    /// The metrics of the other stages, in a registry with the prefix `lb`. The stages keep their
    /// numbers; [`Figures`] adapts plain values.
    pub registry: Registry,
    /// Host names, or whole `http://` addresses, by [`label`](crate::snapshot::Snapshot::label).
    pub hosts: HostNames,
    /// One line of `status` for each stage that the snapshot does not speak of: front, dns, registrar.
    pub components: Vec<ComponentLine>,
}

impl Inputs {
    /// For tests that need a few of them: channels without another end, and nothing to show.
    #[doc(hidden)]
    pub fn unconnected(sockets: Sockets) -> Self {
        Self {
            snapshots: watch::channel(None).1,
            stats: mpsc::channel(1).0,
            traces: mpsc::channel(1).0,
            kept: mpsc::channel(1).0,
            sockets,
            removal: watch::channel(removal::Status::default()).1,
            front: watch::channel(None).1,
            orders: mpsc::channel(1).0,
            followers: Vec::new(),
            vips: mpsc::channel(1).0,
            clients: watch::channel(None).1,
            registrar: None,
            packet: None,
            settings: Vec::new(),
            pools: vip::Pools::default(),
            events: Events::default(),
            log: LastLines::default(),
            readiness: Readiness::new([]),
            registry: Registry::with_prefix("lb"),
            hosts: Box::new(BTreeMap::new),
            components: Vec::new(),
        }
    }
}

/// Reads the host names that the front serves.
pub type HostNames = Box<dyn Fn() -> BTreeMap<String, Vec<String>> + Send + Sync>;

/// What follows the snapshots, for people, and the number of the last complete one that is in force there.
pub type Follower = (&'static str, watch::Receiver<Option<u64>>);

/// Reads how a stage is.
pub type ComponentLine = Box<dyn Fn() -> Component + Send + Sync>;

/// Why the admin interface cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others could reach it, and nothing would keep them out.
    #[error(
        "the admin page may not listen on {address} without a token of your own: set [admin] token_file, or listen on 127.0.0.1"
    )]
    TokenRequired {
        /// The address.
        address: SocketAddr,
    },
    /// There is no token to ask for.
    #[error("the admin interface has no token")]
    Token(#[from] TokenError),
    /// A listener cannot be used.
    #[error("cannot use a listener of the admin interface")]
    Listener(#[source] io::Error),
    /// Metrics cannot be pushed.
    #[error("[metrics.otlp]: {0}")]
    Otlp(String),
    /// A listener ended before it was told to.
    #[error("a listener of the admin interface ended by itself")]
    Ended,
}

/// Serves until told to stop, then lets requests in flight end.
///
/// # Errors
/// When the listeners or the token cannot be used: before anything is served.
pub async fn run(
    config: Config,
    unix: std::os::unix::net::UnixListener,
    tcp: Vec<std::net::TcpListener>,
    mut inputs: Inputs,
    stop: CancellationToken,
) -> Result<(), Error> {
    let token = token(&config, &tcp)?;
    let allow_uids = config.allow_uids.clone();
    let pusher = pusher(&config)?;
    if let Some(pusher) = &pusher {
        inputs.components.push(pusher.line());
        pusher.register(&mut inputs.registry);
    }
    let (desk, reports) = desk(config, token, inputs, stop.clone());
    let name = unix.local_addr().map_err(Error::Listener)?;
    let mut serving = JoinSet::new();
    if let Some(pusher) = pusher {
        serving.spawn(pusher.run(desk.clone(), stop.clone()));
    }
    serving.spawn(reports::run(desk.clone(), reports, stop.clone()));
    serving.spawn(history::run(desk.clone(), stop.clone()));
    serving.spawn(stream::run(desk.clone(), stop.clone()));
    let router = router(desk);

    unix.set_nonblocking(true).map_err(Error::Listener)?;
    let unix = UnixListener::from_std(unix).map_err(Error::Listener)?;
    let own_uid = nix::unistd::geteuid().as_raw();
    let actor = move |stream: &UnixStream, _| {
        let uid = stream.peer_cred().ok()?.uid();
        let rank = match uid {
            0 => Rank::Owner,
            uid if uid == own_uid => Rank::Owner,
            uid if allow_uids.contains(&uid) => Rank::Listed,
            _ => Rank::Stranger,
        };
        Some(Actor::Local { uid, rank })
    };
    serving.spawn(serve::serve(unix, router.clone(), actor, stop.clone()));

    for listener in tcp {
        listener.set_nonblocking(true).map_err(Error::Listener)?;
        let listener = TcpListener::from_std(listener).map_err(Error::Listener)?;
        let address = listener.local_addr().map_err(Error::Listener)?;
        info!(%address, "admin page");
        let actor = |stream: &tokio::net::TcpStream, peer| {
            let own = stream.local_addr().ok()?;
            Some(Actor::Remote { peer, own })
        };
        serving.spawn(serve::serve(listener, router.clone(), actor, stop.clone()));
    }

    let told = tokio::select! {
        () = stop.cancelled() => true,
        _ = serving.join_next() => stop.is_cancelled(),
    };
    if !told {
        serving.abort_all();
    }
    while serving.join_next().await.is_some() {}
    if let Some(path) = name.as_pathname() {
        socket::remove_dead(path).await;
    }
    if told { Ok(()) } else { Err(Error::Ended) }
}

/// Whether [`run`] would have a token, may listen there and could push metrics: to be asked before anything else is changed.
///
/// # Errors
/// As [`run`].
pub fn check(config: &Config, tcp: &[std::net::TcpListener]) -> Result<(), Error> {
    token(config, tcp)?;
    pusher(config).map(drop)
}

fn pusher(config: &Config) -> Result<Option<Pusher>, Error> {
    let pusher = config.otlp.clone().map(Pusher::new);
    pusher.transpose().map_err(Error::Otlp)
}

fn token(config: &Config, tcp: &[std::net::TcpListener]) -> Result<Token, Error> {
    if let Some(path) = &config.token_file {
        return Ok(Token::read(path)?);
    }
    for listener in tcp {
        let address = listener.local_addr().map_err(Error::Listener)?;
        if !address.ip().is_loopback() {
            return Err(Error::TokenRequired { address });
        }
    }
    Ok(Token::read_or_make(&config.state_dir.join(TOKEN_FILE))?)
}

/// What the handlers share, and who asks it for a report.
fn desk(
    config: Config,
    token: Token,
    inputs: Inputs,
    stop: CancellationToken,
) -> (Desk, mpsc::Receiver<ReportRequest>) {
    let (reports, asked) = mpsc::channel(reports::WAITING);
    let mut registry = inputs.registry;
    let counts = Counts::default();
    counts.register(&mut registry);
    let names = config.names.iter().map(|name| name.to_ascii_lowercase());
    let names = names.collect();
    let desk = Desk {
        snapshots: inputs.snapshots,
        stats: inputs.stats,
        reports,
        traces: inputs.traces,
        kept: inputs.kept,
        sockets: inputs.sockets,
        removal: inputs.removal,
        front: inputs.front,
        orders: inputs.orders,
        followers: inputs.followers,
        vips: inputs.vips,
        clients: inputs.clients,
        registrar: inputs.registrar,
        packet: inputs.packet,
        settings: inputs.settings.into(),
        pools: inputs.pools,
        events: inputs.events,
        log: inputs.log,
        readiness: inputs.readiness,
        registry: Arc::new(registry),
        per_backend: config.per_backend,
        hosts: Arc::new(inputs.hosts),
        components: Arc::new(inputs.components),
        guard: Arc::new(Guard {
            names,
            published: config.published,
            token,
            sessions: Sessions::default(),
            guesses: Guesses::default(),
        }),
        counts,
        history: Arc::new(History::new(config.step)),
        streams: Arc::new(Streams::new(stop)),
        host: host_name().into(),
        started: SystemTime::now(),
    };
    (desk, asked)
}

fn host_name() -> String {
    let name = fs::read_to_string(Path::new("/proc/sys/kernel/hostname"));
    name.map_or_else(|_| "this host".to_owned(), |name| name.trim().to_owned())
}

/// The token's name in the state directory.
const TOKEN_FILE: &str = "admin.token";
