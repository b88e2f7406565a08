//! The front: HTTP for the outside world, routed by Host name.
//!
//! It is a process of its own without any capability (`lb-agent front`), a child of the agent that outlives
//! it: [`child_main`] is all of that process. Routes come to it over a
//! socket, at first all of them and then what changes, listeners as descriptors. It never looks at the catalog, decides about health or registers
//! anything.
//!
//! | file | room |
//! |---|---|
//! | `child`, `control`, `handover` | the process, the messages between it and the agent, listeners beside them |
//! | `routes`, `carried` | host names and the backends behind them, names that carry an address |
//! | `workers`, `worker`, `leave` | all threads, one thread, how clients are left when it ends |
//! | `rules`, `policy`, `lasting` | what services ask for beside that, doing it, what outlasts a change of it |
//! | `connection`, `client`, `crowd` | a client's connection, its state, how many it has |
//! | `wire`, `guard`, `pace` | its stream, the rules on its bytes, whether they come too slowly |
//! | `warm` | which silent connections keep their buffers |
//! | `gather` | few bytes in one piece, towards either side |
//! | `announced`, `proxy_header` | which client a proxy says a connection is of, by the PROXY protocol, and what backends are told by it |
//! | `h2`, `grpc` | HTTP/2 from a client, answers of the front's own to calls of gRPC |
//! | `tls` | the handshake, which certificate a client gets, and its stream after that |
//! | `proxy`, `request`, `forward`, `answer`, `body`, `exchange` | a request, what is told of its client, and the record of it |
//! | `table`, `backend`, `tunnel` | backends in turn, sending and connections to them, upgraded connections |
//! | `pages` | the operator's pages for what the front answers by itself |
//! | `limits` | what an operator may say of the limits |
//! | `timer`, `generations` | a timer that fires rarely, a map that forgets |
//! | `users`, `passwords` | who may use a service that asks, whether a password is right |
//! | `stats`, `services`, `ways`, `spoken`, `traffic`, `news`, `log` | figures, those by service, in which ways its requests went, methods and versions in them, what went to and from whom and how long it took, what an agent lacks of them, the access log |

mod announced;
mod answer;
mod backend;
mod body;
pub mod carried;
mod child;
mod client;
mod connection;
pub mod control;
mod crowd;
mod exchange;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gather;
mod generations;
mod grpc;
mod guard;
mod h2;
pub mod handover;
#[cfg(test)]
mod hot;
mod lasting;
mod leave;
mod limits;
pub mod log;
mod news;
mod pace;
mod pages;
mod passwords;
mod policy;
mod proxy;
mod proxy_header;
mod request;
pub mod routes;
pub mod rules;
mod services;
mod spoken;
mod stats;
mod table;
mod timer;
pub mod tls;
mod traffic;
mod tunnel;
pub mod users;
mod warm;
mod ways;
mod wire;
mod worker;
mod workers;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use tokio::sync::{Semaphore, watch};

pub use answer::Reason;
pub use backend::stats::{BackendStats, Ejected, ServiceStats};
pub use child::{ChildArgs, ChildError, child_main};
pub use forward::Forwarding;
pub use limits::LimitSettings;
pub use pages::{Page, Pages};
pub use policy::{HttpsSettings, StickyKey};
pub use services::ServiceTraffic;
pub use stats::{FrontStats, RequestCount, TerminationCount};
pub use table::Settings;
pub use workers::{Listeners, Workers};

use log::Log;
use routes::RoutesChange;
use table::Table;
use tls::{CertificateError, Tls};

/// What all workers share: the routing table, one atomic pointer.
pub struct Front {
    table: ArcSwap<Table>,
    /// Says that the table is another one.
    changed: watch::Sender<()>,
    /// The front's own, for what is not configured.
    own_limits: Limits,
    /// Those of each worker.
    limits: watch::Sender<Limits>,
    log: Arc<Log>,
    /// What TLS listeners show; `None`: nothing has come yet.
    tls: ArcSwapOption<ServerConfig>,
    /// Made by the first that comes.
    tls_maker: OnceLock<tls::Maker>,
    /// Passwords that are looked at at once.
    passwords: Arc<Semaphore>,
}

