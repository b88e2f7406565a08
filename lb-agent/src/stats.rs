//! Figures that the data plane counts, read on request by the stage that owns the maps.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{catalog::InstanceKey, snapshot::ServiceName};

/// Asks the reconcile stage for the current figures.
pub type StatsRequest = oneshot::Sender<Stats>;

/// The data plane's figures at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceStats>,
    /// Entries and capacity by map name.
    pub maps: BTreeMap<&'static str, MapFill>,
    /// Attached programs: hook name to whether its link is in place.
    pub programs: BTreeMap<&'static str, bool>,
}

/// Figures of one service, since its table was first used.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceStats {
    /// Connects that were given a backend.
    pub flows: u64,
    /// Connects refused for want of a usable backend.
    pub refused: u64,
    /// Connects that failed at the backend.
    pub failed: u64,
    /// Open flows to its backends, those that already left the service included. Flows are counted for each
    /// address: two services that share one each show all of its flows.
    pub active: u64,
    /// Open flows by backend.
    pub backends: BTreeMap<InstanceKey, BackendStats>,
}

/// Figures of one backend within a service.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct BackendStats {
    /// Open flows.
    pub active: u64,
    /// Whether the kernel saw it fail within the last ten seconds.
    pub suspect: bool,
    /// Whether it already left the service and only lives on for its open flows.
    pub leaving: bool,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct MapFill {
    /// Entries in use.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u64,
}
