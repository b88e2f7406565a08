//! The resolver: answers the names of services with their VIPs, and passes the rest on.
//!
//! It serves UDP and TCP on the agent's own address. What a name means is in [`names`]; who else is asked,
//! and what is remembered of it, in `forward` and `cache`. It never answers a client outside this host and
//! the private networks that it has an address in, and it never says "no such name" of a name that may yet
//! turn out to be a service: until every source has answered, such a name is a server failure, which nobody
//! remembers.
//!
//! | asked for | answer |
//! |---|---|
//! | a service, a part of it, an alias | A: its VIP; AAAA: the twin; SRV: its ports; anything else: no data |
//! | an address of a pool | PTR: the name of its service, or NXDOMAIN |
//! | the same, but it has no VIP at the moment | SERVFAIL |
//! | a route of the front, a name that carries a loopback address | A: the agent's own address |
//! | a name that carries another address | that address |
//! | another name under `consul.` | what Consul says, or NXDOMAIN without Consul |
//! | the rest | what the upstreams say; SERVFAIL without upstreams |

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use metrics::Metrics;
pub use resolv_conf::{follow_system_upstreams, system_upstreams};

use crate::{
    catalog::Problem,
    snapshot::{Snapshot, changes},
    vip::Pools,
};
use names::Names;
use server::Server;

mod access;
mod cache;
mod decide;
mod exchange;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod hot;
mod message;
mod metrics;
pub mod names;
mod resolv_conf;
mod reverse;
mod server;

/// How the resolver is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where VIPs and their twins are; the first VIP is the agent's own, with which names that mean the host are
    /// answered. Without a pool of twins, AAAA of a service has no data: a client must not be sent where the data plane
    /// does not serve it.
    pub pools: Pools,
    /// The front's domains.
    pub domains: Vec<String>,
    /// Who is asked for names that are not ours, in this order: the newest value. Without a sender it stays.
    pub upstreams: watch::Receiver<Vec<SocketAddr>>,
    /// Consul's DNS, which is asked for names under `consul.`.
    pub consul: Option<SocketAddr>,
    /// Networks whose clients are answered where this host has an address in the same one, beside this host
    /// itself. [`private_networks`] and the pools make a good list.
    pub neighbours: Vec<IpNet>,
    /// Networks whose clients are answered wherever they are.
    pub allow: Vec<IpNet>,
}

