//! What a name means to this agent: a pure table made from a snapshot, and its lookup.
//!
//! A name means, first match first:
//! 1. a service: its own name, the same with `_` as `.`, its aliases, the name of a tagged part
//!    (`www.hello`): the VIP;
//! 2. the same names under `virtual.consul`: the VIP;
//! 3. the host, if it lies under `localhost`, if it is the route of a service under one of the front's
//!    domains, or if it carries a loopback address: the agent's own address. To the container that asks,
//!    loopback is the container; whoever wrote such a name meant the front;
//! 4. the address it carries (see [`carried`]);
//! 5. something that others know.
//!
//! This never asks the network and holds no state but the table.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{Ipv4Addr, Ipv6Addr},
};

use super::carried;
use crate::{
    catalog::Problem,
    snapshot::{Service, ServiceName, Snapshot},
};

/// The names of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    own: Ipv4Addr,
    domains: Vec<String>,
    answered: bool,
    table: HashMap<String, Target>,
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

/// What a name in the table stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Service {
        name: ServiceName,
        vip: Option<Ipv4Addr>,
    },
    Host,
}

impl Names {
    /// The names before the first snapshot: nothing is known, and nothing is denied.
    pub fn unknown(own: Ipv4Addr, domains: &[String]) -> Self {
        let domains = domains
            .iter()
            .map(|domain| domain.trim_matches('.').to_ascii_lowercase())
            .filter(|domain| !domain.is_empty())
            .collect();
        Self {
            own,
            domains,
            answered: false,
            table: HashMap::new(),
            problems: Vec::new(),
        }
    }

    /// The names of `snapshot`, on the agent whose address is `own` and whose front serves `domains`.
    ///
    /// Where two services claim a name, a service's exact name beats what is derived from another;
    /// then the alphabetically first service wins, and the whole of a service before a tagged part.
    pub fn new(snapshot: &Snapshot, own: Ipv4Addr, domains: &[String]) -> Self {
        let mut names = Self::unknown(own, domains);
        names.answered = snapshot.answered;
        let wholes = || {
            snapshot
                .services
                .iter()
                .filter(|(name, _)| name.tag.is_none())
        };
        let parts = || {
            snapshot
                .services
                .iter()
                .filter(|(name, _)| name.tag.is_some())
        };
        for (name, service) in wholes() {
            names.claim(&name.service, name, service.vip);
        }
        for (name, service) in wholes() {
            let dotted = name.service.replace('_', ".");
            names.warn_of_carried(name, &dotted);
            names.claim(&dotted, name, service.vip);
            names.claim_aliases(name, service);
            names.host_under_domains(&dotted);
        }
        for (name, service) in parts() {
            let dotted = name.to_string();
            names.warn_of_carried(name, &dotted);
            names.claim(&dotted, name, service.vip);
            names.claim_aliases(name, service);
            names.host_under_domains(&dotted);
        }
        names.problems.sort();
        names
    }

    /// Whether every source has answered, so that what is not in the table does not exist.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Names that are claimed twice, or mean something else than their service expects.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The meaning of `name`, which is in lower case and has no trailing dot.
    pub fn lookup(&self, name: &str) -> Found {
        let service = name.strip_suffix(VIRTUAL).and_then(|n| n.strip_suffix('.'));
        let target = match service {
            Some(service) => self.service(service),
            None => self.table.get(name),
        };
        match target {
            Some(Target::Service { vip: Some(vip), .. }) => return Found::v4(*vip),
            Some(Target::Service { vip: None, .. }) => return Found::WithoutVip,
            Some(Target::Host) => return Found::v4(self.own),
            None => {}
        }
        if let Some(found) = self.localhost(name) {
            return found;
        }
        if let Some(carried) = carried::carried(name) {
            return if carried.is_loopback() {
                Found::v4(self.own)
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

    /// The target of `name` if that is a service, not a route of the front.
    fn service(&self, name: &str) -> Option<&Target> {
        self.table
            .get(name)
            .filter(|target| matches!(target, Target::Service { .. }))
    }

    /// `localhost` is the asker itself and never leaves the machine (RFC 6761 section 6.3). Names under it
    /// are the same, unless the front serves them.
    fn localhost(&self, name: &str) -> Option<Found> {
        let inside = lies_under(name, LOCALHOST);
        if inside && name != LOCALHOST && self.domains.iter().any(|domain| domain == LOCALHOST) {
            return Some(Found::v4(self.own));
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
            || self.domains.iter().any(|domain| lies_under(name, domain))
    }

    fn claim_aliases(&mut self, name: &ServiceName, service: &Service) {
        for alias in &service.aliases {
            let alias = alias.trim_end_matches('.').to_ascii_lowercase();
            if self.is_route(&alias) {
                self.table.entry(alias).or_insert(Target::Host);
            } else {
                self.claim(&alias, name, service.vip);
            }
        }
    }

    /// Whether an alias names the host: it belongs to the front, which chooses the service by it.
    fn is_route(&self, alias: &str) -> bool {
        carried::carried(alias).is_some_and(|carried| carried.is_loopback())
            || self.domains.iter().any(|domain| lies_under(alias, domain))
    }

    fn claim(&mut self, text: &str, name: &ServiceName, vip: Option<Ipv4Addr>) {
        // The empty name is the root, which nobody may have.
        if text.is_empty() {
            return;
        }
        match self.table.entry(text.to_ascii_lowercase()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Target::Service {
                    name: name.clone(),
                    vip,
                });
            }
            Entry::Occupied(occupied) => match occupied.get() {
                Target::Service { name: winner, .. } if winner != name => {
                    self.problems.push(Problem::new(
                        format!("name {}", occupied.key()),
                        format!(
                            "claimed by service {winner} and by service {name}; {winner} answers. \
                             Rename one of them or remove the alias."
                        ),
                    ));
                }
                _ => {}
            },
        }
    }

    fn host_under_domains(&mut self, dotted: &str) {
        let routes: Vec<String> = self
            .domains
            .iter()
            // These two are told by their form alone, so they need no entries.
            .filter(|domain| *domain != LOCALHOST && carried::carried(domain).is_none())
            .map(|domain| format!("{}.{domain}", dotted.to_ascii_lowercase()))
            .collect();
        for route in routes {
            self.table.entry(route).or_insert(Target::Host);
        }
    }

    fn warn_of_carried(&mut self, name: &ServiceName, dotted: &str) {
        let Some(address) = carried::ipv4(dotted) else {
            return;
        };
        // Eight hex digits, such as a commit id, do no harm below a dotted or dashed address.
        if dotted
            .split(['.', '-'])
            .filter(|word| word.parse::<u8>().is_ok())
            .count()
            < 4
        {
            return;
        }
        self.problems.push(Problem::new(
            format!("service {name}"),
            format!(
                "its name contains the address {address}, so {dotted}.127.0.0.1.nip.io and the like lead \
                 there and not to this host. Rename it, or use its name without such a suffix."
            ),
        ));
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

/// Whether `name` is `zone` or a name within it.
fn lies_under(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The zone in which Consul puts virtual addresses.
const VIRTUAL: &str = "virtual.consul";
const LOCALHOST: &str = "localhost";

#[cfg(test)]
mod tests;
