//! The options of a service, as its registrations write them in tags, meta or the file.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

/// What a service's registrations ask for, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// `lb_balance`: how a backend is chosen.
    pub balance: Balance,
    /// `lb_check`: how our own probe asks.
    pub check: CheckKind,
    /// `lb_port`: the ports its VIP answers on; empty means every port.
    pub ports: BTreeSet<u16>,
    /// `lb_drain`: how long established flows of a drained backend may go on.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            balance: Balance::LeastConn,
            check: CheckKind::Tcp,
            ports: BTreeSet::new(),
            drain: Duration::from_secs(30),
        }
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Two random backends; the one with fewer active flows wins.
    LeastConn,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
}

/// How our own probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A TCP connect.
    Tcp,
    /// An HTTP GET of this path; 2xx and 3xx answers pass.
    Http(String),
    /// No probe: the source's word alone counts.
    Off,
}
