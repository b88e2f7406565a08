//! What one port of a container is registered as. Values only; [`crate::discover::consul`] knows how Consul
//! writes them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    catalog::{Problem, Reach},
    docker::Port,
};

/// One service of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Unique on the Consul agent.
    pub id: String,
    /// The service.
    pub name: String,
    /// Where clients are sent.
    pub address: SocketAddr,
    /// All addresses of the instance, for clients of every view.
    pub reach: Reach,
    /// Where the other addresses of the host lead to it, by their tags.
    pub tagged: BTreeMap<String, SocketAddr>,
    /// In the order in which they were written; none twice.
    pub tags: Vec<String>,
    /// Attributes, options and our own marks, within Consul's limits.
    pub meta: BTreeMap<String, String>,
    /// The share while it passes, 1 to 65535; `None` leaves Consul's default.
    pub weight: Option<u16>,
    /// Empty means that Consul takes the instance for healthy.
    pub checks: Vec<Check>,
    /// The full id of its container.
    pub container: String,
    /// The port within the container.
    pub port: Port,
}

/// One health check of a [`Registration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Unique on the Consul agent, and the same at every registration: Consul keeps its state by it.
    pub id: String,
    /// For people.
    pub name: String,
    /// What is checked.
    pub kind: CheckKind,
    /// How often, where Consul itself asks.
    pub interval: Duration,
    /// How long an answer may take; `None` leaves Consul's default.
    pub timeout: Option<Duration>,
    /// The state before the first result; `None` is critical.
    pub initial: Option<CheckStatus>,
    /// When Consul removes the service of a check that stays critical.
    pub deregister_after: Option<Duration>,
}

/// What a [`Check`] checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// An HTTP or HTTPS request to this URL.
    Http {
        /// Scheme, address, port and path.
        url: String,
        /// `None` is GET.
        method: Option<String>,
    },
    /// A program that the Consul agent runs, with its arguments.
    Command(Vec<String>),
    /// Whoever is checked says so itself, at least this often.
    Ttl(Duration),
    /// A TCP connect.
    Tcp(SocketAddr),
    /// gRPC's health protocol.
    Grpc {
        /// Where.
        address: SocketAddr,
        /// Whether by TLS.
        tls: bool,
        /// Whether its certificate is not looked at.
        skip_verify: bool,
    },
    /// The state of the service with this id at the same agent; critical while there is none.
    Alias(String),
    /// The HEALTHCHECK of the container, which we pass on and renew.
    Docker,
    /// That the registrar lives: passing, and renewed by us within this time.
    Heartbeat(Duration),
    /// It could not be made, for this reason: always critical.
    Unusable(String),
}

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// All is well.
    Passing,
    /// Something is odd.
    Warning,
    /// It fails.
    Critical,
}

/// Everything that a container's words ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What to register, in the order of the ports.
    pub registrations: Vec<Registration>,
    /// What somebody has to correct.
    pub problems: Vec<Problem>,
    /// What is not registered for a good reason, in words.
    pub left_out: Vec<String>,
    /// Whether something is not registered only because the host's address is not known: what is, stays.
    pub lacks_host: bool,
}

impl CheckStatus {
    /// Consul's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Registration {
    /// What [`Registration::meta`] must be to tell a registration with other checks apart, which Consul does
    /// not show: their hash (FNV-1a over their text).
    pub(super) fn checks_mark(checks: &[Check]) -> String {
        let text = format!("{checks:?}");
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}
