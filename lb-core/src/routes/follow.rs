//! Routes that follow one snapshot after the other.
//!
//! Most changes are of backends, and cost what they change. What decides about names (which services there are, their
//! aliases) is looked at as a whole, because any name may then have another owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_front::routes::{Hosts, Place, RouteBackend, RouteService, RoutesChange};

use super::{
    RouteConfig, Routes,
    access::{cannot_be_told, on_front},
};
use crate::{
    catalog::Problem,
    options::Proto,
    snapshot::{Service, ServiceName, Snapshot, changes, differences},
};

/// The routes of the newest snapshot, and what cannot become one.
#[derive(Debug)]
pub struct Follower {
    config: RouteConfig,
    /// Whether the host's addresses in there have been told.
    has_told_addresses: bool,
    routes: Routes,
    /// The exposed services.
    places: BTreeMap<ServiceName, Place>,
    /// The newest place that was given out.
    last: Place,
    /// The services that answer to a name of the page, as whole or by a part.
    pages: BTreeSet<Arc<str>>,
    name_problems: Vec<Problem>,
    /// Of the services that have any.
    backend_problems: BTreeMap<ServiceName, Vec<Problem>>,
}

impl Follower {
    /// One that has seen an empty snapshot.
    pub fn new(config: RouteConfig) -> Self {
        Self {
            config,
            has_told_addresses: false,
            routes: Routes::default(),
            places: BTreeMap::new(),
            last: 0,
            pages: BTreeSet::new(),
            name_problems: Vec::new(),
            backend_problems: BTreeMap::new(),
        }
    }

    /// Goes on from the snapshot that it saw last, `before`, to `after`, on a host that has `host_addresses` now.
    pub fn follow(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        host_addresses: &BTreeSet<IpAddr>,
    ) -> RoutesChange {
        let mut change = RoutesChange::default();
        let moved = self.config.host_addresses != *host_addresses;
        let told = std::mem::replace(&mut self.has_told_addresses, true);
        if moved || !told {
            change.host_addresses = Some(host_addresses.clone());
        }
        if !moved && names_the_same(before, after) {
            for (name, _, service) in changes(&before.services, &after.services) {
                let service = service.and_then(|service| self.serve(after, name, service));
                change.services.extend(service);
            }
        } else {
            self.config.host_addresses.clone_from(host_addresses);
            self.name(after, &mut change);
            for (name, service) in &after.services {
                change.services.extend(self.serve(after, name, service));
            }
        }
        self.routes.apply(&change);
        change
    }

    /// What could not become a route.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let of_backends = self.backend_problems.values().flatten();
        self.name_problems.iter().chain(of_backends)
    }

    pub(super) fn into_routes(self) -> Routes {
        self.routes
    }

    /// What the front is to know of a service, if that is something else than before.
    fn serve(
        &mut self,
        snapshot: &Snapshot,
        name: &ServiceName,
        service: &Service,
    ) -> Option<(Place, Option<Arc<RouteService>>)> {
        let place = *self.places.get(name)?;
        let (backends, mut problems) = backends(name, service, &self.config, &self.pages);
        let access = &service.options.access;
        if let Some(rule) = cannot_be_told(access).filter(|_| name.tag.is_none()) {
            problems.push(Problem::new(
                format!("service {name}"),
                format!(
                    "the front knows clients by their addresses alone, so `lb_deny={rule}` keeps everybody out there but \
                     the host; deny the addresses of that network instead, or say `lb_expose=false`"
                ),
            ));
        }
        let list = service.options.front.as_ref();
        let list = list.and_then(|rules| rules.auth.as_ref());
        // One without a name is a wrong option, which was told.
        let unknown = list.filter(|list| !list.is_empty() && !self.config.auth.contains(*list));
        if let Some(list) = unknown.filter(|_| name.tag.is_none()) {
            problems.push(Problem::new(
                format!("service {name}"),
                format!(
                    "`lb_auth={list}` closes it on the front, for there is no list of users `{list}`; name its file in `[front.auth]`, \
                     or correct the option"
                ),
            ));
        }
        if problems.is_empty() {
            self.backend_problems.remove(name);
        } else {
            self.backend_problems.insert(name.clone(), problems);
        }
        let known = self.routes.services.get(&place);
        let service = RouteService {
            label: snapshot.label(name),
            backends,
            access: on_front(access),
            h2c: service.options.proto == Proto::H2c,
            rules: service.options.front.clone(),
        };
        if known.is_some_and(|known| **known == service) {
            return None;
        }
        Some((place, Some(Arc::new(service))))
    }

    /// Decides anew which services are exposed and which names each has.
    fn name(&mut self, snapshot: &Snapshot, change: &mut RoutesChange) {
        let mut problems = Vec::new();
        let mut contests: BTreeMap<(&ServiceName, &ServiceName), Vec<String>> = BTreeMap::new();
        let mut owners: BTreeMap<Place, &ServiceName> = BTreeMap::new();
        let mut hosts = Hosts::default();
        let exposed = || {
            let all = snapshot.services.iter();
            all.filter(|(_, service)| self.config.expose.includes(service))
        };
        let wholes = exposed().filter(|(name, _)| name.tag.is_none());
        let parts = exposed().filter(|(name, _)| name.tag.is_some());
        for (name, service) in wholes.chain(parts) {
            let (names, wrong): (Vec<_>, Vec<_>) = host_names(name, service, &self.config.domains)
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
            let place = self.places.get(name).copied().unwrap_or_else(|| {
                self.last += 1;
                self.last
            });
            owners.insert(place, name);
            let path = service.options.path();
            for host in names {
                let owner = match path {
                    None => hosts.names.get(&host).copied(),
                    Some(prefix) => hosts.paths.owner(&host, prefix),
                };
                match (owner, path) {
                    (Some(owner), _) => contests
                        .entry((name, owners[&owner]))
                        .or_default()
                        .push(format!("{host}{}", path.unwrap_or_default())),
                    (None, None) => drop(hosts.names.insert(host, place)),
                    (None, Some(prefix)) => hosts.paths.set(&host, prefix, Some(place)),
                }
            }
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
        self.name_problems = problems;
        let names = self.config.page_names.iter();
        let pages = names.filter_map(|name| owners.get(&hosts.find(name, "/").ok()??));
        self.pages = pages.map(|name| name.service.clone()).collect();
        let gone = self.places.iter();
        let gone = gone.filter(|(_, place)| !owners.contains_key(place));
        for (name, &place) in gone {
            self.backend_problems.remove(name);
            change.services.push((place, None));
        }
        self.places = owners
            .into_iter()
            .map(|(place, name)| (name.clone(), place))
            .collect();
        let known = &self.routes.hosts;
        for (host, prefix, place) in hosts.paths.iter() {
            if known.paths.owner(host, prefix) != Some(place) {
                let path = (host.to_owned(), prefix.to_owned(), Some(place));
                change.paths.push(path);
            }
        }
        for (host, prefix, _) in known.paths.iter() {
            if hosts.paths.owner(host, prefix).is_none() {
                let path = (host.to_owned(), prefix.to_owned(), None);
                change.paths.push(path);
            }
        }
        let differing = differences(&known.names, &hosts.names, |one, other| one == other);
        change
            .hosts
            .extend(differing.map(|(host, _, place)| (host.clone(), place.copied())));
    }
}

