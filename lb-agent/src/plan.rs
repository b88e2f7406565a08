//! The ordered steps that turn what the maps hold into what they should hold. Pure.
//!
//! A backend is written before a table names it, a table before its service names it, and a backend is
//! freed after no table and no flow names it: after every single step, each lookup gives a right answer.

use std::{net::SocketAddrV4, time::Instant};

use lb_common::{Backend, BackendId, Be16, Be32, Half, SLOTS, Service, ServiceKey};

use crate::{
    catalog::Problem,
    desired::{Desired, Endpoint},
    installed::{Installed, InstalledBackend, InstalledService},
};

/// One write to the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A backend: new, or with another weight.
    PutBackend {
        /// Where flows go.
        address: SocketAddrV4,
        /// Its id.
        id: BackendId,
        /// Its weight.
        weight: u16,
        /// Whether the index had another meaning before: its suspicion is cleared.
        fresh: bool,
    },
    /// A new set of slots in the idle half, then the service that names it.
    PutService {
        /// The endpoint.
        key: ServiceKey,
        /// What the maps then hold for it.
        service: InstalledService,
        /// Whether the table had another meaning before: its figures are cleared.
        fresh: bool,
    },
    /// An endpoint that is gone.
    RemoveService {
        /// The endpoint.
        key: ServiceKey,
    },
    /// A backend that nothing names any more.
    FreeBackend {
        /// Its address.
        address: SocketAddrV4,
    },
}

