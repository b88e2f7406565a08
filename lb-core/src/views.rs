//! Where clients stand, as far as services must tell them apart.
//!
//! Pure. A view is a set of clients that reach the same addresses and are let in by the same services. Its number is a
//! hash of what makes it one, so that it stays the same when the agent starts anew.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lb_common::{Client, FIRST_OWN_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW};

use crate::{clients::Clients, snapshot::Snapshot};

/// What the clients of one view have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// The Docker networks that they are on.
    pub networks: BTreeSet<String>,
    /// Whether they reach more than those networks.
    pub outside: bool,
    /// Of the ranges that services ask about, those that their addresses lie in.
    pub ranges: BTreeSet<IpNet>,
}

/// All views, and who stands in which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    /// By number.
    pub views: BTreeMap<u32, View>,
    /// By the cookie of the client's network namespace.
    pub clients: BTreeMap<u64, Client>,
}

impl Views {
    /// The views of these clients that the services of `snapshot` make.
    pub fn of(clients: &Clients, snapshot: &Snapshot) -> Self {
        Self::new(clients, &ranges(snapshot))
    }

    /// The views of these clients, where services ask about these ranges of addresses.
    pub fn new(clients: &Clients, ranges: &BTreeSet<IpNet>) -> Self {
        let mut numbers: BTreeMap<View, Vec<u64>> = BTreeMap::new();
        for (&cookie, standing) in &clients.by_cookie {
            let matches = |range: &&IpNet| {
                standing
                    .addresses
                    .iter()
                    .any(|address| range.contains(&address.to_canonical()))
            };
            let view = View {
                networks: standing.networks.clone(),
                outside: standing.outside,
                ranges: ranges.iter().filter(matches).copied().collect(),
            };
            numbers.entry(view).or_default().push(cookie);
        }
        let mut views = Self::default();
        for (view, cookies) in numbers {
            let mut number = hash(&view).max(FIRST_OWN_VIEW);
            while views.views.contains_key(&number) {
                number = number.wrapping_add(1).max(FIRST_OWN_VIEW);
            }
            let client = Client {
                view: number,
                otherwise: if view.outside {
                    OUTSIDE_VIEW
                } else {
                    INTERNAL_VIEW
                },
            };
            views
                .clients
                .extend(cookies.into_iter().map(|cookie| (cookie, client)));
            views.views.insert(number, view);
        }
        views
    }
}

/// The ranges of addresses that services ask about.
pub fn ranges(snapshot: &Snapshot) -> BTreeSet<IpNet> {
    let services = snapshot.services.values();
    services.flat_map(|it| it.options.access.nets()).collect()
}

/// FNV-1a of everything that makes the view.
fn hash(view: &View) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    };
    for network in &view.networks {
        add(network.as_bytes());
        add(&[0]);
    }
    add(&[u8::from(view.outside)]);
    for range in &view.ranges {
        add(range.to_string().as_bytes());
        add(&[0]);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clients::Standing,
        options::{Access, Options, Rule},
        snapshot::{Service, ServiceName},
    };

    fn standing(networks: &[&str], address: &str) -> Standing {
        Standing {
            container: String::new(),
            name: String::new(),
            networks: networks.iter().map(|&name| name.to_owned()).collect(),
            addresses: BTreeSet::from([address.parse().unwrap()]),
            outside: true,
        }
    }

    fn views(clients: &[&Standing], ranges: &[&str]) -> Views {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let by_cookie = (1..).zip(clients.iter().map(|&it| it.clone())).collect();
        Views::new(&Clients { by_cookie }, &ranges)
    }

    #[test]
    fn clients_that_reach_the_same_share_a_view() {
        let (a, b) = (
            standing(&["web"], "10.0.0.1"),
            standing(&["web"], "10.0.0.2"),
        );
        let c = standing(&["db", "web"], "10.0.0.3");
        let found = views(&[&a, &b, &c], &[]);
        assert_eq!(found.views.len(), 2);
        assert_eq!(found.clients[&1], found.clients[&2]);
        assert_ne!(found.clients[&1].view, found.clients[&3].view);
    }

    #[test]
    fn a_range_that_a_service_asks_about_divides_them() {
        let (a, b) = (
            standing(&["web"], "10.0.0.1"),
            standing(&["web"], "10.0.0.2"),
        );
        let found = views(&[&a, &b], &["10.0.0.2/32"]);
        assert_ne!(found.clients[&1].view, found.clients[&2].view);
    }

    #[test]
    fn who_reaches_its_networks_alone_falls_back_to_another_view() {
        let inside = Standing {
            outside: false,
            ..standing(&["web"], "10.0.0.1")
        };
        let found = views(&[&inside, &standing(&["web"], "10.0.0.1")], &[]);
        assert_eq!(found.clients[&1].otherwise, INTERNAL_VIEW);
        assert_eq!(found.clients[&2].otherwise, OUTSIDE_VIEW);
    }

    #[test]
    fn a_view_keeps_its_number_whoever_else_is_there() {
        let (a, b) = (
            standing(&["web"], "10.0.0.1"),
            standing(&["db"], "10.0.0.2"),
        );
        let alone = views(&[&a], &[]).clients[&1].view;
        assert_eq!(views(&[&a, &b], &[]).clients[&1].view, alone);
        assert!(alone >= FIRST_OWN_VIEW);
    }

    #[test]
    fn numbers_never_change_from_version_to_version() {
        let on_web = views(&[&standing(&["web"], "10.0.0.1")], &[]);
        assert_eq!(on_web.clients[&1].view, 0x424d_6fe6);
        let inside = Standing {
            outside: false,
            ..standing(&["db", "web"], "10.0.0.1")
        };
        let asked_about = views(&[&inside], &["10.0.0.0/8", "192.0.2.0/24"]);
        assert_eq!(asked_about.clients[&1].view, 0xe3b0_f97f);
    }

    #[test]
    fn the_ranges_are_those_that_the_rules_of_services_name() {
        let rule = |text: &str| Rule::Net(text.parse().unwrap());
        let service = |access| Service {
            vip: None,
            options: Options {
                access,
                ..Options::default()
            },
            aliases: BTreeSet::new(),
            backends: BTreeMap::new(),
        };
        let open = service(Access::default());
        let closed = service(Access {
            allow: vec![rule("10.0.0.1/32"), Rule::Host],
            deny: vec![rule("192.0.2.0/24"), Rule::Network("web".to_owned())],
        });
        let mut snapshot = Snapshot::default();
        for (name, service) in [("open", open), ("closed", closed)] {
            let name = ServiceName::whole(name);
            snapshot.services.insert(name, service.into());
        }
        let expected = ["10.0.0.1/32", "192.0.2.0/24"].map(|it| it.parse().unwrap());
        assert_eq!(ranges(&snapshot), expected.into());
        let one = standing(&["web"], "10.0.0.1");
        let by_cookie = (1..).zip([one]).collect();
        let found = Views::of(&Clients { by_cookie }, &snapshot);
        let view = &found.views[&found.clients[&1].view];
        assert_eq!(view.ranges, expected[..1].iter().copied().collect());
    }
}
