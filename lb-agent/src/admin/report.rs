//! The report: what the page, the API, the metrics and the command line all show, one value.
//!
//! It is also the JSON of `/api/v1/snapshot` and of `-o json`, so its names are kept: a field may be
//! added, none changes its meaning without a new [`API`]. `null` means not known, never none.

mod asked;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_common::LATENCY_BUCKETS;
use serde::{Deserialize, Serialize};

pub use asked::{
    ACTION_HEADER, PIN_PATH, PinOrder, RELEASE_PATH, Refused, ReleaseOrder, SESSION_HEADER,
    SESSION_PATH, STATE_PATH, SessionAnswer, SessionOrder, StateAnswer, StateOrder,
};

use crate::{
    catalog::{Check, InstanceKey, Problem, SourceHealth},
    order::Mode,
    packet,
    snapshot::{FULL, ProbeState, State},
    stats::{Handshakes, Refusals},
};

/// Version of the report's meaning.
pub const API: u32 = 1;

/// Everything there is to see at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// [`API`] of the agent that made it.
    pub api: u32,
    /// The agent's version.
    pub version: String,
    /// The host's name.
    pub host: String,
    /// When the report was made, in seconds since 1970.
    pub now_unix: u64,
    /// When the agent started, in seconds since 1970.
    pub started_unix: u64,
    /// Whether the agent is ready.
    pub ready: bool,
    /// Why it is not.
    pub waiting_for: Vec<String>,
    /// The number of the snapshot that this is made of, which rises with each; `null` until discovery has answered.
    #[serde(default)]
    pub snapshot: Option<u64>,
    /// Whether every source has had its first full answer.
    pub complete: bool,
    /// The parts of the agent, one line each.
    pub components: Vec<Component>,
    /// Everything that is wrong with what was registered or configured.
    pub problems: Vec<Problem>,
    /// The discovery sources, by name.
    pub sources: BTreeMap<String, Source>,
    /// The services; `null` until discovery has answered.
    pub services: Option<Vec<Service>>,
    /// The data plane; `null` when it did not answer.
    pub data_plane: Option<DataPlane>,
    /// The packet path; `null` where there is none.
    #[serde(default)]
    pub packet: Option<PacketPath>,
    /// Backends whose flows will be cut because they were taken out.
    #[serde(default)]
    pub cuts: Vec<Cut>,
}

/// How the agent is, without the services themselves: what `status` prints, and cheap to ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// [`API`] of the agent that made it.
    pub api: u32,
    /// Whether all is well: every component, and no problem.
    pub ok: bool,
    /// Whether the agent is ready.
    pub ready: bool,
    /// Why it is not.
    pub waiting_for: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// The host's name.
    pub host: String,
    /// Services by state; `null` until discovery has answered.
    pub services: Option<BTreeMap<ServiceState, usize>>,
    /// The parts of the agent, one line each.
    pub components: Vec<Component>,
    /// Everything that is wrong with what was registered or configured.
    pub problems: Vec<Problem>,
}

impl From<&Report> for Status {
    fn from(report: &Report) -> Self {
        let services = report.services.as_ref().map(|services| {
            let mut counts = BTreeMap::from(ServiceState::ALL.map(|state| (state, 0)));
            for service in services {
                *counts.entry(service.state).or_default() += 1;
            }
            counts
        });
        let well = report.components.iter().all(|line| line.mark == Mark::Ok);
        Self {
            api: report.api,
            ok: well && report.problems.is_empty(),
            ready: report.ready,
            waiting_for: report.waiting_for.clone(),
            version: report.version.clone(),
            host: report.host.clone(),
            services,
            components: report.components.clone(),
            problems: report.problems.clone(),
        }
    }
}

/// A backend that was taken out, and the end of its flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cut {
    /// Its service, which may be gone as well; the VIP if nobody knows any more whose that was.
    pub service: String,
    /// Who it is or was; absent if it left while no agent looked.
    #[serde(flatten)]
    pub key: Option<InstanceKey>,
    /// Where it was, in that case; else `null`.
    pub address: Option<SocketAddr>,
    /// When its flows are cut, in seconds since 1970.
    pub at_unix: u64,
    /// Its open flows; `null` when not known.
    pub active: Option<u64>,
}

/// One part of the agent, as one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Component {
    /// Its name.
    pub name: String,
    /// How it is.
    pub mark: Mark,
    /// The same in words.
    pub detail: String,
}

