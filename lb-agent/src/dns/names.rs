//! What a name means to this agent: a pure table made from a snapshot, and its lookup.
//!
//! A name means, first match first:
//! 1. a service: its own name, the same with `_` as `.`, its aliases, the name of a tagged part
//!    (`www.hello`): the VIP and its IPv6 twin;
//! 2. the same names under `virtual.consul`, and under `localdomain`, which a container's C library may append;
//! 3. the host, if it lies under `localhost`, if it is the route of a service under one of the front's
//!    domains, or if it carries a loopback address: the agent's own address. To the container that asks,
//!    loopback is the container; whoever wrote such a name meant the front;
//! 4. the address it carries (see [`carried`]);
//! 5. something that others know.
//!
//! A service's ports are found under those names too, and as `_http._tcp.<name>` or `_<service>._tcp.<suffix>`
//! (RFC 2782). Addresses of the pools have the names of their services; see `reverse`.
//!
//! This never asks the network and holds no state but the table.

mod claims;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use lb_front::carried;

use crate::{
    catalog::Problem,
    snapshot::{Service, ServiceName},
    vip::Pools,
};

/// The names of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pools: Pools,
    domains: Vec<String>,
    answered: bool,
    stopgap: bool,
    table: HashMap<String, Target>,
    /// The name that a VIP has: the first that its service got.
    pointers: HashMap<Ipv4Addr, String>,
    problems: Vec<Problem>,
}

/// The meaning of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is known and has these addresses; an absent one means "no such data", never "no such name".
    Addresses {
        /// The answer to an A query.
        v4: Option<Ipv4Addr>,
        /// The answer to an AAAA query.
        v6: Option<Ipv6Addr>,
    },
    /// A known service that has no VIP at the moment. Asking others could only mislead.
    WithoutVip,
    /// It may be a service that no source has told us of yet.
    NotYet,
    /// It lies under `consul.`: Consul may know.
    Consul,
    /// Others may know.
    Elsewhere,
}

/// Where a service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports<'n> {
    /// The name of the service's addresses.
    pub target: String,
    /// The ports; several where its instances registered different ones.
    pub ports: &'n [u16],
    /// The VIP.
    pub v4: Ipv4Addr,
    /// Its twin.
    pub v6: Option<Ipv6Addr>,
}

/// What an address of the pools stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer<'n> {
    /// A service of this name.
    Service(&'n str),
    /// No service.
    Nobody,
    /// It may be a service that no source has told us of yet.
    NotYet,
}

/// What a name in the table stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Service(Arc<Known>),
    Host,
}

/// What names need to know of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: ServiceName,
    vip: Option<Ipv4Addr>,
    /// The ports at which it is reached over TCP, if it is.
    tcp: Option<Vec<u16>>,
    /// The same over UDP.
    udp: Option<Vec<u16>>,
}

impl Names {
    /// The names before the first snapshot: nothing is known, and nothing is denied.
    pub fn unknown(pools: Pools, domains: &[String]) -> Self {
        let domains = domains
            .iter()
            .map(|domain| domain.trim_matches('.').to_ascii_lowercase())
            .filter(|domain| !domain.is_empty())
            .collect();
        Self {
            pools,
            domains,
            answered: false,
            stopgap: false,
            table: HashMap::new(),
            pointers: HashMap::new(),
            problems: Vec::new(),
        }
    }

    /// Whether every source has answered, so that what is not in the table does not exist.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Whether the sources that have not answered may be away for long.
    pub fn stopgap(&self) -> bool {
        self.stopgap
    }

    /// Names that are claimed twice, or mean something else than their service expects.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The meaning of `name`, which is in lower case and has no trailing dot.
    pub fn lookup(&self, name: &str) -> Found {
        if let Some(known) = self.known(name) {
            return match known.vip {
                Some(vip) => Found::Addresses {
                    v4: Some(vip),
                    v6: self.pools.twin(vip),
                },
                None => Found::WithoutVip,
            };
        }
        if let Some((_, known, _)) = self.labelled(name) {
            return match known.vip {
                Some(_) => Found::Addresses { v4: None, v6: None },
                None => Found::WithoutVip,
            };
        }
        if matches!(self.table.get(name), Some(Target::Host)) {
            return Found::v4(self.pools.own());
        }
        if let Some(found) = self.localhost(name) {
            return found;
        }
        if let Some(carried) = carried::carried(name) {
            return if carried.is_loopback() {
                Found::v4(self.pools.own())
            } else {
                Found::Addresses {
                    v4: carried.v4,
                    v6: carried.v6,
                }
            };
        }
        if !self.answered && self.may_be_ours(name) {
            Found::NotYet
        } else if lies_under(name, "consul") {
            Found::Consul
        } else {
            Found::Elsewhere
        }
    }

