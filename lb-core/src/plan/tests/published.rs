//! What a step writes, and which of two comes first.

use std::net::Ipv6Addr;

use lb_common::FIRST_OWN_VIEW;

use super::*;

#[test]
fn a_table_is_written_into_the_idle_half_and_by_a_generation_that_no_other_has() {
    let now = Instant::now();
    let mut installed = Installed::empty(8, 8);
    let mut written = Vec::new();
    for members in [vec![1], vec![1, 2], vec![2]] {
        let next = desired(&[(1, members.clone()), (2, members)].into());
        for step in settle(&mut installed, &next, 0, now) {
            if let Step::PutService { key, service, .. } = step {
                written.push((key, service.half, service.generation));
            }
        }
    }
    let [first, second] = [key(1), key(2)];
    let expected = [
        (second, 0, 1),
        (first, 0, 2),
        (second, 1, 3),
        (first, 1, 4),
        (second, 0, 5),
        (first, 0, 6),
    ];
    assert_eq!(written, expected);
    // 0 is that of a table which was never written.
    installed.published = u32::MAX;
    let last = desired(&[(1, vec![1]), (2, vec![2])].into());
    settle(&mut installed, &last, 0, now);
    assert_eq!(installed.services[&first].generation, 1);
}

#[test]
fn only_what_is_new_is_said_to_have_had_another_meaning() {
    let now = Instant::now();
    let mut installed = Installed::empty(8, 8);
    let fresh = |steps: Vec<Step>| -> Vec<bool> {
        let fresh = steps.into_iter().filter_map(|step| match step {
            Step::PutBackend { fresh, .. } | Step::PutService { fresh, .. } => Some(fresh),
            Step::RemoveService { .. } | Step::FreeBackend { .. } => None,
        });
        fresh.collect()
    };
    let mut next = desired(&[(1, vec![1])].into());
    assert_eq!(
        fresh(settle(&mut installed, &next, 0, now)),
        [true, true],
        "a backend and a service"
    );
    next.backends.insert(address(1), share(1, 7));
    for endpoint in next.services.values_mut() {
        endpoint.balance = Balance::Random;
    }
    assert_eq!(fresh(settle(&mut installed, &next, 0, now)), [false, false]);
    assert_eq!(installed.backends[&address(1)].weight, 7);
    assert_eq!(installed.services[&key(1)].balance, Balance::Random);
    for endpoint in next.services.values_mut() {
        endpoint.affinity_seconds = 60;
    }
    assert_eq!(fresh(settle(&mut installed, &next, 0, now)), [false]);
    assert_eq!(installed.services[&key(1)].affinity_seconds, 60);
}

#[test]
fn a_service_and_its_table_are_written_as_the_programs_read_them() {
    let service = InstalledService {
        table: 3,
        half: 1,
        generation: 9,
        balance: Balance::Maglev,
        affinity_seconds: 30,
        flags: flag::V6,
        slots: vec![4, 5, 6],
    };
    let value = Service {
        table: 3,
        half: 1,
        count: 3,
        generation: 9,
        balance: 3,
        flags: flag::V6,
        affinity_seconds: 30,
        spare: 0,
    };
    assert_eq!(service.value(), value);
    let half = service.half(key(1));
    assert_eq!((half.generation, half.owner), (9, key(1)));
    // Whoever reads a place behind the last one meets a backend of the same service.
    assert_eq!(half.slots[..7], [4, 5, 6, 4, 5, 6, 4]);
    assert_eq!(
        half.slots[SLOTS as usize - 1],
        4,
        "1024 is 341 times 3 and 1"
    );
}

