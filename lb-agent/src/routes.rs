//! Routes: which host names the front answers to, and the backends behind each. A pure function of the
//! snapshot; the front gets the result as one value and never sees the catalog.
//!
//! Names follow both schemes of the demo this project re-creates: a whole service `www_hello` is
//! `www.hello` and `www.hello.<domain>`, and its aliases are complete names; the part of `www` tagged
//! `hello` is `www.hello` too. Whole services and their aliases come before parts, and among equals the
//! alphabetically first service keeps a contested name. Every contest is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{InstanceKey, Problem},
    dns::carried,
    options::Proto,
    snapshot::{Service, ServiceName, Snapshot},
};

/// Host names and the services behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Lower-case host name to its place in `services`.
    hosts: BTreeMap<String, usize>,
    /// Every exposed service, also those without a usable backend.
    services: Vec<RouteService>,
}

/// A service, or a tagged part of one, behind at least one host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteService {
    /// [`ServiceName::label`]: its name on the page and in metrics.
    pub label: String,
    /// In the order of their keys.
    pub backends: Vec<RouteBackend>,
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
    /// Where the front and the page listen. A backend there would be a loop, and is refused.
    pub listeners: Vec<SocketAddr>,
    /// The host's own addresses: what an unspecified listener address stands for.
    pub host_addresses: BTreeSet<IpAddr>,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            domains: DOMAINS.map(String::from).to_vec(),
            expose: Expose::All,
            listeners: Vec::new(),
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
        let mut routes = Self::default();
        let mut problems = Vec::new();
        let mut contests: BTreeMap<(&ServiceName, &ServiceName), Vec<String>> = BTreeMap::new();
        let mut owners: Vec<&ServiceName> = Vec::new();
        let vips = snapshot.services.values().filter_map(|it| it.vip);
        let vips: BTreeSet<IpAddr> = vips.map(IpAddr::V4).collect();
        let exposed = || {
            let all = snapshot.services.iter();
            all.filter(|(_, service)| config.expose.includes(service))
        };
        let wholes = exposed().filter(|(name, _)| name.tag.is_none());
        let parts = exposed().filter(|(name, _)| name.tag.is_some());
        for (name, service) in wholes.chain(parts) {
            let (names, wrong): (Vec<_>, Vec<_>) = host_names(name, service, &config.domains)
                .into_iter()
                .partition(|host| valid(host));
            // What is wrong with the short name is wrong under every domain: one report.
            let short = |host: &&String| !wrong.iter().any(|other| longer(host, other));
            problems.extend(
                wrong
                    .iter()
                    .filter(short)
                    .map(|host| unusable_name(name, host)),
            );
            let place = routes.services.len();
            for host in names {
                match routes.hosts.get(&host) {
                    None => drop(routes.hosts.insert(host, place)),
                    Some(&owner) if owner == place => {}
                    Some(&owner) => contests
                        .entry((name, owners[owner]))
                        .or_default()
                        .push(host),
                }
            }
            owners.push(name);
            routes.services.push(RouteService {
                label: name.label(),
                backends: backends(name, service, config, &vips, &mut problems),
            });
        }
        problems.extend(contests.iter().map(|((loser, winner), hosts)| {
            Problem::new(
                format!("service {loser}"),
                format!(
                    "its host names {} belong to service {winner}, which comes first; rename one of the two",
                    hosts.join(", ")
                ),
            )
        }));
        (routes, problems)
    }

    /// The service that answers to `host`, which is in lower case and without port.
    ///
    /// A name that carries an address under a domain made for that (`www.hello.10.0.0.7.nip.io`) is the name
    /// before the address, whatever the address is: so the demo works from any machine.
    pub fn find(&self, host: &str) -> Option<usize> {
        let found = self.hosts.get(host);
        let found = found.or_else(|| carried::named(host).find_map(|name| self.hosts.get(name)));
        found.copied().filter(|&place| place < self.services.len())
    }

    /// All services, in the order that [`Self::find`] counts.
    pub fn services(&self) -> &[RouteService] {
        &self.services
    }

    /// All host names with the label of the service behind each.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.hosts.iter().filter_map(|(host, &place)| {
            Some((host.as_str(), self.services.get(place)?.label.as_str()))
        })
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

/// Every name that a service asks for, in lower case.
fn host_names(name: &ServiceName, service: &Service, domains: &[String]) -> BTreeSet<String> {
    let (short, aliases) = match &name.tag {
        None => (name.service.replace('_', "."), Some(&service.aliases)),
        Some(tag) => (format!("{}.{tag}", name.service), None),
    };
    let long = domains.iter().map(|domain| format!("{short}.{domain}"));
    let aliases = aliases.into_iter().flatten();
    let mut names: BTreeSet<_> = long
        .chain(aliases.cloned())
        .map(|name| name.to_ascii_lowercase())
        .collect();
    names.insert(short.to_ascii_lowercase());
    names
}

fn backends(
    name: &ServiceName,
    service: &Service,
    config: &RouteConfig,
    vips: &BTreeSet<IpAddr>,
    problems: &mut Vec<Problem>,
) -> Vec<RouteBackend> {
    let mut backends = Vec::new();
    for (key, backend, share) in service.shares() {
        let address = backend.address;
        let circle = if config.is_own_listener(address) {
            "a listener of the front or the page itself"
        } else if vips.contains(&address.ip().to_canonical()) {
            "a service's VIP"
        } else {
            backends.push(RouteBackend {
                key: key.clone(),
                address,
                usable: backend.state().usable(),
                weight: share,
            });
            continue;
        };
        // A part repeats the instances of the whole: one report is enough.
        if name.tag.is_none() {
            problems.push(Problem::new(
                format!("instance {key} of service {name}"),
                format!(
                    "its address {address} is {circle}; requests would go in circles, so it gets none: \
                     register it with its own address"
                ),
            ));
        }
    }
    backends
}

impl RouteConfig {
    fn is_own_listener(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        // The kernel takes a connection to no address for one to loopback.
        let loopback = ip.is_loopback() || ip.is_unspecified();
        self.listeners.iter().any(|listener| {
            let listens_on = listener.ip().to_canonical();
            listener.port() == address.port()
                && (listens_on == ip
                    || ip.is_unspecified() && listens_on.is_loopback()
                    || listens_on.is_unspecified()
                        && (loopback || self.host_addresses.contains(&ip)))
        })
    }
}

fn unusable_name(name: &ServiceName, host: &str) -> Problem {
    Problem::new(
        format!("service {name}"),
        format!(
            "`{host}` cannot be a host name (labels of 1 to 63 letters, digits, `-` and `_`, 253 bytes in all); rename it"
        ),
    )
}

fn longer(host: &str, other: &str) -> bool {
    host.len() > other.len() && host.starts_with(other)
}

/// Whether `host` can be asked for: the labels of DNS, and `_`, which real service names have.
fn valid(host: &str) -> bool {
    let label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(legal)
    };
    host.len() <= 253 && host.split('.').all(label)
}

const DOMAINS: [&str; 4] = [
    "localhost",
    "127.0.0.1.xip.io",
    "127.0.0.1.nip.io",
    "127.0.0.1.sslip.io",
];

#[cfg(test)]
mod tests;
