//! The containers as people are shown them: what is registered for each, by which of its addresses, and what is not and
//! why. Pure.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::Serialize;

use super::registration::{Reading, Registration};
use crate::docker::{Container, Protocol};

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// The first digits of its id.
    pub id: String,
    /// Where it is in its life.
    pub life: Life,
    /// What is registered for it.
    pub registers: Vec<Registered>,
    /// What is not registered for a good reason, in words.
    pub left_out: Vec<String>,
    /// Which of its labels and variables have no effect or refuse it, why, and what to do.
    pub refused: Vec<String>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// It runs.
    Running,
    /// It is frozen: its services are in maintenance.
    Paused,
    /// It will end: its services are in maintenance.
    Ending,
}

impl Life {
    /// The word on the page and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ending => "ending",
        }
    }
}

/// One service of a container, and its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Registered {
    /// The service.
    pub service: String,
    /// The id that it has at the Consul agent.
    pub id: String,
    /// The port within the container: `80/tcp`.
    pub port: String,
    /// The address that was chosen: where clients are sent.
    pub address: SocketAddr,
    /// Whose address that is.
    pub by: Chosen,
    /// The network that it is of; `null` if it is of none.
    pub network: Option<String>,
    /// Where the port is reached on each network: those that could have been chosen.
    pub networks: BTreeMap<String, SocketAddr>,
    /// Where its host publishes it; `null` if it does not.
    pub published: Option<SocketAddr>,
}

/// Whose address was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// The container's own on a network.
    Network,
    /// The one that its host publishes it at.
    Published,
    /// The one that its labels or variables say.
    Said,
}

impl Seen {
    /// `container`, of which that was read.
    pub(super) fn new(container: &Container, life: Life, reading: &Reading) -> Self {
        let problems = reading.problems.iter();
        Self {
            name: container.name.clone(),
            id: container.id.chars().take(12).collect(),
            life,
            registers: reading.registrations.iter().map(Registered::new).collect(),
            left_out: reading.left_out.clone(),
            refused: problems.map(|it| it.message.clone()).collect(),
        }
    }
}

impl Registered {
    fn new(registration: &Registration) -> Self {
        let Registration { address, reach, .. } = registration;
        let mut networks = reach.networks.iter();
        let network = networks.find(|(_, it)| *it == address);
        let by = match (&network, reach.published) {
            (Some(_), _) => Chosen::Network,
            (None, Some(published)) if published == *address => Chosen::Published,
            (None, _) => Chosen::Said,
        };
        Self {
            service: registration.name.clone(),
            id: registration.id.clone(),
            port: format!(
                "{}/{}",
                registration.port.number,
                match registration.port.protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                }
            ),
            address: *address,
            by,
            network: network.map(|(name, _)| name.clone()),
            networks: reach.networks.clone(),
            published: reach.published,
        }
    }
}

/// Why it is this address.
impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.by, &self.network) {
            (Chosen::Published, _) => f.write_str("where its host publishes it"),
            (Chosen::Said, _) => f.write_str("as its labels or variables say"),
            (Chosen::Network, None) => f.write_str("its own"),
            (Chosen::Network, Some(network)) => write!(f, "its own on the network {network}"),
        }
    }
}
