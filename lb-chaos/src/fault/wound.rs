//! What a fault leaves in the cluster, and how that is undone.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::{clock, limits, pairs};
use crate::{
    cluster::{Cluster, consul},
    moment::Moment,
};

/// What a fault left, until it is healed.
#[derive(Debug)]
#[must_use]
pub enum Wound {
    /// Nothing.
    None,
    /// A host has no agent; its front, if one must be there still.
    Agent {
        /// Which host.
        host: usize,
        /// The number of the front's process, which has to stay.
        front: Option<u32>,
    },
    /// A host has an agent of another version.
    OtherVersion {
        /// Which host.
        host: usize,
    },
    /// These Consul servers do not run.
    Consul(Vec<usize>),
    /// Consul's servers are silent.
    Silence,
    /// Consul's servers do not reach a host.
    ConsulPartition {
        /// Which host.
        host: usize,
    },
    /// Hosts do not reach each other.
    HostPartition,
    /// A backend does not reach a host.
    BackendPartition {
        /// Which host.
        host: usize,
        /// Which backend.
        id: String,
        /// The rule that says so.
        rule: String,
    },
    /// A host has a bad link.
    BadLink {
        /// Which host.
        host: usize,
    },
    /// There is no Docker Engine.
    Engine,
    /// There is no registrar, and a container has ended.
    Registrar {
        /// Which backend.
        container: usize,
    },
    /// The disk of a host's state is full.
    Disk {
        /// Which host.
        host: usize,
    },
    /// A host's agent may open no more files.
    Descriptors {
        /// Which host.
        host: usize,
        /// What it might before.
        before: (Option<u64>, Option<u64>),
    },
    /// A host has no ports.
    Ports {
        /// Which host.
        host: usize,
        /// The range that it had.
        before: String,
    },
    /// A host's agent is started in this group, where it has too little memory.
    Memory {
        /// Which host.
        host: usize,
        /// The folder of the group.
        group: PathBuf,
    },
    /// The time of day is wrong for a host's agent.
    Clock {
        /// Which host.
        host: usize,
    },
    /// There are these services too many.
    Services(Vec<String>),
    /// A client does harm on a host.
    Hostile {
        /// Which host.
        host: usize,
    },
}

impl Wound {
    /// Undoes it. The cluster then recovers by itself.
    ///
    /// # Errors
    /// When the cluster does not do what it has to.
    pub fn heal(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Agent { host, front } => {
                let host = &mut cluster.hosts[host];
                host.start_agent()?;
                if let Some(front) = front {
                    ensure!(host.front_id()? == front, "the front was not left alive");
                }
                Ok(())
            }
            Self::OtherVersion { host } => {
                cluster.hosts[host].end_agent(Signal::SIGUSR2)?;
                cluster.hosts[host].start_agent()
            }
            Self::Consul(servers) => {
                for server in servers {
                    cluster.consul.restart(server)?;
                }
                cluster.consul.await_leader(&cluster.lan).map(drop)
            }
            Self::Silence => {
                cluster.consul.signal(Signal::SIGCONT)?;
                cluster.consul.await_leader(&cluster.lan).map(drop)
            }
            Self::ConsulPartition { host } => {
                let address = cluster.hosts[host].address;
                for server in 0..consul::SERVERS {
                    let netns = cluster.consul.netns(server);
                    netns.ip(&format!("route del blackhole {address}/32\n"))?;
                }
                Ok(())
            }
            Self::HostPartition => {
                for (host, other) in pairs() {
                    let address = cluster.hosts[other].address;
                    let line = format!("route del blackhole {address}/32\n");
                    cluster.hosts[host].netns.ip(&line)?;
                }
                Ok(())
            }
            Self::BackendPartition { host, id, rule } => {
                cluster.backend_netns().ip(&format!("rule del {rule}\n"))?;
                cluster.history.joined(host, &id, Moment::now());
                Ok(())
            }
            Self::BadLink { host } => {
                cluster.hosts[host].cable.mend();
                Ok(())
            }
            Self::Engine => cluster.start_engine(),
            Self::Registrar { container } => {
                cluster.engine.start_registrar()?;
                cluster.await_away(container)?;
                cluster.start_backend(container)
            }
            Self::Disk { host } => limits::free_disk(cluster, host),
            Self::Descriptors { host, before } => limits::give_descriptors(cluster, host, before),
            Self::Ports { host, before } => limits::give_ports(cluster, host, &before),
            Self::Memory { host, group } => limits::give_memory(cluster, host, &group),
            Self::Clock { host } => clock::set(cluster, host),
            Self::Services(ids) => {
                for id in ids {
                    cluster.deregister_other(&id)?;
                }
                Ok(())
            }
            Self::Hostile { host } => cluster.hosts[host].end_hostile(),
        }
    }
}
