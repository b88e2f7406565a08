//! A container as the Docker Engine describes it, cut down to what discovery and registration need.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its full id, 64 hex digits.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// The image as it was asked for: `registry:5000/team/web:1.2`.
    pub image: String,
    /// When it was created, in nanoseconds since 1970.
    pub created: u64,
    /// Its environment, in the engine's order; an entry without `=` is left out.
    pub environment: Vec<(String, String)>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The ports that its image or its configuration declares.
    pub exposed: BTreeSet<Port>,
    /// Where the host listens for it.
    pub published: Vec<Published>,
    /// How it is connected.
    pub network: NetworkMode,
    /// The networks it is connected to, by name. Empty on the host's network and in a namespace that it shares.
    pub networks: BTreeMap<String, Endpoint>,
    /// Whether it runs.
    pub state: State,
    /// Its first process, while it runs.
    pub process: Option<Process>,
    /// What its HEALTHCHECK says; `None` without one.
    pub health: Option<Health>,
    /// What runs it: `runc`, `kata-runtime`, `io.containerd.kata.v2`, `runsc`; empty if the engine does not say.
    pub runtime: String,
}

/// The first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the process namespace of the engine.
    pub pid: u32,
    /// When the engine started it, in nanoseconds since 1970: a number may come back, this does not.
    pub started: u64,
}

/// A port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its number within the container.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, which nothing here balances.
    Sctp,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The container's.
    pub port: Port,
    /// The host's address; unspecified means all of them.
    pub host_address: IpAddr,
    /// The host's port, never 0.
    pub host_port: u16,
}

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// To networks of its own.
    Networks,
    /// It is on the host's network.
    Host,
    /// It shares the network namespace of the container with this id.
    Container(String),
    /// Not at all.
    None,
}

/// A container's connection to one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its IPv4 address there.
    pub ipv4: Option<Ipv4Addr>,
    /// Its global IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Created, not started yet.
    Created,
    /// It runs.
    Running,
    /// It runs and was sent its stop signal: it will end.
    Ending,
    /// Frozen.
    Paused,
    /// It ended, with this code.
    Exited(i64),
}

/// What a HEALTHCHECK says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet.
    Starting,
    /// Passing.
    Healthy,
    /// Failing; with the last output.
    Unhealthy(String),
}