/// Whether all that decides about names is the same: who is there and exposed, its aliases and its path, and whether it
/// speaks TCP at all.
fn names_the_same(before: &Snapshot, after: &Snapshot) -> bool {
    fn decides(service: &Service) -> (Option<bool>, bool, Option<&str>) {
        let options = &service.options;
        let is_udp = matches!(options.proto, Proto::Udp);
        (options.expose, is_udp, options.path())
    }
    changes(&before.services, &after.services).all(|(_, old, new)| match (old, new) {
        (Some(old), Some(new)) => decides(old) == decides(new) && old.aliases == new.aliases,
        _ => false,
    })
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
    pages: &BTreeSet<Arc<str>>,
) -> (Vec<RouteBackend>, Vec<Problem>) {
    let mut backends = Vec::new();
    let mut problems = Vec::new();
    for (key, backend, share) in service.shares() {
        // A request over TCP cannot reach it.
        if service.options.is_udp(&backend.tags) {
            continue;
        }
        let address = backend.address;
        let wrong = if config.is_heard(&config.listeners, address) {
            "a listener of the front or the resolver itself; register it with its own address"
        } else if config.pools.contain(address.ip().to_canonical()) {
            "in the VIP pool; register it with its own address"
        } else if config.is_heard(&config.page, address) && !pages.contains(&name.service) {
            "the agent's page, which is for the service that answers to one of `[admin] names`"
        } else {
            backends.push(RouteBackend {
                address,
                // One that `lb_local` leaves out keeps no clients either.
                usable: backend.state().usable() && (share > 0 || backend.weight == 0),
                weight: share,
                canary: backend.canary,
                cut: backend.order.cut_unix_ms(),
            });
            continue;
        };
        // A part repeats the instances of the whole: one report is enough.
        if name.tag.is_none() {
            problems.push(Problem::new(
                format!("instance {key} of service {name}"),
                format!("it gets no request, for its address {address} is {wrong}"),
            ));
        }
    }
    (backends, problems)
}

fn unusable_name(name: &ServiceName, host: &str) -> Problem {
    Problem::new(
        format!("service {name}"),
        format!(
            "`{host}` cannot be a host name (labels of 1 to 63 letters, digits, `-` and `_`, 253 bytes in all); rename it"
        ),
    )
}

pub(super) fn longer(host: &str, other: &str) -> bool {
    host.len() > other.len() && host.starts_with(other)
}

/// Whether `host` can be asked for: the labels of DNS, and `_`, which real service names have.
pub(super) fn valid(host: &str) -> bool {
    let label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(legal)
    };
    host.len() <= 253 && host.split('.').all(label)
}