impl Component {
    /// The line of `name`.
    pub fn new(name: impl Into<String>, mark: Mark, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mark,
            detail: detail.into(),
        }
    }
}

/// How a component is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It fails somebody.
    Error,
    /// It works, and wants attention.
    Warning,
    /// It did not say.
    Unknown,
    /// All is well.
    Ok,
}

impl Mark {
    /// The word on the page and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Ok => "ok",
        }
    }
}

/// A discovery source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// When its last good answer came, in seconds since 1970; `null` before the first.
    pub updated_unix: Option<u64>,
    /// Why it cannot be read at the moment.
    pub error: Option<String>,
}

/// A service, or the tagged part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Service {
    /// Its name: `www_hello`, or `www.hello` for the part of `www` tagged `hello`.
    pub name: String,
    /// The name in metrics and anchors.
    pub label: String,
    /// What the source calls the service.
    pub service: String,
    /// The tag that selects the part.
    pub tag: Option<String>,
    /// Whether it serves.
    pub state: ServiceState,
    /// Its virtual address; `null` while it has none.
    pub vip: Option<Ipv4Addr>,
    /// The IPv6 twin of that; `null` also where IPv6 is not served.
    #[serde(default)]
    pub vip6: Option<Ipv6Addr>,
    /// The ports its VIP answers on; empty means every port.
    pub ports: BTreeSet<u16>,
    /// How a backend is chosen.
    pub balance: String,
    /// How our own probe asks.
    pub check: String,
    /// The host names or addresses under which the front serves it.
    pub hosts: Vec<String>,
    /// Backends that take new flows.
    pub usable: usize,
    /// The kernel's counts; `null` when the data plane did not answer.
    pub flows: Option<Flows>,
    /// Flows that were established at its backends over TCP, and how long that took; `null` when not known.
    #[serde(default)]
    pub connects: Option<Connects>,
    /// What the packet path sent to its backends; `null` when it does not serve it.
    #[serde(default)]
    pub packets: Option<packet::Traffic>,
    /// What the front did for it; `null` when it has not said, or there is no front.
    #[serde(default)]
    pub http: Option<Http>,
    /// What its registrations ask for beside that, without what is so by default; times are in seconds.
    #[serde(default)]
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Its backends.
    pub backends: Vec<Backend>,
    /// Backends that are gone from the catalog and live on for their open flows.
    pub leaving: Vec<Leaving>,
}

/// Whether a service serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// Every backend that should serve does.
    Ok,
    /// Some backends that should serve fail.
    Degraded,
    /// No backend is usable: connects are refused at once.
    Refused,
}

impl ServiceState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Degraded, Self::Refused];

    /// The word on the page, in metrics and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Refused => "refused",
        }
    }
}

/// What the kernel counted for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Flows {
    /// Connects that were given a backend.
    pub total: u64,
    /// Connects that were refused.
    pub refused: u64,
    /// The same by reason.
    #[serde(default)]
    pub refusals: Refusals,
    /// Connects that failed at the backend.
    pub failed: u64,
    /// Open flows.
    pub active: u64,
}

/// What the front did for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Http {
    /// Requests that have ended.
    pub requests: u64,
    /// Those among them that were answered with a status from 500 on.
    pub errors: u64,
}

/// A backend with both levels of health and what they add up to, as three fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Backend {
    /// Who it is.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// Where flows go.
    pub address: SocketAddr,
    /// Relative share.
    pub weight: u16,
    /// Marks of the registration.
    pub tags: Arc<BTreeSet<String>>,
    /// Level 1: our own probe.
    pub probe: Probe,
    /// Level 2: the source's checks.
    pub source: SourceLevel,
    /// Both levels and the operator's word, combined.
    pub state: State,
    /// What an operator ordered of it.
    #[serde(default)]
    pub mode: Mode,
    /// When the flows are cut that it still has, in seconds since 1970; `null` if that is not to happen, or has.
    #[serde(default)]
    pub cut_unix: Option<u64>,
    /// Whether the kernel saw it fail in the last ten seconds; `null` when not known.
    pub suspect: Option<bool>,
    /// The percent of its share that it has under slow start; 100 for most.
    #[serde(default = "full")]
    pub ramp: u8,
    /// Open flows; `null` when not known.
    pub active: Option<u64>,
    /// Connects that failed there; `null` when not known.
    #[serde(default)]
    pub failed: Option<u64>,
    /// Flows that were established there over TCP, and how long that took; `null` when not known.
    #[serde(default)]
    pub connects: Option<Connects>,
    /// What the packet path sent there, for all services that share its address; `null` when it sends nothing there.
    #[serde(default)]
    pub packets: Option<packet::Traffic>,
    /// What the front's workers say of it; `null` when none has sent a request there, or there is no front.
    #[serde(default)]
    pub front: Option<OnFront>,
}

