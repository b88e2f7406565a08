use std::{net::SocketAddr, time::Instant};

use super::*;
use crate::plan::tests::{address, desired, key, named, settle};

/// Maps with the backends 1 to 5, each at the index of its number.
fn installed() -> Installed {
    let mut installed = Installed::empty(8, 8);
    let all = desired(&[(9, vec![1, 2, 3, 4, 5])].into());
    settle(&mut installed, &all, 0, Instant::now());
    for n in 1..=5 {
        assert_eq!(installed.addresses[&u32::from(n)], address(n));
    }
    installed
}

fn old(balance: Balance, slots: &[u32]) -> InstalledService {
    InstalledService {
        table: 7,
        half: 1,
        generation: 3,
        balance,
        affinity_seconds: 0,
        flags: 0,
        slots: slots.to_vec(),
    }
}

/// What is desired of the service while not all sources have answered: the members of its table, and all that it is known
/// to have.
fn wish(members: &[u8], known: &[u8]) -> Desired {
    let mut wish = desired(&[(1, members.to_vec())].into());
    wish.complete = false;
    for endpoint in wish.services.values_mut() {
        endpoint.named = named(known);
    }
    wish
}

#[test]
fn who_has_several_places_gives_up_some_where_there_is_no_room() {
    let many = |rest: &[u32]| {
        let first = vec![2; SLOTS as usize + 2 - rest.len()];
        joined(first, rest.to_vec()).unwrap()
    };
    let expect = |times: usize, rest: &[u32]| [vec![2; times], rest.to_vec()].concat();
    let room = SLOTS as usize;
    assert_eq!(many(&[3, 3, 3, 4]), expect(room - 2, &[3, 4]));
    assert_eq!(many(&[3, 3, 4]), expect(room - 2, &[3, 4]));
    assert_eq!(many(&[3, 4, 4, 4]), expect(room - 2, &[3, 4]));
    assert_eq!(many(&[3, 4]), expect(room - 2, &[3, 4]));
    assert_eq!(joined(vec![1, 1, 2], vec![3, 3]), Some(vec![1, 1, 2, 3, 3]));
    let all: Vec<u32> = (1..=SLOTS).collect();
    assert_eq!(
        joined(all[1..].to_vec(), vec![1]).map(|it| it.len()),
        Some(room)
    );
    assert_eq!(joined(all, vec![SLOTS + 1]), None);
}

#[test]
fn of_a_table_of_hashes_only_the_places_change_of_who_is_lost_or_new() {
    assert_eq!(overlaid(&[1, 2, 3], vec![2, 4, 1], vec![3]), [1, 4, 3]);
    // Each of both lies over the other as often as it fits.
    assert_eq!(overlaid(&[3], vec![1, 2, 1], vec![3]), [3, 3, 3]);
    assert_eq!(overlaid(&[3, 1], vec![4], vec![3]), [3, 4]);
    assert_eq!(overlaid(&[1, 3, 2], vec![], vec![3]), [3, 3, 3]);
}

#[test]
fn a_table_grows_by_what_nobody_names() {
    let installed = installed();
    let grown = |wish: &Desired, balance, slots: &[u32]| {
        let endpoint = &wish.services[&key(1)];
        let now = endpoint.slots.iter();
        let now = now.map(|it| installed.backends[it].id.index).collect();
        grown(&installed, &old(balance, slots), now, endpoint)
    };
    let some = |slots: &[u32]| Some(slots.to_vec());
    let wish = |change: &dyn Fn(&mut Endpoint)| {
        let mut wish = wish(&[1, 4], &[1, 2, 4]);
        wish.services.values_mut().for_each(change);
        wish
    };
    let (usual, least) = (wish(&|_| ()), Balance::LeastConn);
    // The second is known to be bad, the third is unknown.
    assert_eq!(grown(&usual, least, &[1, 2, 3]), some(&[1, 4, 3]));
    assert_eq!(grown(&usual, least, &[1, 2]), some(&[1, 4]));
    let hashed = wish(&|it| it.balance = Balance::Maglev);
    assert_eq!(grown(&hashed, least, &[1, 2, 3]), some(&[1, 4, 3]));
    assert_eq!(grown(&hashed, least, &[3, 2, 1]), some(&[3, 4, 1]));
    // Those that come were not probed yet: nobody who is named goes.
    let unproven = wish(&|it| it.proven = false);
    assert_eq!(grown(&unproven, least, &[1, 2, 3]), None);
    assert_eq!(grown(&unproven, least, &[1, 3]), some(&[1, 4, 3]));
    let denied = wish(&|it| it.flags = flag::DENIED);
    assert_eq!(grown(&denied, least, &[1, 2, 3]), some(&[1, 4]));
    let led = wish(&|it| it.flags = flag::VIEWS | flag::V6);
    assert_eq!(grown(&led, least, &[1, 2, 3]), some(&[1, 4, 3]));
}