    /// Where the service that `name` means is reached: asked by one of its own names, by such a name below
    /// `_<anything>._tcp` or `_udp`, or as `_<service>._tcp.<suffix>`. `None` if it is no service, has no VIP, or is not
    /// reached by that protocol.
    pub fn ports(&self, name: &str) -> Option<Ports<'_>> {
        let (known, ports, target) = match self.known(name) {
            Some(known) => {
                let ports = known.tcp.as_ref().or(known.udp.as_ref())?;
                (known, ports, name.to_owned())
            }
            None => {
                let (protocol, known, target) = self.labelled(name)?;
                let ports = match protocol {
                    "_udp" => &known.udp,
                    _ => &known.tcp,
                };
                (known, ports.as_ref()?, target)
            }
        };
        let v4 = known.vip?;
        Some(Ports {
            target,
            ports,
            v4,
            v6: self.pools.twin(v4),
        })
    }

    /// What `address` stands for; `None` if it lies in no pool.
    pub fn pointer(&self, address: IpAddr) -> Option<Pointer<'_>> {
        if !self.pools.contain(address) {
            return None;
        }
        let vip = self.pools.vip(address);
        Some(match vip.and_then(|vip| self.pointers.get(&vip)) {
            Some(name) => Pointer::Service(name),
            None if self.answered => Pointer::Nobody,
            None => Pointer::NotYet,
        })
    }

    /// The pools whose addresses have names.
    pub(super) fn pools(&self) -> Pools {
        self.pools
    }

    /// The service of which `name` is a name.
    fn known(&self, name: &str) -> Option<&Known> {
        self.service(name).or_else(|| {
            let within = |zone| name.strip_suffix(zone)?.strip_suffix('.');
            self.service([VIRTUAL, APPENDED].into_iter().find_map(within)?)
        })
    }

    /// The target of `name` if that is a service, not a route of the front.
    fn service(&self, name: &str) -> Option<&Known> {
        match self.table.get(name) {
            Some(Target::Service(known)) => Some(known),
            _ => None,
        }
    }

    /// The protocol, the service and the name of its addresses for a name of the form `_label._protocol.rest`
    /// (RFC 2782). What stands before a service's name is free: `_http._tcp.www.hello`.
    fn labelled<'q>(&self, name: &'q str) -> Option<(&'q str, &Known, String)> {
        let (label, rest) = name.strip_prefix('_')?.split_once('.')?;
        let (protocol, rest) = rest.split_once('.')?;
        if !["_tcp", "_udp"].contains(&protocol) {
            return None;
        }
        if let Some(known) = self.known(rest) {
            return Some((protocol, known, rest.to_owned()));
        }
        let suffix = rest == VIRTUAL || self.domains.iter().any(|domain| domain == rest);
        let known = self.service(label).filter(|_| suffix)?;
        Some((protocol, known, format!("{label}.{VIRTUAL}")))
    }

    /// `localhost` is the asker itself and never leaves the machine (RFC 6761 section 6.3). Names under it
    /// are the same, unless the front serves them.
    fn localhost(&self, name: &str) -> Option<Found> {
        let inside = lies_under(name, LOCALHOST);
        if inside && name != LOCALHOST && self.domains.iter().any(|domain| domain == LOCALHOST) {
            return Some(Found::v4(self.pools.own()));
        }
        inside.then_some(Found::Addresses {
            v4: Some(Ipv4Addr::LOCALHOST),
            v6: Some(Ipv6Addr::LOCALHOST),
        })
    }

    /// Names that a public resolver would deny, though a source may still name them. Other names are
    /// looked up elsewhere even then: a host must be able to resolve Consul's own address.
    fn may_be_ours(&self, name: &str) -> bool {
        let single_label = !name.is_empty() && !name.contains('.');
        single_label
            || lies_under(name, VIRTUAL)
            || lies_under(name, APPENDED)
            || self.domains.iter().any(|domain| lies_under(name, domain))
    }
}

impl Found {
    fn v4(address: Ipv4Addr) -> Self {
        Self::Addresses {
            v4: Some(address),
            v6: None,
        }
    }
}

/// The ports at which `service` is reached over TCP and over UDP, if it is: those that it asks for, else those that its instances registered. Every one
/// of them leads to all instances, so a few are enough where each instance has a port of its own.
pub(super) fn ports(service: &Service) -> [Option<Vec<u16>>; 2] {
    let options = &service.options;
    let of = |udp| {
        if !options.ports.is_empty() {
            return options.ports.iter().copied().collect();
        }
        let backends = service.backends.values();
        let speaking = backends.filter(|it| options.is_udp(&it.tags) == udp);
        let all: BTreeSet<u16> = speaking.map(|it| it.address.port()).collect();
        all.into_iter().take(PORT_LIMIT).collect()
    };
    let (tcp, udp) = options.speaks();
    [tcp.then(|| of(false)), udp.then(|| of(true))]
}

/// Whether `name` is `zone` or a name within it.
fn lies_under(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The zone in which Consul puts virtual addresses.
const VIRTUAL: &str = "virtual.consul";
/// What a host without a domain has in its list to append. Nobody has it at the root, but it is not set aside (RFC 6761,
/// RFC 8375), and some networks serve names in it: what is no service there is theirs.
const APPENDED: &str = "localdomain";
const LOCALHOST: &str = "localhost";
/// Registered ports that are told; the answer fits into a datagram.
const PORT_LIMIT: usize = 16;

#[cfg(test)]
mod tests;
