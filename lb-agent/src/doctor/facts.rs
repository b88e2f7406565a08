//! What there is to know about a host before an agent runs on it, and while one does. `None` means not known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use ipnet::IpNet;

use crate::{admin::report::Component, announce::Link, packet::Driver};

/// All facts of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// What is wrong with the configuration.
    pub(super) mistakes: Vec<String>,
    pub(super) host: Host,
    pub(super) network: Network,
    pub(super) consul: Option<Result<Consul, String>>,
    /// By how many seconds the engine's clock is ahead of ours, or why it does not answer.
    pub(super) docker: Option<Result<Option<i64>, String>>,
    pub(super) dns: Dns,
    pub(super) agent: Agent,
    /// VIPs that a connect through them did not get through, each with why; `None` if it was not tried.
    pub(super) probes: Option<Vec<String>>,
}

/// What files of `/proc`, `/sys` and the bpffs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// The kernel's release.
    pub(super) kernel: Option<String>,
    pub(super) has_btf: Option<bool>,
    /// `net.core.bpf_jit_enable`.
    pub(super) jit: Option<u32>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub(super) unprivileged_bpf: Option<u32>,
    pub(super) mounts: Option<Vec<Mount>>,
    /// Whether the configured cgroup is a directory.
    pub(super) has_cgroup: Option<bool>,
    /// The cgroups that processes of containers are in, as paths below the root of the tree.
    pub(super) containers: Vec<String>,
    /// Programs of others at our hooks, by hook.
    pub(super) others: BTreeMap<&'static str, Vec<String>>,
    /// What lies in the folder of the pins.
    pub(super) pins: Vec<String>,
    /// What lies at the configured bpffs; `None` if that is no directory.
    pub(super) bpffs_entries: Option<Vec<String>>,
    /// The effective capabilities, as bits.
    pub(super) capabilities: Option<u64>,
    /// Whether `bpf(2)` is refused in spite of them.
    pub(super) refuses_bpf: Option<bool>,
    /// The AppArmor profile.
    pub(super) profile: Option<String>,
    /// `rp_filter` by device.
    pub(super) rp_filter: BTreeMap<String, u32>,
    /// `net.bridge.bridge-nf-call-iptables`.
    pub(super) bridge_nf: Option<u32>,
    /// How many files may be open at most.
    pub(super) open_files: Option<u64>,
    /// Bytes of a packet by device.
    pub(super) mtu: BTreeMap<String, u32>,
    /// The devices of this network namespace.
    pub(super) links: Option<BTreeMap<String, Link>>,
    /// What packets for VIPs meet; `None` where none are balanced.
    pub(super) paths: Option<Paths>,
}

/// What packets meet that this host balances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// The names of all network devices.
    pub(super) devices: BTreeSet<String>,
    /// The names of those that containers and virtual machines are behind: bridges, taps.
    pub(super) inside: BTreeSet<String>,
    /// What the drivers of cards do.
    pub(super) drivers: BTreeMap<String, Driver>,
    /// Each VLAN with the device that it comes by.
    pub(super) vlans: Vec<(String, String)>,
    /// `net.ipv4.ip_forward`.
    pub(super) forwards: Option<u32>,
    /// `net.ipv4.ip_local_port_range`.
    pub(super) local_ports: Option<RangeInclusive<u16>>,
    /// The addresses of all devices, with their networks.
    pub(super) addresses: Option<Vec<(String, IpNet)>>,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: String,
    pub(super) kind: String,
}

/// The network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Who has ports that the agent is to have: each with whose it is, such as `docker-proxy (process 12)`.
    pub(super) taken: Vec<(Listener, Option<String>)>,
    /// What of others is in a pool.
    pub(super) in_the_way: Vec<(IpNet, String)>,
}

/// A socket that takes packets for nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// `tcp` or `udp`.
    pub(super) protocol: &'static str,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) inode: u32,
}

/// What a Consul lets us see.
pub(super) use crate::discover::consul::look::Look as Consul;

/// The way of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dns {
    /// Why the agent's resolver does not answer; `Some(None)` if it does.
    pub(super) answer: Option<Option<String>>,
    /// Whether the host's processes ask an agent, or why that is not known.
    pub(super) host: Option<Result<Option<IpAddr>, String>>,
    /// Whom the resolver is to ask.
    pub(super) upstreams: Option<Vec<std::net::SocketAddr>>,
}

/// The agent that runs, if one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Agent {
    /// Nobody answers at its socket.
    #[default]
    Away,
    /// Somebody is there, and this is why nothing is known.
    Mute(String),
    /// It says this.
    Answers {
        version: String,
        components: Vec<Component>,
        problems: usize,
    },
}
