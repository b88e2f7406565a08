//! What the packet path should know, as a pure function of the snapshot and of where this host stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{
    ANY_PORT, Be16, Be32, PROTO_TCP, PROTO_UDP,
    packet::{EndpointKey, Settings, scope},
};
use lb_packet::{Desired, Member, Wanted};

use crate::{
    catalog::Problem,
    desired::{fit, from_host},
    options::Packet,
    snapshot::{Backend, Service, ServiceName, Snapshot},
    sockets::Target,
    vip::Pools,
};

/// What decides beside the snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Standpoint {
    pub(super) pools: Pools,
    /// The addresses of this host.
    pub(super) own: BTreeSet<IpAddr>,
    /// Networks whose members are on this host.
    pub(super) inside: Vec<IpNet>,
    /// Whether packets come from other hosts.
    pub(super) cards: bool,
    /// Hosts whose tunnels are taken, beside those of instances.
    pub(super) hosts: BTreeSet<IpAddr>,
    /// Backends that were taken out, and whether their flows may go on.
    pub(super) out: BTreeMap<Target, bool>,
    /// Services of which each packet is told.
    pub(super) traced: BTreeSet<ServiceName>,
    pub(super) settings: Settings,
}

/// What the packet path should know, and how people call it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) desired: Desired,
    /// Whose each endpoint is.
    pub(super) owners: BTreeMap<EndpointKey, ServiceName>,
    /// What of the snapshot is not served.
    pub(super) problems: Vec<Problem>,
}

/// A service, its VIP, and who is behind each protocol.
type Served<'a> = (
    &'a ServiceName,
    &'a Service,
    Ipv4Addr,
    Vec<(u8, Arc<[Member]>)>,
);

impl Wish {
    pub(super) fn new(snapshot: &Snapshot, standpoint: &Standpoint) -> Self {
        let mut wish = Self::default();
        wish.desired.settings = standpoint.settings;
        wish.desired.hosts.clone_from(&standpoint.hosts);
        let mut served = Vec::new();
        for (name, service) in &snapshot.services {
            served.extend(wish.served(name, service, standpoint));
        }
        // Only now it is known where each backend is: what one registration does not say another may.
        for (name, service, vip, behind) in served {
            for (proto, members) in behind {
                wish.endpoints(name, service, (vip, proto), members, standpoint);
            }
        }
        let is_traced = wish.desired.endpoints.values().any(|it| it.trace);
        wish.desired.settings.traced = is_traced.into();
        let places = wish.desired.places.values();
        let hosts = places.filter(|it| !it.local).filter_map(|it| it.host);
        let hosts: Vec<_> = hosts.filter(|it| !standpoint.own.contains(it)).collect();
        wish.desired.hosts.extend(hosts);
        let left = standpoint.out.iter().filter(|(_, lives)| **lives);
        wish.desired.kept = left.map(|(target, _)| target.address).collect();
        wish
    }

