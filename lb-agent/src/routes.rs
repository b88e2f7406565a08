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

use serde::{Deserialize, Serialize};

pub use access::RouteAccess;
pub use follow::Follower;

use crate::{
    catalog::{InstanceKey, Problem},
    dns::carried,
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

/// What a service is called between agent and front. One that comes back has another.
pub type Place = u64;

/// Lower-case host names, and the place of the service behind each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(BTreeMap<String, Place>);

/// What makes routes others. All of the routes are what makes empty ones them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesChange {
    /// Host names, and the service behind each from now on.
    pub hosts: Vec<(String, Option<Place>)>,
    /// Services as they are from now on; `None` where there is none any more.
    pub services: Vec<(Place, Option<Arc<RouteService>>)>,
    /// The host's own addresses, if they are others: whoever comes from one is the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_addresses: Option<BTreeSet<IpAddr>>,
}

/// A service, or a tagged part of one, behind at least one host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteService {
    /// [`ServiceName::label`](crate::snapshot::ServiceName::label): its name on the page and in metrics.
    pub label: Arc<str>,
    /// In the order of their keys.
    pub backends: Vec<RouteBackend>,
    /// Whom it lets in; `None` is everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<RouteAccess>,
}

/// A backend as the front sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteBackend {
    /// Which instance it is.
    pub key: InstanceKey,
    /// Where requests go.
    pub address: SocketAddr,
    /// Whether it takes new requests.
    pub usable: bool,
    /// Relative share; 0 takes none.
    pub weight: u16,
}

/// How routes are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Appended to the short names.
    pub domains: Vec<String>,
    /// Which services the outside world reaches.
    pub expose: Expose,
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

    /// The service that answers to `host`, see [`Hosts::find`].
    pub fn find(&self, host: &str) -> Option<&RouteService> {
        let service = self.services.get(&self.hosts.find(host)?);
        service.map(AsRef::as_ref)
    }

    /// All services; of those that came together, whole ones before parts.
    pub fn services(&self) -> impl Iterator<Item = &RouteService> {
        self.services.values().map(AsRef::as_ref)
    }

    /// All host names with the label of the service behind each.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.hosts
            .0
            .iter()
            .filter_map(|(host, place)| Some((host.as_str(), &*self.services.get(place)?.label)))
    }
}

impl Hosts {
    /// The place of the service that answers to `host`, which is in lower case and without port.
    ///
    /// A name that carries an address under a domain made for that (`www.hello.10.0.0.7.nip.io`) is the name
    /// before the address, whatever the address is: so the demo works from any machine.
    pub fn find(&self, host: &str) -> Option<Place> {
        let found = self.0.get(host);
        let found = found.or_else(|| carried::named(host).find_map(|name| self.0.get(name)));
        found.copied()
    }

    /// Makes them what `change` says.
    pub fn apply(&mut self, change: &RoutesChange) {
        for (host, place) in &change.hosts {
            match place {
                Some(place) => drop(self.0.insert(host.clone(), *place)),
                None => drop(self.0.remove(host)),
            }
        }
    }
}

impl RoutesChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.services.is_empty() && self.host_addresses.is_none()
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