/// The steps that bring `installed` to `desired`; `active` answers the open flows of a backend index. What
/// does not fit is left out, reported, and tried again with the next plan.
pub fn plan(
    installed: &Installed,
    desired: &Desired,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> (Vec<Step>, Vec<Problem>) {
    let mut next = installed.clone();
    let mut problems = Vec::new();
    let mut steps = put_backends(&mut next, desired, &active, now, &mut problems);
    steps.extend(put_services(&mut next, desired, now, &mut problems));
    if desired.complete {
        steps.extend(remove(&mut next, desired, active, now));
    }
    (steps, problems)
}

fn put_backends(
    next: &mut Installed,
    desired: &Desired,
    active: &impl Fn(u32) -> u64,
    now: Instant,
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (&address, &weight) in &desired.backends {
        let step = match next.backends.get(&address) {
            Some(backend) if backend.weight == weight => continue,
            Some(backend) => Step::PutBackend {
                address,
                id: backend.id,
                weight,
                fresh: false,
            },
            None => {
                // An earlier version of the maps may have left flows behind that still count there.
                let Some(index) = next.free_backends.take_if(now, |index| active(index) == 0)
                else {
                    problems.push(Problem::new(
                        format!("backend {address}"),
                        "the map of backends is full; raise limits.backends, which takes effect once the pins are removed",
                    ));
                    continue;
                };
                next.free_backends.untake(index);
                let generation = next
                    .generations
                    .get(&index)
                    .map_or(1, |last| last.wrapping_add(1).max(1));
                Step::PutBackend {
                    address,
                    id: BackendId { index, generation },
                    weight,
                    fresh: true,
                }
            }
        };
        next.apply(&step, now);
        steps.push(step);
    }
    steps
}

fn put_services(
    next: &mut Installed,
    desired: &Desired,
    now: Instant,
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (&key, endpoint) in &desired.services {
        let slots: Vec<u32> = endpoint
            .slots
            .iter()
            .filter_map(|address| next.backends.get(address))
            .map(|b| b.id.index)
            .collect();
        let Endpoint {
            name,
            balance,
            proven,
            ..
        } = endpoint;
        let step = match next.services.get(&key) {
            Some(old) if old.slots == slots && old.balance == *balance => continue,
            // Nobody has said yet that its backends are gone or bad: unknown is not empty.
            Some(old) if !desired.complete && shrinks(old, &slots, *proven) => continue,
            Some(old) => {
                let service = InstalledService {
                    table: old.table,
                    half: old.half ^ 1,
                    generation: old.generation.wrapping_add(1).max(1),
                    balance: *balance,
                    slots,
                };
                Step::PutService {
                    key,
                    service,
                    fresh: false,
                }
            }
            None => {
                let Some(table) = next.free_tables.take(now) else {
                    problems.push(Problem::new(
                        format!("service {name}"),
                        "the map of services is full; raise limits.services, which takes effect once the pins are removed",
                    ));
                    continue;
                };
                next.free_tables.untake(table);
                let service = InstalledService {
                    table,
                    half: 0,
                    generation: 1,
                    balance: *balance,
                    slots,
                };
                Step::PutService {
                    key,
                    service,
                    fresh: true,
                }
            }
        };
        next.apply(&step, now);
        steps.push(step);
    }
    steps
}

/// Whether `slots` would take backends away that were there, without anybody's word against them: none is
/// left, or not all have been probed yet.
fn shrinks(old: &InstalledService, slots: &[u32], proven: bool) -> bool {
    let emptied = slots.is_empty() && !old.slots.is_empty();
    emptied || (!proven && old.slots.iter().any(|index| !slots.contains(index)))
}

fn remove(
    next: &mut Installed,
    desired: &Desired,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let gone: Vec<_> = next
        .services
        .keys()
        .filter(|key| !desired.services.contains_key(key))
        .copied()
        .collect();
    for key in gone {
        let step = Step::RemoveService { key };
        next.apply(&step, now);
        steps.push(step);
    }
    let gone = next.freeable(
        |address| desired.backends.contains_key(address),
        active,
        now,
    );
    for address in gone {
        let step = Step::FreeBackend { address };
        next.apply(&step, now);
        steps.push(step);
    }
    steps
}

impl Installed {
    /// Notes a step that the kernel has taken.
    pub fn apply(&mut self, step: &Step, now: Instant) {
        match step {
            Step::PutBackend {
                address,
                id,
                weight,
                ..
            } => {
                self.place(
                    *address,
                    InstalledBackend {
                        id: *id,
                        weight: *weight,
                    },
                    now,
                );
            }
            Step::PutService { key, service, .. } => {
                self.free_tables.claim(service.table);
                // The new one first: what both name never counts as unreferenced.
                self.refer(&service.slots);
                if let Some(old) = self.services.insert(*key, service.clone()) {
                    self.unrefer(&old.slots, now);
                }
            }
            Step::RemoveService { key } => {
                if let Some(service) = self.services.remove(key) {
                    self.unrefer(&service.slots, now);
                    self.free_tables.give_back(service.table, now);
                }
            }
            Step::FreeBackend { address } => self.displace(address, now),
        }
    }
}

impl InstalledService {
    /// The value of `SERVICES` that publishes it.
    pub fn value(&self) -> Service {
        Service {
            table: self.table,
            half: self.half,
            count: u32::try_from(self.slots.len()).unwrap_or(SLOTS),
            generation: self.generation,
            balance: self.balance as u32,
            spare: 0,
        }
    }

    /// The half of its table that the value names, for the endpoint of `vip`.
    pub fn half(&self, vip: Be32) -> Half {
        let mut half = Half {
            generation: self.generation,
            vip,
            slots: [0; SLOTS as usize],
        };
        for (slot, &index) in half.slots.iter_mut().zip(self.slots.iter().cycle()) {
            *slot = index;
        }
        half
    }
}

/// The value of `BACKENDS` for a backend.
pub fn backend_value(address: SocketAddrV4, id: BackendId, weight: u16) -> Backend {
    Backend {
        address: Be32::from_host((*address.ip()).into()),
        port: Be16::from_host(address.port()),
        weight: weight.max(1),
        generation: id.generation,
        spare: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

    use lb_common::{ANY_PORT, Balance, HOST_VIEW, PROTO_TCP};
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::ServiceName;

    fn address(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 80)
    }

    fn key(n: u8) -> ServiceKey {
        let vip = Be32::from_host(Ipv4Addr::new(198, 18, 0, n).into());
        ServiceKey::new(vip, ANY_PORT, PROTO_TCP, HOST_VIEW)
    }

    fn desired(services: &BTreeMap<u8, Vec<u8>>) -> Desired {
        let endpoint = |n: &u8, members: &Vec<u8>| Endpoint {
            name: ServiceName::whole(format!("s{n}")),
            balance: Balance::LeastConn,
            proven: true,
            slots: members.iter().copied().map(address).collect(),
        };
        Desired {
            services: services
                .iter()
                .map(|(n, members)| (key(*n), endpoint(n, members)))
                .collect(),
            backends: services
                .values()
                .flatten()
                .map(|&n| (address(n), 1))
                .collect(),
            complete: true,
        }
    }

    /// What a lookup of each endpoint answers, through the indexes as a program would go.
    fn answers(installed: &Installed) -> BTreeMap<ServiceKey, Vec<SocketAddrV4>> {
        let by_index: BTreeMap<u32, SocketAddrV4> = installed
            .backends
            .iter()
            .map(|(&address, backend)| (backend.id.index, address))
            .collect();
        installed
            .services
            .iter()
            .map(|(&key, service)| {
                (
                    key,
                    service
                        .slots
                        .iter()
                        .map(|index| *by_index.get(index).expect("a slot names a backend"))
                        .collect(),
                )
            })
            .collect()
    }

    fn wanted(desired: &Desired) -> BTreeMap<ServiceKey, Vec<SocketAddrV4>> {
        desired
            .services
            .iter()
            .map(|(&key, endpoint)| (key, endpoint.slots.clone()))
            .collect()
    }

    #[test]
    fn equals_need_no_step() {
        let desired = desired(&[(1, vec![1, 2])].into());
        let mut installed = Installed::empty(8, 8);
        let now = Instant::now();
        for step in plan(&installed, &desired, |_| 0, now).0 {
            installed.apply(&step, now);
        }
        assert_eq!(plan(&installed, &desired, |_| 0, now), (vec![], vec![]));
    }

    #[test]
    fn nothing_is_removed_before_every_source_has_answered() {
        let now = Instant::now();
        let mut installed = Installed::empty(8, 8);
        for step in plan(&installed, &desired(&[(1, vec![1])].into()), |_| 0, now).0 {
            installed.apply(&step, now);
        }
        let unknown = Desired {
            complete: false,
            ..Desired::default()
        };
        assert_eq!(plan(&installed, &unknown, |_| 0, now).0, vec![]);
    }

    #[test]
    fn a_service_keeps_its_backends_until_somebody_says_that_they_are_gone() {
        let now = Instant::now();
        let mut installed = Installed::empty(8, 8);
        for step in plan(&installed, &desired(&[(1, vec![1])].into()), |_| 0, now).0 {
            installed.apply(&step, now);
        }
        let mut nobody = desired(&[(1, vec![])].into());
        nobody.complete = false;
        assert_eq!(plan(&installed, &nobody, |_| 0, now).0, vec![]);
        nobody.complete = true;
        let (steps, _) = plan(&installed, &nobody, |_| 0, now);
        assert!(
            matches!(&steps[0], Step::PutService { service, .. } if service.slots.is_empty()),
            "{steps:?}"
        );
    }

    /// Carries out the plan for `desired`, with so many open flows on every backend.
    fn settle(
        installed: &mut Installed,
        desired: &Desired,
        active: u64,
        now: Instant,
    ) -> Vec<Step> {
        let (steps, problems) = plan(installed, desired, |_| active, now);
        assert_eq!(problems, vec![]);
        for step in &steps {
            installed.apply(step, now);
        }
        steps
    }

    #[test]
    fn a_backend_is_freed_when_it_was_unnamed_for_a_while_and_its_flows_have_ended() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut installed = Installed::empty(8, 8);
        let nothing = desired(&BTreeMap::new());
        settle(&mut installed, &desired(&[(1, vec![1])].into()), 0, start);
        let steps = settle(&mut installed, &nothing, 0, start);
        assert_eq!(steps, vec![Step::RemoveService { key: key(1) }]);
        // A connect that read the table a moment ago may be about to be counted.
        assert_eq!(settle(&mut installed, &nothing, 0, start), vec![]);
        assert_eq!(settle(&mut installed, &nothing, 1, later), vec![]);
        let free = Step::FreeBackend {
            address: address(1),
        };
        assert_eq!(settle(&mut installed, &nothing, 0, later), vec![free]);
    }

    #[test]
    fn a_backend_that_is_named_again_is_not_freed() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut installed = Installed::empty(8, 8);
        let service = desired(&[(1, vec![1])].into());
        settle(&mut installed, &service, 0, start);
        settle(&mut installed, &desired(&BTreeMap::new()), 0, start);
        settle(&mut installed, &service, 0, start);
        assert_eq!(settle(&mut installed, &service, 0, later), vec![]);
        assert_eq!(installed.freeable(|_| false, |_| 0, later), vec![]);
    }

    #[test]
    fn an_index_comes_back_with_another_generation_and_not_while_flows_count_there() {
        let mut now = Instant::now();
        let mut installed = Installed::empty(2, 2);
        let mut ids = Vec::new();
        for n in 1..=3 {
            for step in settle(&mut installed, &desired(&[(1, vec![n])].into()), 0, now) {
                if let Step::PutBackend { id, .. } = step {
                    ids.push((id.index, id.generation));
                }
            }
            settle(&mut installed, &desired(&BTreeMap::new()), 0, now);
            now += Duration::from_secs(10);
            settle(&mut installed, &desired(&BTreeMap::new()), 0, now);
            now += Duration::from_secs(10);
        }
        assert_eq!(ids, [(1, 1), (1, 2), (1, 3)]);
        let (_, problems) = plan(&installed, &desired(&[(1, vec![4])].into()), |_| 1, now);
        assert_eq!(problems[0].subject, "backend 10.0.0.4:80");
    }

    #[test]
    fn an_unproven_backend_takes_nobody_out_of_the_slots() {
        let now = Instant::now();
        let mut installed = Installed::empty(8, 8);
        settle(&mut installed, &desired(&[(1, vec![1, 2])].into()), 0, now);
        let mut first = desired(&[(1, vec![1])].into());
        first.complete = false;
        for endpoint in first.services.values_mut() {
            endpoint.proven = false;
        }
        assert_eq!(settle(&mut installed, &first, 0, now), vec![]);
        for endpoint in first.services.values_mut() {
            endpoint.proven = true;
        }
        assert_eq!(settle(&mut installed, &first, 0, now).len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_reported_and_the_rest_goes_on() {
        let desired = desired(&[(1, vec![1]), (2, vec![2])].into());
        let (steps, problems) = plan(&Installed::empty(2, 2), &desired, |_| 0, Instant::now());
        assert_eq!(steps.len(), 2, "one backend and one service: {steps:?}");
        let subjects: Vec<_> = problems
            .iter()
            .map(|problem| problem.subject.as_str())
            .collect();
        assert_eq!(subjects, ["backend 10.0.0.2:80", "service s2"]);
    }

    fn catalogs() -> impl Strategy<Value = Vec<BTreeMap<u8, Vec<u8>>>> {
        let members =
            prop::collection::btree_set(1..12_u8, 0..5).prop_map(|set| set.into_iter().collect());
        prop::collection::vec(prop::collection::btree_map(1..6_u8, members, 0..6), 1..12)
    }

    proptest! {
        #[test]
        fn applying_a_plan_gives_the_desired_and_no_prefix_of_it_leaves_a_gap(catalogs in catalogs()) {
            let mut installed = Installed::empty(64, 64);
            let mut now = Instant::now();
            let mut before = BTreeMap::new();
            for catalog in catalogs {
                let desired = desired(&catalog);
                let after = wanted(&desired);
                let (steps, problems) = plan(&installed, &desired, |_| 0, now);
                prop_assert_eq!(problems, vec![]);
                for step in steps {
                    installed.apply(&step, now);
                    // `answers` fails when a slot names no backend.
                    for (key, members) in answers(&installed) {
                        prop_assert!(before.get(&key) == Some(&members) || after.get(&key) == Some(&members));
                    }
                }
                prop_assert_eq!(answers(&installed), after.clone());
                before = after;
                now += Duration::from_secs(10);
            }
        }
    }
}