#[test]
fn flags_stay_that_lead_to_what_stays() {
    let all = flag::VIEWS | flag::V6 | flag::DENIED;
    for (complete, unlocated, stay) in [
        (true, false, 0),
        (true, true, flag::VIEWS),
        (false, false, flag::VIEWS | flag::V6),
        (false, true, flag::VIEWS | flag::V6),
    ] {
        let desired = Desired {
            complete,
            unlocated,
            ..Desired::default()
        };
        let with = |flags| InstalledService {
            flags,
            ..old(Balance::LeastConn, &[])
        };
        assert_eq!(leading(&with(all), &desired), stay);
        assert_eq!(leading(&with(flag::DENIED), &desired), 0);
    }
}

/// What becomes of the table `slots` of a view that `wish` has not.
fn of_view(wish: &Desired, balance: Balance, slots: &[u32]) -> Option<Step> {
    let old = old(balance, slots);
    superseded(&installed(), &old, wish, key(1).seen_from(7))
}

fn put(balance: Balance, slots: &[u32]) -> Option<Step> {
    Some(Step::PutService {
        key: key(1).seen_from(7),
        service: InstalledService {
            half: 0,
            // The maps have had one table so far.
            generation: 2,
            ..old(balance, slots)
        },
        fresh: false,
    })
}

const REMOVED: fn() -> Option<Step> = || {
    Some(Step::RemoveService {
        key: key(1).seen_from(7),
    })
};

#[test]
fn a_former_view_keeps_what_is_unknown_and_what_takes_flows() {
    let least = Balance::LeastConn;
    let wish = wish(&[2], &[1, 2, 4]);
    // 1 and 4 are bad, 2 takes flows, 3 and 5 are unknown.
    assert_eq!(of_view(&wish, least, &[1, 2, 3]), put(least, &[2, 3]));
    assert_eq!(of_view(&wish, least, &[2, 3]), None);
    assert_eq!(of_view(&wish, least, &[1, 2, 4]), REMOVED());
    let hashed = Balance::Maglev;
    assert_eq!(of_view(&wish, hashed, &[3, 1, 5]), put(hashed, &[3, 5, 5]));
    assert_eq!(of_view(&Desired::default(), least, &[1, 3]), None);
}

#[test]
fn a_former_view_stays_until_it_is_known_where_clients_stand() {
    let least = Balance::LeastConn;
    let mut wish = wish(&[2], &[1, 2, 4]);
    wish.unlocated = true;
    assert_eq!(of_view(&wish, least, &[1, 2, 4]), put(least, &[2]));
    assert_eq!(of_view(&wish, least, &[2]), None);
    // The endpoint of the host for IPv6 sockets is nobody's who is hidden.
    let twin = superseded(&installed(), &old(least, &[1, 2]), &wish, key(1).for_v6());
    let removed = Step::RemoveService {
        key: key(1).for_v6(),
    };
    assert_eq!(twin, Some(removed));
}

#[test]
fn a_former_view_of_a_service_with_rules_goes_once_it_is_known_where_clients_stand() {
    let least = Balance::LeastConn;
    let mut wish = wish(&[2], &[1, 2, 4]);
    // A rule that the host passes keeps out others.
    let mut elsewhere = wish.services[&key(1)].clone();
    elsewhere.flags = flag::DENIED;
    elsewhere.slots = Vec::<SocketAddr>::new();
    wish.services.insert(key(1).seen_from(1), elsewhere);
    assert_eq!(of_view(&wish, least, &[1, 3]), REMOVED());
    wish.unlocated = true;
    assert_eq!(of_view(&wish, least, &[1, 3]), None);
    // Those of another service say nothing of this one.
    let stranger = wish.services.remove(&key(1).seen_from(1)).unwrap();
    wish.services.insert(key(2), stranger);
    assert_eq!(of_view(&wish, least, &[1, 3]), put(least, &[3]));
}

#[test]
fn what_other_views_are_given_takes_flows() {
    let least = Balance::LeastConn;
    let mut wish = wish(&[2], &[1, 2, 4]);
    let mut own = wish.services[&key(1)].clone();
    own.slots = vec![address(4)];
    wish.services.insert(key(1).seen_from(8), own);
    assert_eq!(of_view(&wish, least, &[1, 3, 4]), put(least, &[3, 4]));
    // Nobody has looked at the backends of the host yet.
    wish.services.get_mut(&key(1)).unwrap().proven = false;
    assert_eq!(of_view(&wish, least, &[1, 3, 4]), None);
}
