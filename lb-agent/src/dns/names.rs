//! What a name means to this agent: a pure table made from a snapshot, and its lookup.
//!
//! A name means, first match first:
//! 1. a service: its own name, the same with `_` as `.`, its aliases, the name of a tagged part
//!    (`www.hello`): the VIP;
//! 2. the same names under `virtual.consul`: the VIP;
//! 3. the host, if it lies under `localhost`, if it is the route of a service under one of the front's
//!    domains, or if it carries a loopback address: the agent's own address. To the container that asks,
//!    loopback is the container; whoever wrote such a name meant the front;
//! 4. the address it carries (see [`carried`](super::carried));
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
#[derive(Clone, Debug)]
pub struct Names {
    own: Ipv4Addr,
    domains: Vec<String>,
    complete: bool,
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
#[derive(Clone, Debug)]
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
            complete: false,
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
        names.complete = snapshot.complete;
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
            names.claim(&dotted, name, service.vip);
            names.claim_aliases(name, service);
            names.host_under_domains(&dotted);
        }
        names.problems.sort();
        names
    }

    /// Whether every source has answered, so that what is not in the table does not exist.
    pub fn complete(&self) -> bool {
        self.complete
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
        if !self.complete && self.may_be_ours(name) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::Options;

    const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const ONE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);

    fn service(vip: Option<Ipv4Addr>, aliases: &[&str]) -> Service {
        Service {
            vip,
            options: Options::default(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            backends: Default::default(),
        }
    }

    fn names(services: Vec<(ServiceName, Service)>) -> Names {
        let snapshot = Snapshot {
            complete: true,
            services: services.into_iter().collect(),
            ..Snapshot::default()
        };
        let domains = ["localhost", "127.0.0.1.xip.io", "Example.COM."].map(String::from);
        Names::new(&snapshot, OWN, &domains)
    }

    fn whole(name: &str, vip: Ipv4Addr) -> (ServiceName, Service) {
        (ServiceName::whole(name), service(Some(vip), &[]))
    }

    #[track_caller]
    fn check(names: &Names, expect: &[(&str, Found)]) {
        for (name, found) in expect {
            assert_eq!(names.lookup(name), *found, "{name}");
        }
    }

    #[test]
    fn a_service_answers_to_its_name_with_underscores_or_dots() {
        let names = names(vec![whole("www_Hello", ONE), whole("v1.2-app", TWO)]);
        check(
            &names,
            &[
                ("www_hello", Found::v4(ONE)),
                ("www.hello", Found::v4(ONE)),
                ("v1.2-app", Found::v4(TWO)),
                ("hello", Found::Elsewhere),
                ("www-hello", Found::Elsewhere),
                ("x.www.hello", Found::Elsewhere),
                ("", Found::Elsewhere),
            ],
        );
    }

    #[test]
    fn a_service_answers_under_virtual_consul() {
        let names = names(vec![whole("www_hello", ONE)]);
        check(
            &names,
            &[
                ("www_hello.virtual.consul", Found::v4(ONE)),
                ("www.hello.virtual.consul", Found::v4(ONE)),
                ("other.virtual.consul", Found::Consul),
                ("virtual.consul", Found::Consul),
                ("www_hello.service.consul", Found::Consul),
                ("notconsul", Found::Elsewhere),
                // A route of the front is no service of Consul.
                ("www.hello.example.com.virtual.consul", Found::Consul),
            ],
        );
    }

    #[test]
    fn a_tagged_part_has_its_own_address() {
        let names = names(vec![
            whole("www", ONE),
            (
                ServiceName::part("www", "world.dev"),
                service(Some(TWO), &[]),
            ),
        ]);
        check(
            &names,
            &[
                ("www", Found::v4(ONE)),
                ("www.world.dev", Found::v4(TWO)),
                ("www.world.dev.example.com", Found::v4(OWN)),
            ],
        );
    }

    #[test]
    fn an_alias_answers_the_vip_unless_it_names_the_host() {
        let aliases = [
            "Shop.Test.",
            "hello.example.com",
            "hello.home.127.0.0.1.nip.io",
        ];
        let names = names(vec![(
            ServiceName::whole("shop"),
            service(Some(ONE), &aliases),
        )]);
        check(
            &names,
            &[
                ("shop.test", Found::v4(ONE)),
                ("hello.example.com", Found::v4(OWN)),
                ("hello.home.127.0.0.1.nip.io", Found::v4(OWN)),
            ],
        );
    }

    #[test]
    fn a_route_under_a_domain_means_the_host() {
        let names = names(vec![whole("www_hello", ONE)]);
        check(
            &names,
            &[
                ("www.hello.localhost", Found::v4(OWN)),
                ("anything.localhost", Found::v4(OWN)),
                ("www.hello.127.0.0.1.xip.io", Found::v4(OWN)),
                ("www.hello.127-0-0-1.nip.io", Found::v4(OWN)),
                ("www.hello.--1.nip.io", Found::v4(OWN)),
                ("www.hello.example.com", Found::v4(OWN)),
                // Others may well serve the rest of a real domain.
                ("mail.example.com", Found::Elsewhere),
                ("example.com", Found::Elsewhere),
            ],
        );
    }

    #[test]
    fn localhost_is_the_asker_itself() {
        let both = Found::Addresses {
            v4: Some(Ipv4Addr::LOCALHOST),
            v6: Some(Ipv6Addr::LOCALHOST),
        };
        check(&names(vec![]), &[("localhost", both)]);
        let without_domains = Names::new(&Snapshot::default(), OWN, &[]);
        check(
            &without_domains,
            &[("localhost", both), ("x.localhost", both)],
        );
    }

    #[test]
    fn a_carried_address_is_the_answer() {
        let v4 = Found::v4(Ipv4Addr::new(10, 0, 0, 5));
        let v6 = Found::Addresses {
            v4: None,
            v6: Some("2a01:4f8::2".parse().unwrap()),
        };
        check(
            &names(vec![]),
            &[("app-10-0-0-5.sslip.io", v4), ("2a01-4f8--2.sslip.io", v6)],
        );
    }

    #[test]
    fn a_service_without_a_vip_is_known_all_the_same() {
        let names = names(vec![(ServiceName::whole("full"), service(None, &[]))]);
        check(
            &names,
            &[
                ("full", Found::WithoutVip),
                ("full.virtual.consul", Found::WithoutVip),
                ("full.localhost", Found::v4(OWN)),
            ],
        );
    }

    #[test]
    fn nothing_is_denied_before_every_source_has_answered() {
        let names = Names::unknown(OWN, &["localhost".to_owned(), "example.com".to_owned()]);
        check(
            &names,
            &[
                ("www_hello", Found::NotYet),
                ("www_hello.virtual.consul", Found::NotYet),
                ("www.hello.example.com", Found::NotYet),
                ("www.hello.localhost", Found::v4(OWN)),
                ("127.0.0.1.nip.io", Found::v4(OWN)),
                ("consul.service.consul", Found::Consul),
                ("www.example.org", Found::Elsewhere),
                ("", Found::Elsewhere),
            ],
        );
        assert!(!names.complete());
    }

    #[test]
    fn the_first_service_wins_a_collision_and_it_is_reported() {
        let names = names(vec![
            whole("www_hello", ONE),
            whole("www.hello", TWO),
            (ServiceName::part("www", "hello"), service(Some(OWN), &[])),
        ]);
        check(
            &names,
            &[("www.hello", Found::v4(TWO)), ("www_hello", Found::v4(ONE))],
        );
        let subjects: Vec<&str> = names
            .problems()
            .iter()
            .map(|p| p.subject.as_str())
            .collect();
        assert_eq!(subjects, ["name www.hello", "name www.hello"]);
    }

    #[test]
    fn an_alias_cannot_take_the_name_of_another_service() {
        let names = names(vec![
            (ServiceName::whole("a"), service(Some(ONE), &["web"])),
            whole("web", TWO),
        ]);
        check(&names, &[("web", Found::v4(TWO)), ("a", Found::v4(ONE))]);
        assert_eq!(names.problems().len(), 1);
    }

    #[test]
    fn a_service_named_like_an_address_is_reported() {
        assert_eq!(names(vec![whole("api-1-2-3-4", ONE)]).problems().len(), 1);
        assert_eq!(names(vec![whole("api_deadbeef", ONE)]).problems(), []);
        assert_eq!(names(vec![whole("www_hello", ONE)]).problems(), []);
    }

    proptest! {
        #[test]
        fn any_name_and_any_service_are_looked_up_without_a_panic(
            name in "\\PC{1,40}", asked in "\\PC{0,80}", alias in "\\PC{0,40}",
        ) {
            let names = names(vec![(
                ServiceName::whole(name.as_str()),
                service(Some(ONE), &[alias.as_str()]),
            )]);
            names.lookup(&asked);
            prop_assert_eq!(names.lookup(&name.to_ascii_lowercase()), Found::v4(ONE));
        }
    }
}
