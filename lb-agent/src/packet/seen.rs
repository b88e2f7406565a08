//! What people see of the packet path, as one value.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::moves::Strays;
use crate::snapshot::ServiceName;

/// The packet path at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Why it does not run, or not as it should.
    pub error: Option<String>,
    /// The devices.
    pub devices: Vec<Device>,
    /// How many packets had which fate, by the fate's word; `None` if not read.
    pub fates: Option<BTreeMap<&'static str, u64>>,
    /// What was sent to the backends of each service.
    pub services: BTreeMap<ServiceName, Traffic>,
    /// Open flows of each service that are not as the table and this host's programs would have begun them.
    pub strays: BTreeMap<ServiceName, Strays>,
    /// Flows that ended since their backend was gone, since this agent started.
    pub ended_flows: u64,
    /// What was sent to each backend.
    pub backends: BTreeMap<SocketAddr, Traffic>,
    /// How full the maps are, and how much they have room for.
    pub maps: BTreeMap<&'static str, (u64, u64)>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Device {
    /// Its name.
    pub name: String,
    /// `card`, or `client` for one whose other end is a client's.
    pub role: String,
    /// The programs that are attached to it.
    pub hooks: Vec<Hook>,
    /// Why the programs run elsewhere than in the driver, where that was to be tried first.
    pub fallback: Option<String>,
    /// Why it is not served.
    pub error: Option<String>,
}

/// An attached program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hook {
    /// Its name.
    pub program: String,
    /// `native` or `generic` for XDP, `tcx` or `clsact` for tc.
    pub how: String,
    /// Whether it still is in place; `null` where the kernel does not tell.
    pub in_place: Option<bool>,
}

/// What programs counted, since their maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Traffic {
    /// Packets towards backends.
    pub packets: u64,
    /// Their bytes, without the link's head.
    pub bytes: u64,
    /// Flows that began.
    pub flows: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

impl From<lb_common::packet::Traffic> for Traffic {
    fn from(counted: lb_common::packet::Traffic) -> Self {
        let lb_common::packet::Traffic {
            packets,
            bytes,
            flows,
            dropped,
        } = counted;
        Self {
            packets,
            bytes,
            flows,
            dropped,
        }
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.flows += other.flows;
        self.dropped += other.dropped;
    }
}
