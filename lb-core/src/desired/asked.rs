//! What one service asks of the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    ANY_PORT, Balance, Be16, Be32, FAMILY_ANY, HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW, PROTO_TCP,
    PROTO_UDP, SLOTS, ServiceKey, flag,
};

use super::{
    Endpoint, Share,
    reach::{Viewpoint, reach},
    slots::{by_hash, sequence},
};
use crate::{
    catalog::{InstanceKey, Problem},
    options::{
        self, Options,
        access::{Access, Client},
    },
    snapshot::{Backend, ProbeState, Service, ServiceName},
    views::{View, Views},
    vip::Pools,
};

/// What one service asks of the maps.
pub(super) struct Asked {
    pub(super) endpoints: BTreeMap<ServiceKey, Endpoint>,
    pub(super) backends: Vec<(SocketAddr, Share)>,
    pub(super) problems: Vec<Problem>,
}

impl Asked {
    /// Nothing, as long as it has no VIP.
    pub(super) fn new(
        name: &ServiceName,
        service: &Service,
        views: &Views,
        pools: Pools,
    ) -> Option<Self> {
        let vip = service.vip?;
        let mut asked = Self {
            endpoints: BTreeMap::new(),
            backends: Vec::new(),
            problems: Vec::new(),
        };
        let members = asked.members(name, service, pools);
        for proto in protocols(&service.options) {
            let speaks =
                |backend: &Backend| service.options.is_udp(&backend.tags) == (proto == PROTO_UDP);
            let members: Vec<_> = members
                .iter()
                .copied()
                .filter(|(backend, _)| speaks(backend))
                .collect();
            asked.too_many(name, &members);
            let seen = Seen::new(name, service, &members);
            let (by_view, counted) = seen.by_views(views);
            // An address that serves both protocols comes twice, which is counted as two owners.
            let named: Arc<[_]> = counted.keys().copied().collect();
            asked.backends.extend(counted);
            for key in keys(vip, &service.options.ports, proto) {
                for (&(view, v6), endpoint) in &by_view {
                    let key = key.seen_from(view);
                    let key = if v6 { key.for_v6() } else { key };
                    let named = Arc::clone(&named);
                    let endpoint = Endpoint {
                        named,
                        ..endpoint.clone()
                    };
                    asked.endpoints.insert(key, endpoint);
                }
            }
        }
        Some(asked)
    }

    /// The view whose endpoint decides for a client, as the kernel looks it up; `None` stands on the host.
    pub(super) fn decides(&self, client: Option<lb_common::Client>) -> u32 {
        let stands = client.map(|it| [it.view, it.otherwise]);
        let seen = |view: &u32| self.endpoints.keys().any(|key| key.view == *view);
        let mut stands = stands.into_iter().flatten();
        stands.find(seen).unwrap_or(HOST_VIEW)
    }

    /// Its endpoint in a view, on whichever port, and the one for IPv6 sockets alone.
    pub(super) fn endpoint(&self, view: u32) -> Option<(&Endpoint, Option<&Endpoint>)> {
        let (key, any) = self
            .endpoints
            .iter()
            .find(|(key, _)| key.view == view && key.family == FAMILY_ANY)?;
        Some((any, self.endpoints.get(&key.for_v6())))
    }

    /// The backends that flows can be sent to at all, with their shares.
    fn members<'s>(
        &mut self,
        name: &ServiceName,
        service: &'s Service,
        pools: Pools,
    ) -> Vec<(&'s Backend, u16)> {
        let mut members = Vec::with_capacity(service.backends.len());
        for (key, backend, share) in service.shares() {
            match fit(backend.address, pools) {
                Ok(()) => members.push((backend, share)),
                Err(message) => self.problems.push(unfit(name, key, message)),
            }
        }
        members
    }

    fn too_many(&mut self, name: &ServiceName, members: &[(&Backend, u16)]) {
        let usable = members.iter();
        let usable = usable.filter(|(backend, share)| backend.state().usable() && *share > 0);
        let usable = usable.count();
        if usable > SLOTS as usize {
            self.problems.push(Problem::new(
                format!("service {name}"),
                format!("only {SLOTS} of its {usable} usable instances take flows; register fewer"),
            ));
        }
    }
}

