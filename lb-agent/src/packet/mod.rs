//! The packet path: packets for VIPs that no socket hook of this host sees are balanced at network devices.
//!
//! [`run`] follows the snapshots, the devices of the host and its addresses, keeps the programs of [`lb_packet`] attached and
//! tells them what `desired` makes of all that. It owns the programs, their maps, and what is known of flows on them. What
//! it does not do is decide about health or names: that is in the snapshot.

mod answers;
mod ask;
mod deadlines;
mod desired;
mod devices;
mod glance;
mod labelled;
mod moves;
mod neighbours;
mod place;
mod seen;
mod stage;
mod trouble;
mod words;

use std::{io, path::Path, sync::Arc};

use lb_common::packet::MAX_PACKET_BACKENDS;
use tokio::sync::{mpsc, watch};

use self::place::{Sources, sources};
pub use self::{
    ask::{Answer, Explained, Handle, List, MOST, Meant, Request, Told, Trace},
    glance::Glance,
    labelled::{Labelled, follow as follow_containers},
    moves::Strays,
    seen::{Device, Hook, Seen, Traffic},
    stage::{Error, run},
    trouble::{Driver, Runs, Trouble, of_card, of_networks},
    words::{monotonic, state, way},
};
use crate::{
    announce::Announcing,
    catalog::Problem,
    causes::error_chain,
    config, network,
    snapshot::{Service, Snapshot},
    vip::{Pool6, Pools},
};

/// How the stage is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// What was configured.
    pub packet: config::Packet,
    /// Where VIPs are.
    pub pools: Pools,
}

/// What the stage reads and writes.
pub struct Channels {
    /// What is to be served.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Who answers for the VIPs.
    pub announcing: watch::Receiver<Announcing>,
    /// Devices whose clients are containers that are to be served.
    pub labelled: watch::Receiver<Labelled>,
    /// What people see of it.
    pub seen: watch::Sender<Arc<Seen>>,
    /// What cannot be served.
    pub problems: watch::Sender<Vec<Problem>>,
    /// What others ask.
    pub requests: mpsc::Receiver<Request>,
}

/// Why no packet for `service` is balanced, as the rest of a sentence; `None` if packets are.
pub fn not_served(service: &Service) -> Option<&'static str> {
    desired::not_served(service).map(desired::Unserved::why)
}

/// The programs, loaded for a configuration; or why the kernel does not take them.
pub type Loaded = Result<lb_packet::Programs, lb_packet::Error>;

/// What is made before the agent gives up the right to.
pub struct Start {
    loaded: Loaded,
    /// What the programs were loaded for.
    sources: Sources,
}

/// Loads the programs. A kernel that does not take them is told of by [`run`]: the rest of the agent can do without.
///
/// # Errors
/// When the kernel does not tell this host's addresses.
pub async fn start(
    config: &config::Config,
    packet: &config::Packet,
    pools: Pools,
) -> Result<Start, io::Error> {
    let sources = sources(packet).await?;
    let limits = lb_packet::Limits {
        services: config.limits.packet_services,
        backends: config.limits.backends.min(MAX_PACKET_BACKENDS),
        flows: config.limits.packet_flows,
    };
    let config = lb_packet::Config {
        bpffs: config.bpffs.clone(),
        pool: pools.v4.net(),
        pool6: pools.v6.map(Pool6::net),
        own: pools.v4.own(),
        source4: sources.v4,
        source6: sources.v6,
        ports: packet.ports.clone(),
        limits,
    };
    // The loader reads the type information of the whole kernel: on a thread of its own, so that all of that is free
    // when it has ended.
    let loaded = std::thread::spawn(move || lb_packet::Programs::load(&config)).join();
    lb_sys::memory::give_back();
    Ok(Start {
        loaded: loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        sources,
    })
}

/// Takes away what an earlier agent that had a packet path attached and pinned, and the neighbours that the kernel keeps for it.
pub async fn leave(bpffs: &Path) {
    match lb_packet::remove(bpffs, false) {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => tracing::info!(
            pins = gone.len(),
            "took away the packet path of an earlier agent, which this one is not told to have"
        ),
        Err(error) => tracing::warn!(
            error = error_chain(&error),
            "cannot take away the packet path of an earlier agent; run `lb-agent uninstall`"
        ),
    }
    if let Err(error) = network::forget_neighbours().await {
        tracing::warn!(
            error = error_chain(&error),
            "cannot take away the neighbours of an earlier agent; run `lb-agent uninstall`"
        );
    }
}
