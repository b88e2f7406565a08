//! A service and its backends, with all that is known of them.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_common::LATENCY_BUCKETS;
use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Check, InstanceKey, SourceHealth},
    order::Mode,
    packet,
    snapshot::{FULL, ProbeState, State},
    stats::{Handshakes, Refusals},
};

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

fn full() -> u8 {
    FULL
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