fn unfit(name: &ServiceName, key: &InstanceKey, message: String) -> Problem {
    Problem::new(format!("instance {key} of {name}"), message)
}

/// Whether the socket path can send flows there; else what to do about it.
pub fn fit(address: SocketAddr, pools: Pools) -> Result<(), String> {
    match address.ip().to_canonical() {
        _ if address.port() == 0 => Err(format!("{address} has no port; register one")),
        ip if pools.contain(ip) => Err(format!(
            "{address} lies in the VIP pool; register the instance's own address"
        )),
        _ => Ok(()),
    }
}

/// A service as clients see it.
struct Seen<'s> {
    access: &'s Access,
    members: &'s [(&'s Backend, u16)],
    /// An endpoint without slots.
    bare: Endpoint,
}

/// By view, and by whether it is for IPv6 sockets alone.
type ByView = BTreeMap<(u32, bool), Endpoint>;

impl<'s> Seen<'s> {
    fn new(name: &ServiceName, service: &'s Service, members: &'s [(&'s Backend, u16)]) -> Self {
        let all = service.backends.values();
        let bare = Endpoint {
            name: name.clone(),
            balance: balance(service.options.balance),
            affinity_seconds: u32::try_from(service.options.affinity.as_secs()).unwrap_or(u32::MAX),
            flags: 0,
            proven: all
                .map(|backend| backend.probe.state)
                .all(|state| state != ProbeState::Starting),
            named: Arc::default(),
            slots: Vec::new(),
        };
        Self {
            access: &service.options.access,
            members,
            bare,
        }
    }

    /// What each view that must be told apart sees, and all addresses that are seen.
    fn by_views(&self, views: &Views) -> (ByView, BTreeMap<SocketAddr, Share>) {
        let mut counted = BTreeMap::new();
        let mut by_view = ByView::new();
        let host = self.from(Viewpoint::Host, &mut counted);
        let mut others = ByView::new();
        for (number, outside) in [(OUTSIDE_VIEW, true), (INTERNAL_VIEW, false)] {
            let there = views.views.iter().filter(|(_, it)| it.outside == outside);
            // From an internal network nothing is reached that is not on it, wherever it is.
            if there.clone().next().is_none() || outside && !self.divides() {
                continue;
            }
            let fallback = self.from(Viewpoint::Elsewhere { outside }, &mut counted);
            put(&mut others, number, &fallback, &host);
            for (&number, view) in there {
                if self.tells_apart(view) {
                    let found = self.from(Viewpoint::Container(view), &mut counted);
                    put(&mut others, number, &found, &fallback);
                }
            }
        }
        put_always(&mut by_view, HOST_VIEW, &host);
        if !others.is_empty()
            && let Some(host) = by_view.get_mut(&(HOST_VIEW, false))
        {
            host.flags |= flag::VIEWS;
        }
        by_view.append(&mut others);
        (by_view, counted)
    }

    /// Whether it may look different from different places.
    fn divides(&self) -> bool {
        !self.access.is_open()
            || self.members.iter().any(|(backend, _)| {
                !backend.reach.networks.is_empty()
                    || backend.address.ip().to_canonical().is_loopback()
            })
    }

    /// Whether it may look different from `view` than from elsewhere.
    fn tells_apart(&self, view: &View) -> bool {
        let networks = &view.networks;
        !self.access.is_open()
            || self.members.iter().any(|(backend, _)| {
                let on = &backend.reach.networks;
                backend.local && networks.iter().any(|name| on.contains_key(name))
            })
    }

    /// The endpoint from one place: for every client, and for IPv6 sockets where these reach more.
    fn from(
        &self,
        from: Viewpoint<'_>,
        counted: &mut BTreeMap<SocketAddr, Share>,
    ) -> (Endpoint, Option<Endpoint>) {
        let admitted = against(self.access, from).is_none();
        let mut all = BTreeMap::new();
        let mut usable = false;
        for &(backend, share) in self.members {
            let takes = backend.state().usable() && share > 0;
            usable |= takes;
            let Some(address) = reach(backend, from) else {
                continue;
            };
            let at = Share {
                weight: share.max(1),
                counted_at: reach(backend, Viewpoint::Host).unwrap_or(address),
            };
            let known = counted.entry(address).or_insert(at);
            known.weight = known.weight.max(at.weight);
            if takes && admitted {
                all.insert(address, share);
            }
        }
        let v4: Vec<_> = all
            .iter()
            .filter(|(address, _)| address.ip().to_canonical().is_ipv4())
            .map(|(&address, &share)| (address, share))
            .collect();
        let some_v6 = v4.len() < all.len();
        let endpoint = |members: &[(SocketAddr, u16)]| {
            let members = &members[..members.len().min(SLOTS as usize)];
            let flags = match (admitted, usable && members.is_empty()) {
                (false, _) => flag::DENIED,
                (true, true) => flag::NO_PATH,
                (true, false) => 0,
            };
            Endpoint {
                slots: match self.bare.balance {
                    Balance::Maglev => by_hash(members),
                    _ => sequence(members),
                },
                flags,
                ..self.bare.clone()
            }
        };
        let mut any = endpoint(&v4);
        let v6 = some_v6.then(|| endpoint(&all.into_iter().collect::<Vec<_>>()));
        if v6.is_some() {
            any.flags |= flag::V6;
        }
        (any, v6)
    }
}

/// Which rule keeps clients there out, if one does. Where there are rules, who has no view of its own is kept out: its
/// element may not have found room in the maps.
pub(super) fn against(access: &Access, from: Viewpoint<'_>) -> Option<String> {
    let client = match from {
        Viewpoint::Elsewhere { .. } => {
            return (!access.is_open()).then(|| "clients that no view is known of".to_owned());
        }
        Viewpoint::Host => Client::HOST,
        Viewpoint::Container(view) => Client {
            host: false,
            lies_in: &|net| view.ranges.contains(net),
            networks: &view.networks,
        },
    };
    access.against(&client)
}

fn put(
    by_view: &mut ByView,
    view: u32,
    found: &(Endpoint, Option<Endpoint>),
    fallback: &(Endpoint, Option<Endpoint>),
) {
    if found != fallback {
        put_always(by_view, view, found);
    }
}

fn put_always(by_view: &mut ByView, view: u32, (any, v6): &(Endpoint, Option<Endpoint>)) {
    by_view.insert((view, false), any.clone());
    if let Some(v6) = v6 {
        by_view.insert((view, true), v6.clone());
    }
}

fn balance(balance: options::Balance) -> Balance {
    match balance {
        options::Balance::LeastConn => Balance::LeastConn,
        options::Balance::RoundRobin => Balance::RoundRobin,
        options::Balance::Random => Balance::Random,
        options::Balance::Maglev => Balance::Maglev,
    }
}

/// The protocols that its VIP answers.
fn protocols(options: &Options) -> impl Iterator<Item = u8> {
    let (tcp, udp) = options.speaks();
    [(tcp, PROTO_TCP), (udp, PROTO_UDP)]
        .into_iter()
        .filter_map(|(speaks, proto)| speaks.then_some(proto))
}

/// A service answers on every port, or on the named ones.
fn keys(vip: Ipv4Addr, ports: &BTreeSet<u16>, proto: u8) -> Vec<ServiceKey> {
    let vip = Be32::from_host(vip.into());
    let key = |port| ServiceKey::new(vip, port, proto, HOST_VIEW);
    if ports.is_empty() {
        vec![key(ANY_PORT)]
    } else {
        ports
            .iter()
            .map(|&port| key(Be16::from_host(port)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