/// A backend as the front's workers see it. All but `ejected` is that of its address, which services may share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OnFront {
    /// Requests that it has not answered to the end.
    pub in_flight: u64,
    /// Connections to it, idle and upgraded ones included.
    pub connections: u64,
    /// Attempts that ended in a gateway error, its own ones included.
    pub failures: u64,
    /// Attempts that followed a failed one of the same request.
    pub retries: u64,
    /// Requests that it was the last one tried for, and that have ended.
    #[serde(default)]
    pub requests: u64,
    /// Those among them that got a status from 500 on, or none although the client waited.
    #[serde(default)]
    pub errors: u64,
    /// Bytes of their bodies.
    #[serde(default)]
    pub received: u64,
    /// Bytes of their answers' bodies.
    #[serde(default)]
    pub sent: u64,
    /// Half of them took no longer from head to end, by estimation from buckets; `null` without any.
    #[serde(default)]
    pub p50_microseconds: Option<u64>,
    /// So with 99 of 100.
    #[serde(default)]
    pub p99_microseconds: Option<u64>,
    /// Set while requests avoid it because it failed.
    pub ejected: Option<Ejection>,
}

/// Why a backend gets no requests of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ejection {
    /// By how many workers: each judges for itself.
    pub workers: usize,
    /// Until when at the latest, in seconds since 1970.
    pub until_unix: u64,
    /// How the last request to it failed.
    pub why: String,
}

fn full() -> u8 {
    FULL
}

/// Handshakes, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connects {
    /// How many there were.
    pub count: u64,
    /// The sum of their times.
    pub sum_microseconds: u64,
    /// How many took less than 64 µs, how many of the others less than 128 µs, and so on; the last, all the rest.
    pub buckets: [u64; LATENCY_BUCKETS as usize],
    /// Half of them took no longer, by estimation from the buckets; `null` without any.
    pub p50_microseconds: Option<u64>,
    /// So with 99 of 100.
    pub p99_microseconds: Option<u64>,
}

impl From<Handshakes> for Connects {
    fn from(all: Handshakes) -> Self {
        Self {
            count: all.count(),
            sum_microseconds: all.micros,
            buckets: all.buckets,
            p50_microseconds: all.percentile(50),
            p99_microseconds: all.percentile(99),
        }
    }
}

/// Level 1 of health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Probe {
    /// The verdict.
    pub state: ProbeState,
    /// Since when, in seconds since 1970.
    pub since_unix: u64,
    /// Why the last probe failed.
    pub error: Option<String>,
    /// How long the last successful probe took.
    pub took_microseconds: Option<u64>,
}

/// Level 2 of health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceLevel {
    /// The verdict.
    pub state: SourceHealth,
    /// The checks behind it.
    pub checks: Vec<Check>,
}

/// A backend that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leaving {
    /// Who it was.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// Its open flows.
    pub active: u64,
}

/// The data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DataPlane {
    /// Attached programs: hook name to whether its link is in place.
    pub programs: BTreeMap<String, bool>,
    /// How full the maps are.
    pub maps: BTreeMap<String, MapFill>,
    /// Connects refused because nobody has the address of the pool, or not on that port.
    #[serde(default)]
    pub unknown: u64,
    /// Clients that are told apart from the host.
    #[serde(default)]
    pub clients: usize,
    /// The views that these stand in.
    #[serde(default)]
    pub views: usize,
}

