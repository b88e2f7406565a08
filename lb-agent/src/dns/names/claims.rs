//! Who gets which name: the table of a snapshot, made claim by claim. Where two want the same, the order here decides.

use std::{
    collections::{BTreeSet, hash_map::Entry},
    sync::Arc,
};

use lb_front::carried;

use super::{Known, LOCALHOST, Names, Target, lies_under, ports};
use crate::{
    catalog::Problem,
    snapshot::{Service, ServiceName, Snapshot},
    vip::Pools,
};

impl Names {
    /// The names of `snapshot`, on the agent that has `pools` and whose front serves `domains`.
    ///
    /// Where two services claim a name, a service's exact name beats what is derived from another;
    /// then the alphabetically first service wins, and the whole of a service before a tagged part.
    pub fn new(snapshot: &Snapshot, pools: Pools, domains: &[String]) -> Self {
        let mut names = Self::unknown(pools, domains);
        (names.answered, names.stopgap) = (snapshot.answered, snapshot.stopgap);
        let known = |(name, service): (&ServiceName, &Arc<Service>)| {
            let [tcp, udp] = ports(service);
            let known = Known {
                name: name.clone(),
                vip: service.vip,
                tcp,
                udp,
            };
            (Arc::new(known), Arc::clone(service))
        };
        let (wholes, parts): (Vec<_>, Vec<_>) = snapshot
            .services
            .iter()
            .map(known)
            .partition(|(known, _)| known.name.tag.is_none());
        for (known, _) in &wholes {
            names.claim(&known.name.service, known);
        }
        for (known, service) in &wholes {
            names.claim_derived(&known.name.service.replace('_', "."), known, service);
        }
        for (known, service) in &parts {
            names.claim_derived(&known.name.to_string(), known, service);
        }
        for (known, service) in &wholes {
            if service.options.path().is_some() {
                names.claim_free_aliases(known, service);
            }
        }
        names.problems.sort();
        names
    }

    /// Claims what follows from a service's name, and its aliases.
    fn claim_derived(&mut self, dotted: &str, known: &Arc<Known>, service: &Service) {
        self.warn_of_carried(&known.name, dotted);
        self.claim(dotted, known);
        // Who has but some paths of a name leaves it to whoever has all of it.
        if service.options.path().is_none() {
            self.claim_aliases(known, &service.aliases);
        }
        self.host_under_domains(dotted);
    }

    /// Claims the aliases that nobody has.
    fn claim_free_aliases(&mut self, known: &Arc<Known>, service: &Service) {
        let aliases = service.aliases.iter();
        let free = aliases.filter(|alias| !self.table.contains_key(&alias.to_ascii_lowercase()));
        self.claim_aliases(known, &free.cloned().collect());
    }

    fn claim_aliases(&mut self, known: &Arc<Known>, aliases: &BTreeSet<String>) {
        for alias in aliases {
            let alias = alias.trim_end_matches('.').to_ascii_lowercase();
            if self.is_route(&alias) {
                self.table.entry(alias).or_insert(Target::Host);
            } else {
                self.claim(&alias, known);
            }
        }
    }

    /// Whether an alias names the host: it belongs to the front, which chooses the service by it.
    fn is_route(&self, alias: &str) -> bool {
        carried::carried(alias).is_some_and(|carried| carried.is_loopback())
            || self.domains.iter().any(|domain| lies_under(alias, domain))
    }

    fn claim(&mut self, text: &str, known: &Arc<Known>) {
        // The empty name is the root, which nobody may have.
        if text.is_empty() {
            return;
        }
        match self.table.entry(text.to_ascii_lowercase()) {
            Entry::Vacant(vacant) => {
                if let Some(vip) = known.vip {
                    let name = || vacant.key().clone();
                    self.pointers.entry(vip).or_insert_with(name);
                }
                vacant.insert(Target::Service(Arc::clone(known)));
            }
            Entry::Occupied(occupied) => match occupied.get() {
                Target::Service(winner) if winner.name != known.name => {
                    let (winner, name) = (&winner.name, &known.name);
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
