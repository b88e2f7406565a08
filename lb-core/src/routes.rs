//! Routes: which host names the front answers to, and the backends behind each. A pure function of the
//! snapshot; the front gets the first routes whole and then what changes, and never sees the catalog.
//!
//! Names follow both schemes of the demo this project re-creates: a whole service `www_hello` is
//! `www.hello` and `www.hello.<domain>`, and its aliases are complete names; the part of `www` tagged
//! `hello` is `www.hello` too. Whole services and their aliases come before parts, and among equals the
//! alphabetically first service keeps a contested name. Every contest is reported.

mod access;
mod follow;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_front::routes::{Hosts, Place, RouteService, RoutesChange};
use serde::{Deserialize, Serialize};

pub use follow::Follower;

use crate::{
    catalog::Problem,
    options::Proto,
    snapshot::{Service, Snapshot},
    vip::Pools,
};

/// Host names and the services behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    hosts: Hosts,
    /// Every exposed service, also those without a usable backend.
    services: BTreeMap<Place, Arc<RouteService>>,
}

/// How routes are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Appended to the short names.
    pub domains: Vec<String>,
    /// Which services the outside world reaches.
    pub expose: Expose,
    /// The names of the lists of users.
    pub auth: BTreeSet<String>,
    /// Where the front and the resolver listen. A backend there would be a loop or a way in, and is refused.
    pub listeners: Vec<SocketAddr>,
    /// Where the page listens. It is no loop and judges each Host itself, but is for the service that has a name of it.
    pub page: Vec<SocketAddr>,
    /// The page's own host names.
    pub page_names: Vec<String>,
    /// What lies in them is a VIP, the agent's own address or nobody's. A backend there is refused.
    pub pools: Pools,
    /// The host's own addresses: what an unspecified listener address stands for.
    pub host_addresses: BTreeSet<IpAddr>,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            domains: DOMAINS.map(String::from).to_vec(),
            expose: Expose::All,
            auth: BTreeSet::new(),
            listeners: Vec::new(),
            page: Vec::new(),
            page_names: Vec::new(),
            pools: Pools::default(),
            host_addresses: BTreeSet::new(),
        }
    }
}

/// Which services have routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expose {
    /// All except those that say `lb_expose=false`.
    #[default]
    All,
    /// Only those that say `lb_expose`.
    Tagged,
}

impl Routes {
    /// The routes of `snapshot`, and what could not become one.
    pub fn new(snapshot: &Snapshot, config: &RouteConfig) -> (Self, Vec<Problem>) {
        let mut follower = Follower::new(config.clone());
        follower.follow(&Snapshot::default(), snapshot, &config.host_addresses);
        let problems = follower.problems().cloned().collect();
        (follower.into_routes(), problems)
    }

    /// Makes them what `change` says.
    pub fn apply(&mut self, change: &RoutesChange) {
        self.hosts.apply(change);
        for (place, service) in &change.services {
            match service {
                Some(service) => drop(self.services.insert(*place, service.clone())),
                None => drop(self.services.remove(place)),
            }
        }
    }

    /// The service that answers to `host` where no path is shared, see [`Hosts::find`].
    pub fn find(&self, host: &str) -> Option<&RouteService> {
        self.find_at(host, "/")
    }

    /// The service that answers to `path` of `host`; `None` also for a path that is refused.
    pub fn find_at(&self, host: &str, path: &str) -> Option<&RouteService> {
        let place = self.hosts.find(host, path).ok()??;
        self.services.get(&place).map(AsRef::as_ref)
    }

    /// All services; of those that came together, whole ones before parts.
    pub fn services(&self) -> impl Iterator<Item = &RouteService> {
        self.services.values().map(AsRef::as_ref)
    }

    /// All host names, with a path behind those that are shared, and the label of the service behind each.
    pub fn hosts(&self) -> impl Iterator<Item = (String, &str)> {
        let names = self.hosts.names.iter();
        let names = names.map(|(host, place)| (host.clone(), *place));
        let paths = self.hosts.paths.iter();
        let paths = paths.map(|(host, prefix, place)| (format!("{host}{prefix}"), place));
        names
            .chain(paths)
            .filter_map(|(host, place)| Some((host, &*self.services.get(&place)?.label)))
    }
}

impl Expose {
    fn includes(self, service: &Service) -> bool {
        // A request over TCP cannot reach it.
        if service.options.proto == Proto::Udp {
            return false;
        }
        match self {
            Self::All => service.options.expose != Some(false),
            Self::Tagged => service.options.expose == Some(true),
        }
    }
}

impl RouteConfig {
    /// Whether a connection to `address` reaches one of `listeners`.
    fn is_heard(&self, listeners: &[SocketAddr], address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        // The kernel takes a connection to no address for one to loopback.
        let loopback = ip.is_loopback() || ip.is_unspecified();
        listeners.iter().any(|listener| {
            let listens_on = listener.ip().to_canonical();
            listener.port() == address.port()
                && (listens_on == ip
                    || ip.is_unspecified() && listens_on.is_loopback()
                    || listens_on.is_unspecified()
                        && (loopback || self.host_addresses.contains(&ip)))
        })
    }
}

const DOMAINS: [&str; 4] = [
    "localhost",
    "127.0.0.1.xip.io",
    "127.0.0.1.nip.io",
    "127.0.0.1.sslip.io",
];

#[cfg(test)]
mod tests;