impl Front {
    /// A front that knows no routes yet and says so to everybody.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            table: ArcSwap::from_pointee(Table::unknown()),
            changed: watch::Sender::new(()),
            own_limits: limits,
            limits: watch::Sender::new(limits),
            log: Log::new(),
            tls: ArcSwapOption::empty(),
            tls_maker: OnceLock::new(),
            passwords: Arc::new(Semaphore::new(passwords())),
        })
    }

    /// From now on clients of TLS listeners are shown `tls`, unless it is nothing and there was something: an agent that
    /// cannot read its certificates at its start does not take those of the one before. Connections that there are stay as
    /// they are.
    ///
    /// # Errors
    /// A certificate that cannot be used. Then all is as before.
    pub fn present(&self, tls: &Tls) -> Result<(), CertificateError> {
        let nothing = tls.certificates.is_empty() && tls.proofs.is_empty();
        if nothing && self.tls.load().is_some() {
            return Ok(());
        }
        let maker = self.tls_maker.get_or_init(tls::Maker::new);
        self.tls.store(Some(Arc::new(maker.config(tls)?)));
        Ok(())
    }

    /// The access log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// From now on requests follow `routes`, all of them. Only one caller at a time: the control connection.
    pub fn publish(&self, routes: &RoutesChange, settings: &Settings) {
        self.log.follow(&settings.log);
        // Before the first request can be routed.
        let limits = settings.limits.of(self.own_limits);
        self.limits.send_if_modified(|known| {
            let news = *known != limits;
            *known = limits;
            news
        });
        self.follow(Table::new(routes, settings, &self.table.load()));
    }

    /// From now on requests follow the routes after `change`. For the same caller.
    pub fn change(&self, change: &RoutesChange) {
        self.follow(self.table.load().after(change));
    }

    /// From now on these pages stand for lines of our own. For the same caller.
    pub fn show(&self, pages: &Pages) {
        self.follow(self.table.load().with_pages(pages));
    }

    fn follow(&self, table: Table) {
        self.table.store(Arc::new(table));
        self.changed.send_replace(());
    }

    /// Whether routes have ever come.
    pub fn has_routes(&self) -> bool {
        self.table.load().is_known()
    }
}

/// How many passwords are looked at at once: so many that requests still have a CPU.
fn passwords() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus / 2).max(1)
}

/// How long and how much the front bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Among how many workers is shared what is configured for all of them.
    pub workers: usize,
    /// From the start of a connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// From an answer to the next request.
    pub keep_alive: Duration,
    /// Between two pieces of a body, either way.
    pub body_idle: Duration,
    /// Bytes of a body in a second, on average, for a client to keep its place longer than twice `body_idle`; 0: it may
    /// be as slow as that allows.
    pub body_rate: u64,
    /// How long a client may take nothing of its answer.
    pub write_stall: Duration,
    /// How long a client that has closed its sending side may get nothing of an answer: it may have left.
    pub half_closed: Duration,
    /// For a connection to a backend.
    pub connect: Duration,
    /// From the end of the request to the head of the answer.
    pub response_head: Duration,
    /// How long nothing may move after an upgrade.
    pub tunnel_idle: Duration,
    /// From a request's head to the end of its answer; `None` is without an end.
    pub request: Option<Duration>,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// How long a connection to a backend waits for another request: shorter than servers keep it.
    pub pool_idle: Duration,
    /// Idle connections for each backend and worker.
    pub pool_size: usize,
    /// Connections to each backend of one worker; over HTTP/2 requests on them.
    pub backend_connections: usize,
    /// Connections to all backends of one worker: HTTP/2 has many requests on one of a client's.
    pub backend_connections_in_all: usize,
    /// How long a backend with requests under way may be silent over HTTP/2 before it is asked whether it lives, and once
    /// more for its answer.
    pub backend_silence: Duration,
    /// How long a request waits for a place when all backends have as many, or for others that are tried again.
    pub queue: Duration,
    /// How many requests of one worker do so, for each backend of a service.
    pub queued: usize,
    /// Client connections of one worker.
    pub client_connections: usize,
    /// Those of one client's address among them, or of its /64 in IPv6, together with its requests in HTTP/2.
    pub connections_per_client: usize,
    /// Requests at the same time on one of a client's connections over HTTP/2.
    pub streams: u32,
    /// How long a client over HTTP/2 may be silent before it is asked whether it lives, and once more for its answer.
    pub client_silence: Duration,
    /// How many silent connections of one worker keep hyper and its buffers, some 34 KB each.
    pub warm: usize,
    /// How long clients of a front without routes wait in the kernel's queue before they are told so.
    pub first_routes: Duration,
}

impl Limits {
    /// For `first_routes`: without an end, and nobody is told that there are none.
    pub(crate) const WHILE_ANOTHER_SERVES: Duration = Duration::MAX;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 1,
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            body_idle: Duration::from_secs(60),
            body_rate: 16,
            write_stall: Duration::from_secs(60),
            half_closed: Duration::from_secs(5),
            connect: Duration::from_secs(3),
            response_head: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(3600),
            request: None,
            max_body: u64::MAX,
            pool_idle: Duration::from_secs(30),
            pool_size: 64,
            backend_connections: 1024,
            backend_connections_in_all: 8192,
            backend_silence: Duration::from_secs(20),
            queue: Duration::from_secs(3),
            queued: 1024,
            client_connections: 8192,
            connections_per_client: 4096,
            streams: 100,
            client_silence: Duration::from_secs(20),
            warm: 128,
            first_routes: Duration::from_secs(3),
        }
    }
}
