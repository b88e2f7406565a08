mod published;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP};
use proptest::prelude::*;

use super::*;
use crate::{
    catalog::InstanceKey,
    desired::Wanted,
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
fn a_source_that_has_not_answered_may_name_what_nobody_else_does() {
    let now = Instant::now();
    let mut installed = Installed::empty(8, 8);
    settle(
        &mut installed,
        &desired(&[(1, vec![1, 2, 3])].into()),
        0,
        now,
    );
    // One is bad, one is named by nobody, one is new.
    let mut next = desired(&[(1, vec![1, 4])].into());
    next.complete = false;
    for endpoint in next.services.values_mut() {
        endpoint.named = named(&[1, 2, 4]);
    }
    settle(&mut installed, &next, 0, now);
    let slots = |installed: &Installed| answers(installed)[&key(1)].clone();
    assert_eq!(slots(&installed), [1, 4, 3].map(address));
    // All that is named is bad, and what is not named goes on.
    for endpoint in next.services.values_mut() {
        endpoint.slots = Vec::new();
    }
    settle(&mut installed, &next, 0, now);
    assert_eq!(slots(&installed), [3].map(address));
    for endpoint in next.services.values_mut() {
        endpoint.slots = [1, 4].map(address).to_vec();
    }
    next.complete = true;
    settle(&mut installed, &next, 0, now);
    assert_eq!(slots(&installed), [1, 4].map(address));
}

/// The desired of one service whose table of hashes holds `members`, while it is known to have those that are `known`.
fn hashed(members: &[u8], known: &[u8], complete: bool) -> Desired {
    let weighted: Vec<_> = members.iter().map(|&n| (address(n), 1)).collect();
    let mut next = desired(&[(1, members.to_vec())].into());
    for endpoint in next.services.values_mut() {
        endpoint.balance = Balance::Maglev;
        endpoint.slots = crate::desired::by_hash(&weighted);
        endpoint.named = named(known);
    }
    next.complete = complete;
    next
}

#[test]
fn a_bad_backend_leaves_a_table_of_hashes_beside_an_unknown_one_and_moves_no_other_client() {
    let now = Instant::now();
    let mut installed = Installed::empty(8, 8);
    settle(
        &mut installed,
        &hashed(&[1, 2, 3], &[1, 2, 3], true),
        0,
        now,
    );
    let slots = |installed: &Installed| answers(installed)[&key(1)].clone();
    let before = slots(&installed);
    // Nobody names the third one. That alone changes nothing.
    let steps = settle(&mut installed, &hashed(&[1, 2], &[1, 2], false), 0, now);
    assert_eq!(steps, vec![]);
    settle(&mut installed, &hashed(&[1], &[1, 2], false), 0, now);
    let without: Vec<_> = before
        .iter()
        .map(|&it| if it == address(2) { address(1) } else { it })
        .collect();
    assert_eq!(slots(&installed), without);
    // It comes back to where it was; only what a table of two has elsewhere differs.
    settle(&mut installed, &hashed(&[1, 2], &[1, 2], false), 0, now);
    let back = slots(&installed);
    let pairs = || back.iter().zip(&before);
    assert!(pairs().all(|(new, old)| (*new == address(3)) == (*old == address(3))));
    let returned = pairs().filter(|(new, old)| (**old, **new) == (address(2), address(2)));
    assert!(returned.count() > 250, "of a third of 1021");
    assert_eq!(
        settle(&mut installed, &hashed(&[1, 2], &[1, 2], false), 0, now),
        vec![]
    );
    // Nobody else is left.
    settle(&mut installed, &hashed(&[], &[1, 2], false), 0, now);
    assert!(slots(&installed).iter().all(|it| *it == address(3)));
    settle(&mut installed, &hashed(&[1, 2], &[1, 2], true), 0, now);
    assert_eq!(
        slots(&installed),
        wanted(&hashed(&[1, 2], &[1, 2], true))[&key(1)]
    );
}

#[test]
fn a_bad_backend_leaves_a_full_table_although_an_unknown_one_stays() {
    let now = Instant::now();
    let mut installed = Installed::empty(8, 8);
    let weighted = |members: &[(u8, usize)], known: &[u8], complete| {
        let all = members.iter();
        let slots = all.flat_map(|&(n, times)| std::iter::repeat_n(address(n), times));
        let mut next = desired(&[(1, members.iter().map(|it| it.0).collect())].into());
        for endpoint in next.services.values_mut() {
            endpoint.slots = slots.clone().collect();
            endpoint.named = named(known);
        }
        next.complete = complete;
        next
    };
    let first = weighted(&[(1, 1), (2, 1000), (3, 23)], &[1, 2, 3], true);
    settle(&mut installed, &first, 0, now);
    settle(
        &mut installed,
        &weighted(&[(2, 1020)], &[1, 2], false),
        0,
        now,
    );
    let slots = &answers(&installed)[&key(1)];
    let times = |n| slots.iter().filter(|it| **it == address(n)).count();
    assert_eq!((times(1), times(2), times(3)), (0, 1020, 4));
}

#[test]
fn a_view_of_an_earlier_agent_loses_what_is_bad_and_keeps_what_is_unknown() {
    let now = Instant::now();
    let seen = |members: &[u8], view: &[u8], complete| {
        let mut next = desired(&[(1, members.to_vec())].into());
        let mut endpoint = next.services[&key(1)].clone();
        endpoint.slots = view.iter().copied().map(address).collect();
        next.services.insert(key(1).seen_from(7), endpoint);
        next.backends
            .extend(view.iter().map(|&n| (address(n), share(n, 1))));
        next.complete = complete;
        next
    };
    // What an agent knows that came later: its view is no more than what the host sees.
    let later = |members: &[u8], known: &[u8]| {
        let mut next = desired(&[(1, members.to_vec())].into());
        for endpoint in next.services.values_mut() {
            endpoint.named = named(known);
        }
        next.complete = false;
        next
    };
    let found = |view: &[u8], next: &Desired| {
        let mut installed = Installed::empty(8, 8);
        settle(&mut installed, &seen(&[1, 2], view, true), 0, now);
        let mut todo = Todo::default();
        todo.services.insert(key(1));
        let mut round = Round::new(todo.with_former_views(&installed, next));
        while let Some(step) = round.next(&mut installed, next, |_| 0, now) {
            installed.apply(&step, now);
        }
        answers(&installed).get(&key(1).seen_from(7)).cloned()
    };
    let kept = |members: &[u8]| Some(members.iter().copied().map(address).collect::<Vec<_>>());
    // All that it names is known: what others see counts for it, too.
    assert_eq!(found(&[1, 3], &later(&[2], &[1, 2, 3])), None);
    // The third is unknown, the first is bad.
    assert_eq!(found(&[1, 3, 2], &later(&[2], &[1, 2])), kept(&[3, 2]));
    assert_eq!(found(&[3, 2], &later(&[2], &[1, 2])), kept(&[3, 2]));
    // Nobody has said yet which are bad, or what there is.
    let mut unproven = later(&[2], &[1, 2, 3]);
    for endpoint in unproven.services.values_mut() {
        endpoint.proven = false;
    }
    for next in [unproven, Desired::default()] {
        assert_eq!(found(&[1, 3], &next), kept(&[1, 3]));
    }
    // Nor where clients stand: who is in that view is not sent elsewhere.
    let mut unlocated = later(&[2, 3], &[1, 2, 3]);
    unlocated.unlocated = true;
    assert_eq!(found(&[1, 3], &unlocated), kept(&[3]));
    // Nobody is let in, whoever its backends are.
    let mut denied = later(&[2], &[1, 2]);
    for endpoint in denied.services.values_mut() {
        endpoint.flags = flag::DENIED;
    }
    assert_eq!(found(&[1, 3], &denied), None);
    denied.unlocated = true;
    assert_eq!(found(&[1, 3], &denied), kept(&[1, 3]));
}

#[test]
fn the_views_of_an_earlier_agent_lead_on_until_it_is_known_where_clients_stand() {
    let now = Instant::now();
    let view = key(1).seen_from(7);
    let mut before = desired(&[(1, vec![1, 2])].into());
    let mut own = before.services[&key(1)].clone();
    own.slots = vec![address(2)];
    before.services.insert(view, own);
    let host = before.services.get_mut(&key(1)).unwrap();
    host.flags = flag::VIEWS | flag::V6;
    let flags = |installed: &Installed| installed.services[&key(1)].flags;
    let mut installed = Installed::empty(8, 8);
    settle(&mut installed, &before, 0, now);
    let mut next = desired(&[(1, vec![1, 2, 3])].into());
    next.unlocated = true;
    next.complete = false;
    settle(&mut installed, &next, 0, now);
    assert_eq!(flags(&installed), flag::VIEWS | flag::V6);
    next.complete = true;
    settle(&mut installed, &next, 0, now);
    assert_eq!(flags(&installed), flag::VIEWS);
    assert_eq!(answers(&installed)[&view], [address(2)]);
    let mut gone = desired(&[(2, vec![2])].into());
    gone.unlocated = true;
    let mut without = installed.clone();
    settle(&mut without, &gone, 0, now);
    assert_eq!(Vec::from_iter(without.services.keys().copied()), [key(2)]);
    next.unlocated = false;
    settle(&mut installed, &next, 0, now);
    assert_eq!((flags(&installed), installed.services.len()), (0, 1));
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
        endpoint.named = named(&[1, 2]);
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
    // Backends from the first one, services from the last.
    assert_eq!(subjects, ["backend 10.0.0.2:80", "service s1"]);
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

/// A snapshot of these services: which instances each has, and of each its weight and whether it is usable.
fn snapshot(services: &BTreeMap<u8, BTreeMap<u8, (u16, bool)>>, complete: bool) -> Snapshot {
    let backend = |(n, &(weight, usable)): (&u8, &(u16, bool))| {
        let key = InstanceKey::new("n", n.to_string());
        let state = if usable {
            ProbeState::Up
        } else {
            ProbeState::Down
        };
        let mut backend = snapshot::Backend::usable(address(*n));
        backend.weight = weight;
        backend.probe.state = state;
        (key, backend)
    };
    let service = |(n, members): (&u8, &BTreeMap<u8, (u16, bool)>)| {
        let service = snapshot::Service {
            vip: Some(Ipv4Addr::new(198, 18, 0, *n)),
            options: Options::default(),
            aliases: BTreeSet::new(),
            backends: members.iter().map(backend).collect(),
        };
        (ServiceName::whole(format!("s{n}")), Arc::new(service))
    };
    Snapshot {
        answered: complete,
        complete,
        services: services.iter().map(service).collect(),
        ..Snapshot::default()
    }
}

proptest! {
    #[test]
    fn following_changes_ends_where_the_last_snapshot_alone_does(
        moments in prop::collection::vec(
            (
                prop::collection::btree_map(
                    1..6_u8,
                    prop::collection::btree_map(1..9_u8, (0..4_u16, any::<bool>()), 0..4),
                    0..5,
                ),
                // After so many steps the kernel refuses one.
                prop::option::of(0..4_usize),
            ),
            1..8,
        ),
        unknown in 0..3_usize,
    ) {
        let pools = Pools::default();
        let mut wanted = Wanted::new(pools);
        let mut last = Snapshot::default();
        let mut todo = Todo::default();
        let mut installed = Installed::empty(64, 64);
        let mut now = Instant::now();
        let mut before: BTreeMap<ServiceKey, Vec<SocketAddr>> = BTreeMap::new();
        for (at, (services, refused)) in moments.iter().enumerate() {
            let next = snapshot(services, at >= unknown);
            todo.extend(wanted.follow(&last, &next));
            let desired = wanted.desired().clone();
            prop_assert_eq!(&desired, &Desired::new(&next, pools).0);
            if next.complete && !last.complete {
                todo = Todo::all(&installed, &desired);
            }
            let after = self::wanted(&desired);
            for attempt in [refused.unwrap_or(usize::MAX), usize::MAX] {
                let mut round = Round::new(std::mem::take(&mut todo));
                let mut steps = 0;
                let mut failed = None;
                while let Some(step) = round.next(&mut installed, &desired, |_| 0, now) {
                    if steps == attempt {
                        failed = Some(step);
                        break;
                    }
                    steps += 1;
                    installed.apply(&step, now);
                    for (key, members) in answers(&installed) {
                        let (before, after) = (before.get(&key), after.get(&key));
                        // As long as a source has not answered, also with what nobody names.
                        let added = after.is_some_and(|after| {
                            let rest = members.strip_prefix(&after[..]);
                            let rest = rest.filter(|_| !next.complete);
                            let was = |it: &SocketAddr| before.is_some_and(|them| them.contains(it));
                            rest.is_some_and(|rest| rest.iter().all(was))
                        });
                        prop_assert!(before == Some(&members) || after == Some(&members) || added);
                    }
                }
                let (left, problems) = round.end(failed.as_ref());
                prop_assert_eq!(problems, vec![]);
                todo = left;
            }
            prop_assert!(todo.is_empty(), "{todo:?}");
            if next.complete {
                prop_assert_eq!(answers(&installed), after);
            }
            // Nothing was overlooked.
            let (steps, _) = plan(&installed, &desired, |_| 0, now);
            let frees = |step: &Step| matches!(step, Step::FreeBackend { .. });
            prop_assert!(steps.iter().all(frees), "{steps:?}");
            before = answers(&installed);
            last = next;
            now += Duration::from_secs(10);
            for step in free(&installed, &desired, |_| 0, now) {
                installed.apply(&step, now);
            }
        }
    }
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
