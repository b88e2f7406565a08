mod kept;
mod published;
mod sequences;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP, SLOTS, Service, flag};
use proptest::prelude::*;

use super::*;
use crate::{
    catalog::InstanceKey,
    desired::{Endpoint, Share, Wanted},
    options::Options,
    snapshot::{self, ProbeState, ServiceName, Snapshot},
    vip::Pools,
};

pub(super) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

pub(super) fn share(n: u8, weight: u16) -> Share {
    Share {
        weight,
        counted_at: address(n),
    }
}

pub(super) fn key(n: u8) -> ServiceKey {
    let vip = Be32::from_host(Ipv4Addr::new(198, 18, 0, n).into());
    ServiceKey::new(vip, ANY_PORT, PROTO_TCP, HOST_VIEW)
}

pub(super) fn desired(services: &BTreeMap<u8, Vec<u8>>) -> Desired {
    let endpoint = |n: &u8, members: &Vec<u8>| Endpoint {
        name: ServiceName::whole(format!("s{n}")),
        balance: Balance::LeastConn,
        affinity_seconds: 0,
        flags: 0,
        proven: true,
        named: named(members),
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
            .map(|&n| (address(n), share(n, 1)))
            .collect(),
        complete: true,
        unlocated: false,
    }
}

pub(super) fn named(members: &[u8]) -> Arc<[SocketAddr]> {
    let mut named: Vec<_> = members.iter().copied().map(address).collect();
    named.sort();
    named.into()
}

/// What a lookup of each endpoint answers, through the indexes as a program would go.
fn answers(installed: &Installed) -> BTreeMap<ServiceKey, Vec<SocketAddr>> {
    let by_index: BTreeMap<u32, SocketAddr> = installed
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

fn wanted(desired: &Desired) -> BTreeMap<ServiceKey, Vec<SocketAddr>> {
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
pub(super) fn settle(
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
fn what_does_not_fit_is_reported_and_the_rest_goes_on() {
    let desired = desired(&[(1, vec![1]), (2, vec![2])].into());
    let (steps, problems) = plan(&Installed::empty(2, 2), &desired, |_| 0, Instant::now());
    assert_eq!(steps.len(), 2, "one backend and one service: {steps:?}");
    let subjects: Vec<_> = problems
        .iter()
        .map(|problem| problem.subject.as_str())
        .collect();
    // Backends from the first one, services from the last.
    assert_eq!(subjects, ["backend 10.0.0.2:80", "service s1"]);
}

#[test]
fn what_did_not_fit_is_tried_again_and_takes_the_room_that_others_leave() {
    let start = Instant::now();
    let mut installed = Installed::empty(2, 2);
    settle(&mut installed, &desired(&[(1, vec![1])].into()), 0, start);
    let both = desired(&[(1, vec![1]), (2, vec![2])].into());
    let todo = Todo {
        backends: [address(2)].into(),
        services: [key(2)].into(),
    };
    let mut round = Round::new(todo.clone());
    assert_eq!(round.next(&mut installed, &both, |_| 0, start), None);
    let (left, problems) = round.end(None);
    assert_eq!((left, problems.len()), (todo, 2));

    let mut other = desired(&[(2, vec![2])].into());
    let mut round = Round::new(Todo::all(&installed, &other));
    let step = round.next(&mut installed, &other, |_| 0, start);
    assert_eq!(step, Some(Step::RemoveService { key: key(1) }));
    installed.apply(&step.unwrap(), start);
    let (mut left, _) = round.end(None);
    let later = start + Duration::from_secs(10);
    for step in free(&installed, &other, |_| 0, later) {
        installed.apply(&step, later);
    }
    let latest = later + Duration::from_secs(10);
    other.complete = true;
    let mut round = Round::new(std::mem::take(&mut left));
    while let Some(step) = round.next(&mut installed, &other, |_| 0, latest) {
        installed.apply(&step, latest);
    }
    assert_eq!(round.end(None), (Todo::default(), vec![]));
    assert_eq!(answers(&installed), wanted(&other));
}

#[test]
fn an_address_comes_after_the_one_that_its_flows_are_counted_at_and_is_not_forgotten() {
    let start = Instant::now();
    let mut both = desired(&[(1, vec![1])].into());
    // The published address, say, which is the lower one.
    let share = |weight| Share {
        weight,
        counted_at: address(2),
    };
    both.backends = [(address(1), share(3)), (address(2), share(5))].into();
    let mut installed = Installed::empty(8, 8);
    settle(&mut installed, &both, 0, start);
    assert_eq!(answers(&installed), wanted(&both));
    let (published, own) = (
        installed.backends[&address(1)],
        installed.backends[&address(2)],
    );
    assert_eq!((published.weight, own.weight), (3, 5));
    assert_eq!((published.counted_at, own.counted_at), (own.id, own.id));
}
