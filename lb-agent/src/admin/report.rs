//! The report: what the page, the API, the metrics and the command line all show, one value.
//!
//! It is also the JSON of `/api/v1/snapshot` and of `-o json`, so its names are kept: a field may be
//! added, none changes its meaning without a new [`API`]. `null` means not known, never none. Here is the whole; its
//! services are in `service`, and the answer about open flows in `flows`.

mod asked;
mod flows;
mod service;

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

pub use asked::{
    ACTION_HEADER, PIN_PATH, PinOrder, RELEASE_PATH, Refused, ReleaseOrder, SESSION_HEADER,
    SESSION_PATH, STATE_PATH, SessionAnswer, SessionOrder, StateAnswer, StateOrder,
};

pub use flows::{Flow, FlowList, PacketFlow};
pub use service::{
    Backend, Connects, Ejection, Flows, Http, Leaving, OnFront, Probe, Service, ServiceState,
    SourceLevel,
};

use crate::{
    catalog::{InstanceKey, Problem},
    packet,
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
