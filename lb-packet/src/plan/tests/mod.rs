//! Every step of every plan, against what programs may read at that moment, also those that began a while ago.

mod found;
mod kernel;
mod settled;
mod wishes;

use lb_common::packet::{Endpoint, endpoint_flag, scope};
use proptest::{collection, prelude::*};

use self::{
    kernel::Kernel,
    wishes::{elsewhere, key, member, places, some_turn, wanted},
};
use super::*;
use crate::Limits;

const LIMITS: Limits = Limits {
    services: 6,
    backends: 5,
    flows: 1,
};

/// Enough for whatever is wished for.
const ROOM: Limits = Limits {
    services: 40,
    backends: 40,
    flows: 1,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn no_look_up_at_any_step_meets_none_a_stranger_or_a_freed_backend(
        turns in collection::vec(some_turn(), 1..16),
        limits in prop_oneof![Just(LIMITS), Just(ROOM)]
    ) {
        let mut now = Instant::now();
        let mut kernel = Kernel::default();
        let mut book = Book::empty(limits);
        let mut desired = Desired::default();
        for turn in &turns {
            now += turn.wait;
            if turn.restart {
                book = kernel.found(limits, now);
            }
            desired = turn.after(&desired);
            for (key, wanted) in &desired.endpoints {
                let serving = wanted.members.iter().filter(|it| desired.serves(key, it.address));
                kernel.servers.entry(*key).or_default().extend(serving.map(|it| it.address));
            }
            let plan = plan(&book, &desired, now);
            check_shortcut(&book, &plan, &desired, now);
            let taken = turn.refuses.unwrap_or(plan.steps.len());
            for step in plan.steps.iter().take(taken) {
                kernel.take(step, now);
                book.note(step, now);
                kernel.check(now);
            }
            book.settle(&desired, taken >= plan.steps.len() && plan.refused.is_empty());
        }
        // In the end, when nothing else happens, all of it is so and nobody else is there.
        let last = &desired;
        let mut turns = 0;
        let plan = loop {
            let plan = plan(&book, last, now);
            check_shortcut(&book, &plan, last, now);
            for step in &plan.steps {
                kernel.take(step, now);
                book.note(step, now);
                kernel.check(now);
            }
            book.settle(last, plan.refused.is_empty());
            turns += 1;
            prop_assert!(turns < 10, "it comes to no end");
            match plan.again {
                Some(again) => now = now.max(again),
                None if plan.steps.is_empty() => break plan,
                None => {}
            }
        };
        let refused: BTreeSet<_> = plan.refused.iter().filter_map(|it| match it {
            Refused::Endpoint(key) => Some(*key),
            _ => None,
        }).collect();
        let without: BTreeSet<_> = plan.refused.iter().filter_map(|it| match it {
            Refused::Backend(address) => Some(*address),
            _ => None,
        }).collect();
        for (key, wanted) in &last.endpoints {
            prop_assert_eq!(kernel.endpoints.contains_key(key), !refused.contains(key));
            for member in wanted.members.iter().filter(|it| it.weight > 0 && last.serves(key, it.address)) {
                let placed = book.targets.contains_key(&member.address);
                prop_assert_ne!(placed, without.contains(&member.address), "{} is placed, or that is told", member.address);
            }
            if let Some(endpoint) = kernel.endpoints.get(key) {
                let found = kernel.targets.iter().filter(|(_, it)| it.port.raw() != 0);
                let placed: BTreeMap<_, _> = found.map(|(&index, it)| (crate::address::socket(it.address, it.port), index)).collect();
                let serving: BTreeSet<u32> = wanted.members.iter().filter(|it| it.weight > 0 && last.serves(key, it.address))
                    .filter_map(|it| placed.get(&it.address).copied()).collect();
                prop_assert_eq!(endpoint.flags & endpoint_flag::EMPTY != 0, serving.is_empty());
                if !serving.is_empty() {
                    let named: BTreeSet<u32> = kernel.tables[&endpoint.table].iter().map(|&it| it.into()).collect();
                    prop_assert_eq!(named, serving);
                }
            }
        }
        prop_assert_eq!(kernel.endpoints.len() + refused.len(), last.endpoints.len());
        prop_assert_eq!(&kernel.vips, &last.vips);
        prop_assert_eq!(&kernel.hosts, &last.hosts);
        let traced = last.endpoints.values().any(|it| it.trace).into();
        prop_assert_eq!(kernel.settings, Settings { traced, ..last.settings });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// The card leaves packets for backends of this host to the stack, where an endpoint of its own leads on.
    #[test]
    fn at_no_step_a_packet_is_left_to_a_stack_that_knows_nobody(
        turns in collection::vec((
            collection::btree_map(1..3_u8, collection::btree_map(1..6_u8, 0..2_u16, 0..4), 0..3),
            collection::btree_set(1..6_u8, 0..5),
        ), 1..8)
    ) {
        let mut now = Instant::now();
        let (mut kernel, mut book) = (Kernel::default(), Book::empty(ROOM));
        for (endpoints, local) in &turns {
            now += REST;
            let mut desired = Desired { places: places(local.iter().copied()), ..Desired::default() };
            for (&vip, members) in endpoints {
                let members: Arc<[Member]> = members.iter().map(|(&n, &weight)| member(n, weight)).collect();
                for scope in [0, scope::V6, scope::LOCAL, scope::LOCAL | scope::V6] {
                    let wanted = Wanted { members: members.clone(), tunnel: false, trace: false };
                    desired.endpoints.insert(key(vip, scope), wanted);
                }
            }
            let plan = plan(&book, &desired, now);
            for step in &plan.steps {
                kernel.take(step, now);
                book.note(step, now);
                for (key, endpoint) in &kernel.endpoints {
                    if key.scope & scope::LOCAL != 0 || endpoint.flags & endpoint_flag::EMPTY != 0 {
                        continue;
                    }
                    let named: BTreeSet<_> = kernel.tables[&endpoint.table].iter().copied().collect();
                    let local = named.iter().any(|&slot| kernel.targets[&slot.into()].flags & target_flag::LOCAL != 0);
                    let takes = kernel.endpoints.get(&EndpointKey { scope: key.scope | scope::LOCAL, ..*key })
                        .is_some_and(|it| it.flags & endpoint_flag::EMPTY == 0);
                    prop_assert!(!local || takes, "{:?} leads to nobody", key);
                }
            }
            book.settle(&desired, plan.refused.is_empty());
        }
    }
}

/// To look at everything leads to the same steps.
fn check_shortcut(book: &Book, plan: &Plan, desired: &Desired, now: Instant) {
    let mut book = book.clone();
    book.settle(desired, false);
    let all = super::plan(&book, desired, now);
    assert_eq!(format!("{plan:?}"), format!("{all:?}"));
}

/// All of a plan for `desired`.
fn carry_out(book: &mut Book, desired: &Desired, plan: &Plan, now: Instant) {
    for step in &plan.steps {
        book.note(step, now);
    }
    book.settle(desired, plan.refused.is_empty());
}

fn only(members: &[(u8, u16)]) -> Desired {
    Desired {
        endpoints: BTreeMap::from([(key(1, 0), wanted(members))]),
        ..Desired::default()
    }
}

#[test]
fn a_drained_backend_keeps_its_id_and_one_that_nobody_wants_is_freed_after_a_rest() {
    let now = Instant::now();
    let mut book = Book::empty(LIMITS);
    let both = only(&[(1, 1), (2, 1)]);
    let first = plan(&book, &both, now);
    carry_out(&mut book, &both, &first, now);
    let drained = member(2, 0).address;
    let id = book.targets[&drained];
    // By a weight of 0, then by name alone.
    let mut kept = only(&[(1, 1)]);
    kept.kept.insert(drained);
    for desired in [only(&[(1, 1), (2, 0)]), kept] {
        let later = now + 10 * REST;
        let next = plan(&book, &desired, later);
        assert_eq!(next.again, None);
        carry_out(&mut book, &desired, &next, now);
        assert_eq!(book.targets[&drained], id);
        assert!(!book.endpoints[&key(1, 0)].named.contains(&id.index));
    }
    let one = only(&[(1, 1)]);
    let gone = plan(&book, &one, now + REST / 2);
    assert!(gone.steps.is_empty(), "{:?}", gone.steps);
    assert_eq!(gone.again, Some(now + REST));
    let gone = plan(&book, &one, now + REST);
    assert!(matches!(gone.steps[..], [Step::FreeTarget { address, .. }] if address == drained));
    // Nobody waits for its index.
    assert_eq!(gone.again, None);
    carry_out(&mut book, &one, &gone, now + REST);
    // When it comes back it is somebody else, wherever it stands.
    let back = plan(&book, &both, now + REST);
    carry_out(&mut book, &both, &back, now + REST);
    assert_ne!(book.targets[&drained], id);
}

#[test]
fn what_is_so_already_needs_no_step() {
    let now = Instant::now();
    let mut book = Book::empty(LIMITS);
    let desired = only(&[(1, 1), (2, 3)]);
    let first = plan(&book, &desired, now);
    assert_eq!(first.steps.len(), 4);
    carry_out(&mut book, &desired, &first, now);
    assert!(plan(&book, &desired, now).steps.is_empty());
    // Another list of the same members, in the other order: no other table.
    let turned = plan(&book, &only(&[(2, 3), (1, 1)]), now);
    assert!(
        matches!(turned.steps[..], [Step::Recognise { .. }]),
        "{:?}",
        turned.steps
    );
}

#[test]
fn what_finds_no_room_is_told_and_the_others_serve() {
    let now = Instant::now();
    let mut book = Book::empty(Limits {
        services: 1,
        backends: 2,
        flows: 1,
    });
    let mut desired = only(&[(1, 1), (2, 1), (4, 1)]);
    desired.endpoints.insert(key(2, 0), wanted(&[(1, 1)]));
    let first = plan(&book, &desired, now);
    let refused = [
        Refused::Backend(member(4, 1).address),
        Refused::Endpoint(key(2, 0)),
    ];
    assert_eq!(first.refused, refused);
    carry_out(&mut book, &desired, &first, now);
    assert_eq!(book.endpoints[&key(1, 0)].named.len(), 2);
    // Without any progress it is told again, and nothing is written.
    let second = plan(&book, &desired, now);
    assert_eq!(second.refused, refused);
    assert!(second.steps.is_empty(), "{:?}", second.steps);
    // Nothing goes that would make room.
    assert_eq!((first.again, second.again), (None, None));
}

#[test]
fn what_goes_makes_room_for_who_found_none() {
    let limits = Limits {
        services: 1,
        backends: 1,
        flows: 1,
    };
    // Another backend, and another endpoint.
    let other = Desired {
        endpoints: BTreeMap::from([(key(2, 0), wanted(&[(1, 1)]))]),
        ..Desired::default()
    };
    for next in [only(&[(2, 1)]), other] {
        let mut now = Instant::now();
        let mut book = Book::empty(limits);
        let before = only(&[(1, 1)]);
        let first = plan(&book, &before, now);
        carry_out(&mut book, &before, &first, now);
        let mut waits = 0;
        loop {
            let plan = plan(&book, &next, now);
            carry_out(&mut book, &next, &plan, now);
            match plan.again {
                Some(again) => {
                    assert!(again > now);
                    now = again;
                }
                None => break,
            }
            waits += 1;
            assert!(waits < 5, "it comes to no end");
        }
        let endpoints: Vec<_> = book.endpoints.keys().collect();
        assert_eq!(endpoints, next.endpoints.keys().collect::<Vec<_>>());
        let placed = book.endpoints.values().all(|it| it.named.len() == 1);
        assert!(placed, "{:?}", book.endpoints);
    }
}

#[test]
fn who_takes_no_flows_from_the_start_or_has_no_port_gets_no_index() {
    let now = Instant::now();
    let mut nowhere = member(4, 1);
    nowhere.address.set_port(0);
    let book = Book::empty(ROOM);
    let mut desired = only(&[(1, 1), (2, 0)]);
    let endpoint = desired.endpoints.get_mut(&key(1, 0)).unwrap();
    endpoint.members = endpoint.members.iter().copied().chain([nowhere]).collect();
    // Named twice is named once.
    desired.endpoints.insert(key(2, 0), wanted(&[(1, 1)]));
    let steps = plan(&book, &desired, now).steps;
    let placed = steps.iter().filter_map(|it| match it {
        Step::PutTarget { address, .. } => Some(*address),
        _ => None,
    });
    assert_eq!(placed.collect::<Vec<_>>(), [member(1, 1).address]);
}

#[test]
fn a_backend_that_moves_is_written_first_and_one_that_comes_home_last() {
    let now = Instant::now();
    let mut book = Book::empty(ROOM);
    let on = |host| elsewhere(&[(1, host)].into()).collect::<BTreeMap<_, _>>();
    let mut desired = Desired {
        places: on(1),
        ..only(&[(1, 1)])
    };
    let first = plan(&book, &desired, now);
    carry_out(&mut book, &desired, &first, now);
    // Each time somebody else comes or goes, too, so that a table is written.
    for (places, members, last) in [
        (on(2), &[(1, 1), (2, 1)][..], false),
        (places([1]), &[(1, 1)], true),
        (on(2), &[(1, 1), (2, 1)], false),
    ] {
        desired = Desired {
            places,
            ..only(members)
        };
        let next = plan(&book, &desired, now);
        let address = member(1, 1).address;
        let moves = |it: &Step| matches!(it, Step::PutTarget { address: it, .. } if *it == address);
        let at = next.steps.iter().position(moves).unwrap();
        let table = |it: &Step| matches!(it, Step::PutTable { .. });
        let table = next.steps.iter().position(table).unwrap();
        assert_eq!(at > table, last, "{:?}", next.steps);
        carry_out(&mut book, &desired, &next, now);
    }
}
