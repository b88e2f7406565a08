//! What stays while a source has not answered, and what an earlier agent left.

use super::*;

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