/// Why the resolver ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was given nothing to listen on.
    #[error("the resolver has no socket; give it a `dns.listen` address or disable it")]
    NoSocket,
    /// A socket cannot be used.
    #[error("cannot use the DNS socket {address}")]
    Socket {
        /// Where it is bound.
        address: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A socket fails again and again.
    #[error("cannot receive DNS queries")]
    Receive {
        /// What the kernel says.
        source: io::Error,
    },
    /// A part of the resolver ended by a fault of its own.
    #[error("a part of the resolver ended")]
    Ended(#[from] JoinError),
}

/// Serves names on these sockets until `stop`, and tells what is wrong with them in `problems`.
///
/// # Errors
/// If a socket cannot be used, or fails for good.
pub async fn run(
    config: Config,
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    metrics: Arc<Metrics>,
    problems: watch::Sender<Vec<Problem>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let own: Vec<SocketAddr> = udp.iter().filter_map(|it| it.local_addr().ok()).collect();
    let mut upstreams = config.upstreams.clone();
    let first = others(upstreams.borrow_and_update().clone(), &own);
    let (pools, domains) = (config.pools, config.domains.clone());
    let names = |snapshot: Option<Arc<Snapshot>>| match snapshot {
        Some(snapshot) => Names::new(&snapshot, pools, &domains),
        None => Names::unknown(pools, &domains),
    };
    let server = Arc::new(Server::new(
        config,
        first,
        Names::unknown(pools, &domains),
        metrics,
    ));
    let learn = |snapshot| {
        let names = names(snapshot);
        problems.send_if_modified(|told| {
            let changed = told != names.problems();
            if changed {
                *told = names.problems().to_vec();
            }
            changed
        });
        server.learn(names);
    };
    let mut known = snapshots.borrow_and_update().clone();
    learn(known.clone());

    let mut sockets = JoinSet::new();
    for socket in udp {
        let address = label(socket.local_addr());
        let socket = socket
            .set_nonblocking(true)
            .and_then(|()| UdpSocket::from_std(socket))
            .map_err(|source| Error::Socket { address, source })?;
        sockets.spawn(Arc::clone(&server).datagrams(socket, stop.clone()));
    }
    for listener in tcp {
        let address = label(listener.local_addr());
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map_err(|source| Error::Socket { address, source })?;
        sockets.spawn(Arc::clone(&server).streams(listener, stop.clone()));
    }
    if sockets.is_empty() {
        return Err(Error::NoSocket);
    }

    let (mut following, mut renewing) = (true, true);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = sockets.join_next() => {
                ended??;
            }
            changed = snapshots.changed(), if following => {
                // Without a sender the last names go on serving; whoever ended it is told elsewhere.
                following = changed.is_ok();
                let snapshot = snapshots.borrow_and_update().clone();
                if !names_the_same(known.as_deref(), snapshot.as_deref()) {
                    learn(snapshot.clone());
                }
                known = snapshot;
            }
            changed = upstreams.changed(), if renewing => {
                renewing = changed.is_ok();
                if renewing {
                    server.ask_others(others(upstreams.borrow_and_update().clone(), &own));
                }
            }
        }
    }
    let drained = timeout(GRACE, async {
        while let Some(ended) = sockets.join_next().await {
            ended??;
        }
        Ok(())
    });
    // What is not answered by then is asked again by its client, of whoever follows us.
    drained.await.unwrap_or(Ok(()))
}

/// Whether the names of two snapshots mean the same: most changes are of backends, of which names know the ports.
fn names_the_same(before: Option<&Snapshot>, after: Option<&Snapshot>) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            let mut services = changes(&before.services, &after.services);
            (before.answered, before.stopgap) == (after.answered, after.stopgap)
                && services.all(|(_, old, new)| match (old, new) {
                    (Some(old), Some(new)) => {
                        (old.vip, &old.aliases, old.options.path())
                            == (new.vip, &new.aliases, new.options.path())
                            && names::ports(old) == names::ports(new)
                    }
                    _ => false,
                })
        }
        _ => false,
    }
}

/// The networks that a host's containers and neighbours may be in: private, shared and link-local addresses.
pub fn private_networks() -> Vec<IpNet> {
    PRIVATE
        .iter()
        .filter_map(|(address, bits)| IpNet::new(*address, *bits).ok())
        .collect()
}

/// The upstreams that are not this very resolver: to ask itself would only take the time of every asker.
fn others(mut upstreams: Vec<SocketAddr>, own: &[SocketAddr]) -> Vec<SocketAddr> {
    upstreams.retain(|upstream| {
        let itself = own.contains(upstream);
        if itself {
            warn!(%upstream, "the DNS upstream is this resolver itself and is left out; name another one");
        }
        !itself
    });
    upstreams
}

/// Where a socket is bound, for messages. Says so if it is bound to every address: there, an answer leaves
/// from the address that routing prefers, and a client drops it if it asked another one.
fn label(address: io::Result<SocketAddr>) -> String {
    match address {
        Ok(address) => {
            if address.ip().is_unspecified() {
                warn!(%address, "the DNS socket is bound to every address; bind it to the agent's own");
            }
            address.to_string()
        }
        Err(_) => "of unknown address".to_owned(),
    }
}

/// RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 section 2.5.6.
const PRIVATE: [(IpAddr, u8); 7] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// How long queries under way may take after `stop`.
const GRACE: Duration = Duration::from_secs(1);