#[test]
fn a_backend_is_written_as_an_ipv6_address_in_network_order() {
    let id = |index| BackendId {
        index,
        generation: 7,
    };
    let backend = InstalledBackend {
        id: id(2),
        weight: 0,
        counted_at: id(3),
    };
    let words = |ip: Ipv6Addr| {
        let bits = u128::from(ip).to_be_bytes();
        let word = |at: usize| [bits[at], bits[at + 1], bits[at + 2], bits[at + 3]];
        [0, 4, 8, 12].map(|at| u32::from_ne_bytes(word(at)))
    };
    let value = backend_value(address(1), backend);
    let mapped = words("::ffff:10.0.0.1".parse().unwrap());
    assert_eq!((value.address, value.is_v4()), (mapped, true));
    assert_eq!(value.port.host(), 80);
    assert_eq!(value.generation, 7);
    assert_eq!(value.counted_at, id(3).to_bits());
    // Nobody is left out who is named.
    assert_eq!(value.weight, 1);
    let heavy = InstalledBackend {
        weight: 9,
        ..backend
    };
    let value = backend_value("[fd00::1]:81".parse().unwrap(), heavy);
    let own = words("fd00::1".parse().unwrap());
    assert_eq!((value.address, value.is_v4()), (own, false));
    assert_eq!((value.port.host(), value.weight), (81, 9));
}

/// A service that the host sees with these flags, which IPv6 sockets and a view see otherwise.
fn seen_in_parts(flags: u32, members: &[u8]) -> Desired {
    let mut next = desired(&[(1, members.to_vec())].into());
    let host = next.services.get_mut(&key(1)).unwrap();
    let part = host.clone();
    host.flags = flags;
    if flags & flag::V6 != 0 {
        next.services.insert(key(1).for_v6(), part.clone());
    }
    if flags & flag::VIEWS != 0 {
        next.services.insert(key(1).seen_from(FIRST_OWN_VIEW), part);
    }
    next
}

#[test]
fn who_may_be_looked_up_first_is_there_before_what_leads_to_it() {
    let now = Instant::now();
    let (any, v6) = (key(1), key(1).for_v6());
    let view = key(1).seen_from(FIRST_OWN_VIEW);
    let both = flag::VIEWS | flag::V6;
    for (before, after, expected) in [
        (None, both, vec![view, v6, any]),
        (Some(0), both, vec![view, v6, any]),
        (Some(flag::VIEWS), both, vec![view, v6, any]),
        (Some(both), both, vec![view, v6, any]),
        // IPv6 sockets of the view would go on from the host's to what is for the host alone.
        (Some(flag::V6), both, vec![view, any, v6]),
        (Some(flag::V6), flag::V6, vec![v6, any]),
    ] {
        let mut installed = Installed::empty(8, 8);
        if let Some(flags) = before {
            settle(&mut installed, &seen_in_parts(flags, &[1]), 0, now);
        }
        let steps = settle(&mut installed, &seen_in_parts(after, &[2]), 0, now);
        let put = steps.into_iter().filter_map(|step| match step {
            Step::PutService { key, .. } => Some(key),
            _ => None,
        });
        assert_eq!(put.collect::<Vec<_>>(), expected, "{before:?} {after}");
    }
}

#[test]
fn former_views_are_those_of_the_services_that_are_looked_at() {
    let now = Instant::now();
    let former = FIRST_OWN_VIEW + 1;
    let mut before = desired(&[(1, vec![1]), (2, vec![1])].into());
    for n in [1, 2] {
        let own = before.services[&key(n)].clone();
        before
            .services
            .insert(key(n).seen_from(former), own.clone());
        before
            .services
            .insert(key(n).seen_from(FIRST_OWN_VIEW), own);
    }
    let mut installed = Installed::empty(8, 8);
    settle(&mut installed, &before, 0, now);
    let mut after = before;
    for n in [1, 2] {
        after.services.remove(&key(n).seen_from(former));
    }
    let todo = Todo {
        backends: [address(1)].into(),
        services: [key(1)].into(),
    };
    let expected = Todo {
        services: [key(1), key(1).seen_from(former)].into(),
        ..todo.clone()
    };
    assert_eq!(todo.with_former_views(&installed, &after), expected);
}

#[test]
fn there_is_something_to_do_where_a_backend_or_a_service_is_named() {
    let backend = Todo {
        backends: [address(1)].into(),
        ..Todo::default()
    };
    let service = Todo {
        services: [key(1)].into(),
        ..Todo::default()
    };
    assert!(Todo::default().is_empty());
    assert!(!backend.is_empty() && !service.is_empty());
}
