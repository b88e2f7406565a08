//! The routing table as a worker uses it: routes, with the order in which each service's backends take
//! requests. Immutable but for what lasts of each service. The table after a change shares what stays the same.

mod canary;
mod order;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
};

use hyper::StatusCode;

use super::{
    forward::Forwarding,
    lasting::Lasting,
    pages::{Pages, Ready},
    policy::{Https, Policy, Sticky, StickyKey},
    request::Via,
    routes::{Ambiguous, Hosts, Place, RouteBackend, RouteService, RoutesChange},
    services::{Number, Numbers},
    users::Users,
};
pub(super) use canary::Group;
use canary::{Canaries, from};
use order::order;
pub use settings::Settings;

#[derive(Clone)]
pub(super) struct Table {
    /// `None`: the agent has not sent any yet.
    hosts: Option<Arc<Hosts>>,
    services: BTreeMap<Place, Arc<ServiceTable>>,
    /// For the figures of services.
    numbers: Arc<Numbers>,
    /// Of the host, for the rules of services.
    host_addresses: Arc<BTreeSet<IpAddr>>,
    /// By the names of their lists.
    users: Arc<BTreeMap<String, Arc<Users>>>,
    pub(super) no_route_status: StatusCode,
    pub(super) no_backend_status: StatusCode,
    /// In place of lines of our own.
    pub(super) pages: Arc<Ready>,
    pub(super) via: Via,
    pub(super) forwarding: Arc<Forwarding>,
    /// What holds for plain HTTP as against HTTPS, if anything does.
    pub(super) https: Option<Arc<Https>>,
    sticky_key: Option<StickyKey>,
}

/// One service behind the front.
pub(super) struct ServiceTable {
    /// The place of its figures.
    pub(super) number: Arc<Number>,
    pub(super) label: Arc<str>,
    place: Place,
    service: Arc<RouteService>,
    /// What its rules ask for, if it has any.
    policy: Option<Box<Policy>>,
    /// Indexes of its backends, usable ones only, each as often as its weight says, well mixed.
    order: Box<[usize]>,
    /// Those that are not in there, but take a share of the turns.
    canaries: Option<Box<Canaries>>,
    /// How many backends are in it.
    pub(super) usable: usize,
    lasting: Arc<Lasting>,
}

impl Table {
    /// The table before the first routes have come.
    pub(super) fn unknown() -> Self {
        Self {
            hosts: None,
            services: BTreeMap::new(),
            numbers: Arc::default(),
            host_addresses: Arc::default(),
            users: Arc::default(),
            no_route_status: StatusCode::SERVICE_UNAVAILABLE,
            no_backend_status: StatusCode::SERVICE_UNAVAILABLE,
            pages: Arc::default(),
            via: Via::fallback(),
            forwarding: Arc::default(),
            https: None,
            sticky_key: None,
        }
    }

    /// The table for `routes`, which are all there are. It goes on where `before` stands in turn.
    pub(super) fn new(routes: &RoutesChange, settings: &Settings, before: &Self) -> Self {
        let lasting: HashMap<_, _> = before
            .services
            .values()
            .map(|service| (&service.label, &service.lasting))
            .collect();
        let empty = Self {
            hosts: Some(Arc::default()),
            services: BTreeMap::new(),
            numbers: before.numbers.clone(),
            host_addresses: Arc::default(),
            users: Arc::default(),
            no_route_status: status(settings.no_route_status),
            no_backend_status: status(settings.no_backend_status),
            pages: before.pages.clone(),
            via: Via::new(&settings.via).unwrap_or_else(Via::fallback),
            forwarding: Arc::new(settings.forwarding.clone()),
            https: Https::new(&settings.https).map(Arc::new),
            sticky_key: settings.sticky_key.clone(),
        };
        // The agent before this one had other places.
        empty.changed(routes, |_, label| lasting.get(label).copied().cloned())
    }

    /// The table after `change`.
    pub(super) fn after(&self, change: &RoutesChange) -> Self {
        let lasting = |place, _: &_| Some(self.services.get(&place)?.lasting.clone());
        self.clone().changed(change, lasting)
    }

    /// The same with `pages` in place of those before.
    pub(super) fn with_pages(&self, pages: &Pages) -> Self {
        Self {
            pages: Arc::new(Ready::new(pages)),
            ..self.clone()
        }
    }

    fn changed(
        mut self,
        change: &RoutesChange,
        lasting: impl Fn(Place, &Arc<str>) -> Option<Arc<Lasting>>,
    ) -> Self {
        if !(change.hosts.is_empty() && change.paths.is_empty())
            && let Some(hosts) = &mut self.hosts
        {
            Arc::make_mut(hosts).apply(change);
        }
        if let Some(addresses) = &change.host_addresses {
            self.host_addresses = Arc::new(addresses.clone());
        }
        for (list, users) in &change.users {
            let all = Arc::make_mut(&mut self.users);
            match users {
                Some(users) => drop(all.insert(list.clone(), users.clone())),
                None => drop(all.remove(list)),
            }
        }
        for (place, service) in &change.services {
            if let Some(service) = service {
                let lasting = lasting(*place, &service.label).unwrap_or_default();
                let number = self.numbers.of(&service.label);
                let service = ServiceTable::new(
                    *place,
                    service.clone(),
                    lasting,
                    number,
                    self.sticky_key.as_ref(),
                );
                let service = Arc::new(service);
                self.services.insert(*place, service);
            } else {
                self.services.remove(place);
            }
        }
        self
    }

    /// Whether the agent has sent routes.
    pub(super) fn is_known(&self) -> bool {
        self.hosts.is_some()
    }

