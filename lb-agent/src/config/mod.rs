//! The configuration: flags, then `LB_*` in the environment, then the file, then `CONSUL_*`, then what is built in.
//!
//! Two types: [`RawConfig`] is what somebody typed, [`Config`] is resolved and cannot be wrong. All mistakes
//! are told at once, each with where it was typed and what to do.

mod access_log;
mod announce;
mod args;
mod cgroup;
mod consul;
mod engine;
mod front_limits;
mod front_tls;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod load;
mod metrics;
mod packet;
mod raw;
mod register;
mod registrar;
mod resolve;
mod resolver;
mod secret;
mod shown;
pub mod table;
mod uninstall;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    discover::{
        self,
        consul::{Address, Tls, Warning},
    },
    docker, front, health,
    vip::Pool6,
};

pub use args::RunArgs;
pub(crate) use cgroup::unescaped;
pub use load::{DEFAULT_FILE, Outside};
pub use packet::{Packet, Pattern, Xdp};
pub use raw::{Given, Origin, RawConfig};
pub use register::{RegisterArgs, RegisterConfig, with_long_flags};
pub use resolve::resolve;
pub use resolver::{Action, InstallArgs, ResolverArgs};
pub use secret::Secret;
pub use shown::{Setting, is_typed};
pub use uninstall::{Places, UninstallArgs};

pub use crate::{admin::Published, routes::Expose};

/// Everything that the agent was told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where small values outlive the agent.
    pub state_dir: PathBuf,
    /// A mounted bpffs; the pins lie in `lb` below it.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory to attach to.
    pub cgroup: PathBuf,
    /// The unix socket of the command line.
    pub socket: PathBuf,
    /// How the log is written.
    pub log_format: LogFormat,
    /// The virtual addresses.
    pub vip: Vip,
    /// Where services are found; at least one.
    pub sources: Sources,
    /// Who answers for the VIPs on the networks of this host.
    pub announce: crate::announce::Config,
    /// The HTTP front.
    pub front: Front,
    /// The page, the metrics and the API.
    pub admin: Admin,
    /// Which metrics there are beside the usual ones, and where they are pushed to.
    pub metrics: Metrics,
    /// The resolver.
    pub dns: Dns,
    /// Our own probes.
    pub health: health::Config,
    /// Capacities of the maps.
    pub limits: Limits,
    /// The packet path; `None` has none.
    pub packet: Option<Packet>,
    /// How containers are registered; `None` does not register them.
    pub registrar: Option<crate::registrar::Config>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For the journal where standard error leads there, else for people.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
    /// For the journal: the level of each line before it, as sd-daemon(3) has it, and no time.
    Journald,
}

/// The virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Where they are taken from; the first is the agent's own.
    pub pool: Ipv4Net,
    /// Where their IPv6 twins are.
    pub pool6: Pool6,
    /// Part of what a VIP is a hash of: hosts with the same one agree.
    pub datacenter: String,
    /// How long the address of a service that left is kept from others.
    pub quarantine: Duration,
}

/// Where services are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A file of services.
    pub file: Option<PathBuf>,
    /// A Consul agent.
    pub consul: Option<Consul>,
    /// The Docker Engine of this host.
    pub docker: Option<Docker>,
}

/// The Docker Engine of this host, which is followed whether or not its containers are services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// Where it listens.
    pub address: docker::Address,
    /// How its containers are services; `None` if they are not.
    pub source: Option<discover::docker::Config>,
    /// Where the processes of its host are.
    pub proc: PathBuf,
}

/// A Consul cluster, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consul {
    /// Its agents or servers; at least one.
    pub addresses: Vec<Address>,
    /// For the addresses with `https`.
    pub tls: Tls,
    /// The ACL token.
    pub token: Option<ConsulToken>,
    /// `user` or `user:password` for a proxy before Consul.
    pub auth: Option<Secret>,
    /// Which datacenter to ask for; the agent's own if absent.
    pub datacenter: Option<String>,
    /// What becomes of instances with a warning check.
    pub warning: Warning,
    /// Which namespace to ask for.
    pub namespace: Option<String>,
    /// Which admin partition to ask for.
    pub partition: Option<String>,
    /// How long Consul may hold a blocking query.
    pub wait: Duration,
    /// How long a server may be without its leader and still be believed.
    pub max_stale: Duration,
    /// How many services are followed by a blocking query each.
    pub max_watches: u16,
}

