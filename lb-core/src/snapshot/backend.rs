//! One backend: where it is, what is known of its health, and the state that this comes to.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Check, Reach, SourceHealth},
    order::{Mode, Order},
};

/// One instance with both levels of health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Where flows go, from the host.
    pub address: SocketAddr,
    /// How clients reach it that stand elsewhere.
    pub reach: Arc<Reach>,
    /// Whether it runs on this host.
    pub local: bool,
    /// The container that it runs in, where that is known: another one at the same address is somebody else.
    pub container: Option<Arc<str>>,
    /// Marks of the registration.
    pub tags: Arc<BTreeSet<String>>,
    /// Relative share, 0 to 65535.
    pub weight: u16,
    /// Whether the front gives it a share of what is for canaries.
    pub canary: bool,
    /// Level 2: what the source's checks say.
    pub source: SourceHealth,
    /// Those checks.
    pub checks: Vec<Check>,
    /// Level 1: what our own probes say.
    pub probe: Probe,
    /// What an operator ordered of it.
    pub order: Order,
    /// Whether its container, which runs on this host, is ending or gone.
    pub leaving: bool,
    /// The percent of its share that it has under slow start; [`FULL`] for most.
    pub ramp: u8,
}

/// The [`Backend::ramp`] of one that has its whole share.
pub const FULL: u8 = 100;

/// Level 1 of health: the verdict of our own probes.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The verdict.
    pub state: ProbeState,
    /// Since when.
    pub since: SystemTime,
    /// Why the last probe failed.
    pub error: Option<String>,
    /// How long the last successful probe took. Not part of equality.
    pub took: Option<Duration>,
}

impl PartialEq for Probe {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            state,
            since,
            error,
            took: _,
        } = self;
        (*state, *since) == (other.state, other.since) && *error == other.error
    }
}

impl Eq for Probe {}

/// The verdict of our own probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProbeState {
    /// New, not probed often enough: takes no flow yet.
    Starting,
    /// Answers.
    Up,
    /// Does not answer.
    Down,
    /// Not probed (`lb_check=off`): counts as up.
    Off,
}

/// The state of a backend, one word, worst cause first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Takes new flows.
    Usable,
    /// Waits for its first successful probes.
    Starting,
    /// Our own probes fail.
    L4Down,
    /// A check of the source warns.
    ConsulWarning,
    /// A check of the source fails.
    ConsulCritical,
    /// Taken out in the source: established flows live on until a deadline. Or here by an operator: they are cut.
    Maintenance,
    /// Taken out here by an operator: established flows live on until a deadline.
    Draining,
    /// Its container is ending: established flows live on.
    Leaving,
}

impl State {
    /// Whether new flows may go there.
    pub fn usable(self) -> bool {
        self == Self::Usable
    }

    /// The word in metrics, tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Starting => "starting",
            Self::L4Down => "l4_down",
            Self::ConsulWarning => "consul_warning",
            Self::ConsulCritical => "consul_critical",
            Self::Maintenance => "maintenance",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        }
    }
}

impl Backend {
    /// All addresses that flows may go to, from wherever their clients stand.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.reach.networks.values().chain(&self.reach.published);
        let others = others.filter(|other| **other != self.address);
        std::iter::once(self.address).chain(others.copied())
    }

    /// Both levels and the operator's word, combined: usable is "the source says yes and so do we".
    pub fn state(&self) -> State {
        if self.leaving {
            return State::Leaving;
        }
        match self.order.mode {
            Mode::Drain => return State::Draining,
            Mode::Maintenance => return State::Maintenance,
            Mode::Ready => {}
        }
        match (self.source, self.probe.state) {
            (SourceHealth::Maintenance, _) => State::Maintenance,
            (SourceHealth::Critical, _) => State::ConsulCritical,
            (SourceHealth::Warning, _) => State::ConsulWarning,
            (SourceHealth::Passing, ProbeState::Down) => State::L4Down,
            (SourceHealth::Passing, ProbeState::Starting) => State::Starting,
            (SourceHealth::Passing, ProbeState::Up | ProbeState::Off) => State::Usable,
        }
    }
}

#[cfg(any(test, feature = "for-tests"))]
impl Backend {
    /// One of this host without marks, that takes flows.
    pub fn usable(address: SocketAddr) -> Self {
        Self {
            address,
            reach: Reach::default().shared(),
            local: true,
            container: None,
            tags: Arc::default(),
            weight: 1,
            canary: false,
            source: SourceHealth::Passing,
            checks: Vec::new(),
            probe: Probe {
                state: ProbeState::Up,
                since: SystemTime::UNIX_EPOCH,
                error: None,
                took: None,
            },
            order: Order::default(),
            leaving: false,
            ramp: FULL,
        }
    }
}