    /// The service that answers to `path` of `host`.
    pub(super) fn find(
        &self,
        host: &str,
        path: &str,
    ) -> Result<Option<&Arc<ServiceTable>>, Ambiguous> {
        let Some(hosts) = &self.hosts else {
            return Ok(None);
        };
        let place = hosts.find(host, path)?;
        Ok(place.and_then(|place| self.services.get(&place)))
    }

    /// What has become of `service`.
    pub(super) fn current(&self, service: &ServiceTable) -> Option<&Arc<ServiceTable>> {
        let current = self.services.get(&service.place)?;
        // Another agent has other places.
        (current.label == service.label).then_some(current)
    }

    /// All services.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceTable> {
        self.services.values().map(|service| &**service)
    }

    /// Whether `service` lets a client with this address in.
    pub(super) fn admits(&self, service: &ServiceTable, client: IpAddr) -> bool {
        let access = service.service.access.as_ref();
        access.is_none_or(|access| access.admits(client, &self.host_addresses))
    }

    /// The users of the list `name`, if it is known.
    pub(super) fn users(&self, name: &str) -> Option<&Users> {
        self.users.get(name).map(|users| &**users)
    }

    /// The labels of all services.
    pub(super) fn labels(&self) -> HashSet<&str> {
        let services = self.services.values();
        services.map(|service| &*service.label).collect()
    }

    /// Where connections end by now, and where by which moment next, in milliseconds since 1970. Of services that share an
    /// address the last one counts.
    pub(super) fn cuts(&self, now: u64) -> (HashSet<SocketAddr>, Option<u64>) {
        let backends = || self.services.values().flat_map(|it| &it.service.backends);
        let mut cuts = HashMap::new();
        for backend in backends() {
            if backend.cut.is_some() {
                cuts.insert(backend.address, 0);
            }
        }
        if cuts.is_empty() {
            return (HashSet::new(), None);
        }
        for backend in backends() {
            if let Some(at) = cuts.get_mut(&backend.address) {
                *at = backend.cut.unwrap_or(u64::MAX).max(*at);
            }
        }
        let next = cuts
            .values()
            .copied()
            .filter(|&at| at > now && at < u64::MAX);
        let next = next.min();
        cuts.retain(|_, at| *at <= now);
        (cuts.into_keys().collect(), next)
    }

    /// Where requests may go: pooled connections to anywhere else are of no use.
    pub(super) fn addresses(&self) -> HashSet<SocketAddr> {
        let services = self.services.values();
        services
            .flat_map(|service| &service.service.backends)
            .filter(|backend| backend.usable)
            .map(|backend| backend.address)
            .collect()
    }
}

impl ServiceTable {
    fn new(
        place: Place,
        service: Arc<RouteService>,
        lasting: Arc<Lasting>,
        number: Arc<Number>,
        sticky_key: Option<&StickyKey>,
    ) -> Self {
        let weights = service
            .backends
            .iter()
            .map(|backend| if backend.usable { backend.weight } else { 0 });
        let weights: Vec<_> = weights.collect();
        let (order, canaries) = orders(&service, &weights);
        Self {
            number,
            label: service.label.clone(),
            place,
            policy: service
                .rules
                .as_deref()
                .map(|rules| Policy::new(rules, Sticky::new(&service, sticky_key)).into()),
            order,
            canaries,
            usable: weights.iter().filter(|&&weight| weight > 0).count(),
            service,
            lasting,
        }
    }

    /// What its rules ask for.
    pub(super) fn policy(&self) -> Option<&Policy> {
        self.policy.as_deref()
    }

    /// Whether its backends speak HTTP/2.
    pub(super) fn is_h2c(&self) -> bool {
        self.service.h2c
    }

    pub(super) fn cursor(&self) -> &AtomicUsize {
        &self.lasting.cursor
    }

    pub(super) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    /// Backends in the order of turns, beginning with `turn` or with the `wished` group, each as often as its weight says;
    /// and which one it is.
    pub(super) fn in_turn(
        &self,
        turn: usize,
        wished: Option<Group>,
    ) -> impl Iterator<Item = (usize, &RouteBackend)> {
        let (first, second) = match &self.canaries {
            None => (from(&self.order, turn), from(&[], turn)),
            Some(canaries) => canaries.in_turn(&self.order, turn, wished),
        };
        let places = first.chain(second);
        places.map(|&place| (place, &self.service.backends[place]))
    }

    /// The backend with this index.
    pub(super) fn backend(&self, index: u32) -> Option<&RouteBackend> {
        self.service.backends.get(usize::try_from(index).ok()?)
    }

    /// Whether one of its usable backends is at `address`.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let mut backends = self.service.backends.iter();
        backends.any(|backend| backend.usable && backend.address == address)
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// The order of turns and beside it the canaries, where a service has usable backends of both kinds.
fn orders(service: &RouteService, weights: &[u16]) -> (Box<[usize]>, Option<Box<Canaries>>) {
    let of = |group| {
        let backends = service.backends.iter().zip(weights);
        let weight = |(backend, &weight): (&RouteBackend, _)| match Group::of(backend.canary) {
            it if it == group => weight,
            _ => 0,
        };
        order(&backends.map(weight).collect::<Vec<_>>())
    };
    let canary = service.rules.as_ref().and_then(|it| it.canary.as_ref());
    let Some(canary) = canary else {
        return (order(weights), None);
    };
    let (rest, canaries) = (of(Group::Rest), of(Group::Canary));
    match (rest.is_empty(), canaries.is_empty()) {
        (true, _) => (canaries, None),
        (false, true) => (rest, None),
        (false, false) => (rest, Some(Canaries::new(canaries, canary.share).into())),
    }
}