/// Consul's ACL token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulToken {
    /// The token itself.
    Value(Secret),
    /// A file that held one at the start, and may hold another one later.
    File(PathBuf),
}

/// The HTTP front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Whether it runs.
    pub enabled: bool,
    /// Where it listens, unless listeners are passed in.
    pub listen: Vec<SocketAddr>,
    /// The domains below which every service has a host name.
    pub domains: Vec<String>,
    /// Which services it answers for.
    pub expose: Expose,
    /// The status for a host name that nobody claims.
    pub no_route_status: u16,
    /// The status for a service without a usable instance.
    pub no_backend_status: u16,
    /// Pages in place of lines of the front's own, and the file of each.
    pub pages: BTreeMap<front::pages::For, PathBuf>,
    /// How long it goes on when the agent is told to end and says that it is not ready.
    pub grace: Duration,
    /// How long requests in flight may take after that.
    pub drain: Duration,
    /// How long connections may stay at a front that another one follows.
    pub retirement: Duration,
    /// What backends are told about clients.
    pub forwarding: lb_front::Forwarding,
    /// The secret that the cookies of `lb_sticky` are signed with; made in the state directory if none is given.
    pub sticky_key_file: Option<PathBuf>,
    /// The lists of users of whom services may ask a password, and the file of each.
    pub auth: BTreeMap<String, PathBuf>,
    /// How long and how much it bears of clients and backends.
    pub limits: lb_front::LimitSettings,
    /// What is written down of requests.
    pub access_log: lb_front::log::LogSettings,
    /// In place of standard output.
    pub access_log_file: Option<PathBuf>,
    /// TLS; `None` is without.
    pub tls: Option<FrontTls>,
}

/// TLS at the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontTls {
    /// Where it is spoken, unless listeners are passed in.
    pub listen: Vec<SocketAddr>,
    /// The certificates.
    pub files: front::Files,
    /// More of them, from an authority.
    pub acme: Option<front::Acme>,
    /// What becomes of clients without.
    pub https: lb_front::HttpsSettings,
}

/// The page, the metrics and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where they listen, unless a listener is passed in.
    pub listen: SocketAddr,
    /// The file of the token that changes need.
    pub token_file: Option<PathBuf>,
    /// Host names that they answer to, beside `localhost` and addresses of this host.
    pub names: Vec<String>,
    /// Who reads under these names.
    pub published: Published,
    /// The users who may use the admin socket, beside root and the agent's own.
    pub allow_uids: BTreeSet<u32>,
}

/// What becomes of metrics beside being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Whether single backends have some of their own.
    pub per_backend: bool,
    /// Where they are pushed to; `None` pushes none.
    pub otlp: Option<crate::admin::otlp::Config>,
}

/// The resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Whether it runs.
    pub enabled: bool,
    /// Where it listens, unless sockets are passed in.
    pub listen: Vec<SocketAddr>,
    /// Whom it asks for everything else; `None` means those of /etc/resolv.conf.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Whom it asks for `*.consul`.
    pub consul: Option<SocketAddr>,
    /// Networks whose clients it answers beside this host and its private neighbours.
    pub allow: Vec<IpNet>,
    /// Whether the agent makes it the resolver of the host's own processes when it starts.
    pub host: bool,
}

/// Capacities of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services and parts.
    pub services: u32,
    /// Backends.
    pub backends: u32,
    /// Endpoints of the packet path.
    pub packet_services: u32,
    /// Flows of each family on the packet path.
    pub packet_flows: u32,
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Each begins with where it was typed.
    pub mistakes: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl Config {
    /// What is to be said of it although it can be obeyed, each with what to do.
    pub fn warnings(&self) -> Vec<String> {
        let otlp = self
            .metrics
            .otlp
            .as_ref()
            .and_then(crate::admin::otlp::Config::warning);
        let otlp = otlp.map(|warning| format!("[metrics.otlp]: {warning}"));
        otlp.into_iter().collect()
    }
}