    /// A service if it is served, with who is behind each protocol.
    fn served<'a>(
        &mut self,
        name: &'a ServiceName,
        service: &'a Service,
        standpoint: &Standpoint,
    ) -> Option<Served<'a>> {
        let vip = service.vip?;
        if let Some(why) = not_served(service) {
            if why == Unserved::Access {
                self.problems.push(why.problem(name));
            }
            return None;
        }
        let (tcp, udp) = service.options.speaks();
        let behind: Vec<_> = [(PROTO_TCP, tcp), (PROTO_UDP, udp)]
            .into_iter()
            .filter(|(_, speaks)| *speaks)
            .map(|(proto, _)| (proto, self.members(service, vip, proto, standpoint)))
            .collect();
        if !service.backends.is_empty() && behind.iter().all(|(_, members)| members.is_empty()) {
            self.problems.push(Unserved::Unreachable.problem(name));
        }
        self.desired.vips.insert(vip);
        Some((name, service, vip, behind))
    }

    /// The backends behind one protocol that packets can be sent to. Those that are not usable have no share, and keep their
    /// flows as long as these may go on.
    fn members(
        &mut self,
        service: &Service,
        vip: Ipv4Addr,
        proto: u8,
        standpoint: &Standpoint,
    ) -> Arc<[Member]> {
        let speaks = |it: &Backend| service.options.is_udp(&it.tags) == (proto == PROTO_UDP);
        let mut members: BTreeMap<SocketAddr, Member> = BTreeMap::new();
        for (_, backend, share) in service.shares().filter(|(_, it, _)| speaks(it)) {
            let address = canonical(from_host(backend));
            let usable = backend.state().usable();
            let target = Target { vip, address };
            let over = !usable && standpoint.out.get(&target) == Some(&false);
            if over || address.ip().is_loopback() || fit(address, standpoint.pools).is_err() {
                continue;
            }
            let weight = if usable { share } else { 0 };
            let known = members.entry(address).or_insert(Member { address, weight });
            known.weight = known.weight.max(weight);
            let place = self.desired.places.entry(address).or_default();
            place.host = place.host.or(host(backend, address));
            place.local |= standpoint.has(backend, address);
        }
        members.into_values().collect()
    }

    fn endpoints(
        &mut self,
        name: &ServiceName,
        service: &Service,
        (vip, proto): (Ipv4Addr, u8),
        members: Arc<[Member]>,
        standpoint: &Standpoint,
    ) {
        let wanted = Wanted {
            members,
            tunnel: service.options.packet == Packet::Tunnel,
            trace: standpoint.traced.contains(name),
        };
        let has = |v6: bool, local: bool| {
            let mut members = wanted.members.iter().map(|it| it.address);
            members.any(|it| it.is_ipv6() == v6 && (!local || self.desired.place(it).local))
        };
        // Who may not be reached is refused by IPv4; what has no endpoint is the stack's, which refuses it, too.
        let mut scopes = vec![0];
        let v6 = standpoint.pools.v6.is_some() && has(true, false);
        scopes.extend(v6.then_some(scope::V6));
        if standpoint.cards {
            scopes.extend(has(false, true).then_some(scope::LOCAL));
            scopes.extend((v6 && has(true, true)).then_some(scope::LOCAL | scope::V6));
        }
        for port in ports(service) {
            for &scope in &scopes {
                let key = EndpointKey {
                    vip: Be32::from_host(vip.into()),
                    port,
                    proto,
                    scope,
                };
                self.desired.endpoints.insert(key, wanted.clone());
                self.owners.insert(key, name.clone());
            }
        }
    }
}

/// Why a service is not served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unserved {
    /// Its registrations say so.
    Off,
    /// Clients are let in or kept out by rules that are not kept here.
    Access,
    /// None of its instances can be sent packets.
    Unreachable,
}

impl Unserved {
    /// As the rest of a sentence about a service.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Off => "its registrations say `lb_packet=off`",
            Self::Access => {
                "the packet path does not know `lb_allow` and `lb_deny` and lets nobody in; say `lb_packet=off`, or do \
                 without these rules"
            }
            Self::Unreachable => {
                "none of its instances can be sent packets, since all listen on loopback; register them with an address \
                 of their host, or say `lb_packet=off`"
            }
        }
    }

    fn problem(self, name: &ServiceName) -> Problem {
        let message = format!("packets for its VIP are refused: {}", self.why());
        Problem::new(format!("service {name}"), message)
    }
}

/// Why no packet for `service` is balanced, whatever its instances are.
pub(super) fn not_served(service: &Service) -> Option<Unserved> {
    if service.options.packet == Packet::Off {
        Some(Unserved::Off)
    } else if !service.options.access.is_open() {
        Some(Unserved::Access)
    } else {
        None
    }
}

impl Standpoint {
    /// Whether packets for a backend at this address end on this host.
    fn has(&self, backend: &Backend, address: SocketAddr) -> bool {
        let ip = address.ip();
        let in_container =
            backend.local && backend.reach.networks.values().any(|own| own.ip() == ip);
        in_container || self.own.contains(&ip) || self.inside.iter().any(|net| net.contains(&ip))
    }
}

/// The address of the host that a backend runs on, where a tunnel to it ends.
fn host(backend: &Backend, address: SocketAddr) -> Option<IpAddr> {
    let reach = &backend.reach;
    let published = reach.published.map(|it| it.ip());
    let in_container = reach.networks.values().any(|own| *own == address);
    let own = (!in_container).then(|| address.ip());
    let all = [reach.host, published, own];
    let mut all = all.into_iter().flatten().map(|it| it.to_canonical());
    all.find(|it| it.is_ipv4() == address.is_ipv4())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn ports(service: &Service) -> Vec<Be16> {
    let ports = &service.options.ports;
    if ports.is_empty() {
        return vec![ANY_PORT];
    }
    ports.iter().map(|&port| Be16::from_host(port)).collect()
}

#[cfg(test)]
mod tests;