/// The packet path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PacketPath {
    /// Why it does not run; `null` if it does.
    pub error: Option<String>,
    /// The devices at which packets are balanced.
    pub devices: Vec<packet::Device>,
    /// How many packets that concern VIPs had which fate; `null` if the programs did not tell.
    pub fates: Option<BTreeMap<String, u64>>,
    /// Open flows that are not where the table leads, or began on another host, by the label of their service; only of services that
    /// have open flows.
    #[serde(default)]
    pub strays: BTreeMap<String, packet::Strays>,
    /// Flows that ended since their backend was gone, since the agent started.
    #[serde(default)]
    pub ended_flows: u64,
    /// How full its maps are.
    pub maps: BTreeMap<String, MapFill>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MapFill {
    /// Entries in use.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

impl MapFill {
    /// How full it is, in percent, rounded down.
    pub fn percent(self) -> u64 {
        self.entries.saturating_mul(100) / self.capacity.max(1)
    }
}

/// The answer to `GET /api/v1/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlowList {
    /// Open flows.
    pub flows: Vec<Flow>,
    /// How many more there are.
    pub left_out: u64,
    /// Flows of the packet path.
    #[serde(default)]
    pub packets: Vec<PacketFlow>,
    /// How many more of these there are.
    #[serde(default)]
    pub packets_left_out: u64,
    /// Whose flows cannot be seen, and why; `null` if all are.
    pub unseen: Option<String>,
}

/// A client's open flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Flow {
    /// The service; `null` if it is gone.
    pub service: Option<String>,
    /// What the client connected to.
    pub vip: SocketAddr,
    /// The backend as `node/id`; `null` if it is gone.
    pub backend: Option<String>,
    /// Where the flow goes.
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The state of the socket.
    pub state: String,
    /// The client's end.
    pub client: SocketAddr,
    /// Since the connect.
    pub age_seconds: u64,
    /// The inode of the client's network namespace.
    pub netns: u64,
    /// The user that the socket belongs to.
    pub uid: u32,
    /// A process that has the socket open; `null` if none is seen.
    pub pid: Option<u32>,
    /// Its name.
    pub command: Option<String>,
    /// Its container, by the first digits of the id; `null` if it runs in none.
    pub container: Option<String>,
}

/// A flow that the packet path balances: its client is on another host, or one that no socket of this host is seen of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PacketFlow {
    /// The service; `null` if it is gone.
    pub service: Option<String>,
    /// What the client sends to.
    pub vip: SocketAddr,
    /// The backend as `node/id`; `null` if it is gone.
    pub backend: Option<String>,
    /// Where the packets go; `null` if the backend is gone.
    pub address: Option<SocketAddr>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// How they get there: `destination` with the VIP replaced, `full` with both ends, `tunnel`, `hairpin` to the client itself.
    pub way: Option<String>,
    /// `opening`, `established`, `closing`, `reset`; `open` for UDP.
    pub state: String,
    /// The client's end.
    pub client: SocketAddr,
    /// The client's port as the backend sees it.
    pub local_port: u16,
    /// Since the first packet; `null` if that is not known any more.
    pub age_seconds: Option<u64>,
    /// Since the last packet of either side.
    pub idle_seconds: u64,
}

impl PacketFlow {
    /// Whether it is of `client`, an address.
    pub fn is_of(&self, client: &str) -> bool {
        self.client.to_string() == client || self.client.ip().to_string() == client
    }
}

impl Flow {
    /// Whether it is of `client`: an address, the number or name of a process, or the id of a container.
    pub fn is_of(&self, client: &str) -> bool {
        let pid = self.pid.map(|pid| pid.to_string());
        let container = self.container.as_deref();
        self.client.to_string() == client
            || self.client.ip().to_string() == client
            || pid.as_deref() == Some(client)
            || self.command.as_deref() == Some(client)
            // Either may be cut off.
            || container.is_some_and(|id| {
                let cut = client.len() >= SHORTEST_ID && id.starts_with(client);
                cut || client.starts_with(id)
            })
    }
}

/// Characters of a container's id from which on it means one.
const SHORTEST_ID: usize = 4;

/// The path of the report.
pub const SNAPSHOT_PATH: &str = "/api/v1/snapshot";

/// The path of the status.
pub const STATUS_PATH: &str = "/api/v1/status";

/// Where the clients are listed.
pub const CLIENTS_PATH: &str = "/api/v1/clients";
/// The path of the open flows.
pub const FLOWS_PATH: &str = "/api/v1/flows";
/// Where the last lines of the log are told.
pub const LOG_PATH: &str = "/api/v1/log";

/// The path of the virtual addresses.
pub const VIPS_PATH: &str = "/api/v1/vips";
