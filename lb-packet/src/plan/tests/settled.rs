//! What needs no second look, and what does although it looks the same.

use super::*;

/// Three endpoints, of the backends 1, 2, and both.
fn three() -> Desired {
    let endpoint = |vip, members: &[(u8, u16)]| (key(vip, 0), wanted(members));
    Desired {
        endpoints: BTreeMap::from([
            endpoint(1, &[(1, 1)]),
            endpoint(2, &[(2, 1)]),
            endpoint(3, &[(1, 1), (2, 1)]),
        ]),
        ..Desired::default()
    }
}

fn changed(book: &Book, desired: &Desired) -> Vec<EndpointKey> {
    book.changed(desired).map(|(key, _)| *key).collect()
}

#[test]
fn where_a_backend_moves_those_endpoints_are_looked_at_that_name_it() {
    let now = Instant::now();
    let mut book = Book::empty(ROOM);
    let mut desired = three();
    let all: Vec<_> = desired.endpoints.keys().copied().collect();
    assert_eq!(changed(&book, &desired), all);
    let first = plan(&book, &desired, now);
    carry_out(&mut book, &desired, &first, now);
    assert_eq!(changed(&book, &desired), []);
    // It comes to this host, goes to another one, and then nobody knows where it is.
    let elsewhere = Place {
        host: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        local: false,
    };
    let address = member(1, 1).address;
    let somewhere = BTreeMap::from([(address, elsewhere)]);
    for places in [places([1]), somewhere, BTreeMap::new()] {
        desired.places = places;
        assert_eq!(changed(&book, &desired), [key(1, 0), key(3, 0)]);
        let next = plan(&book, &desired, now);
        let [Step::PutTarget { home, .. }] = next.steps[..] else {
            panic!("{:?}", next.steps);
        };
        let place = desired.place(address);
        assert_eq!(home.target, target(address, place, home.target.generation));
        carry_out(&mut book, &desired, &next, now);
        assert_eq!(changed(&book, &desired), []);
    }
    // What was not carried out whole is looked at again.
    book.settle(&desired, false);
    assert_eq!(changed(&book, &desired), all);
}

#[test]
fn an_endpoint_with_other_members_or_flags_is_looked_at() {
    let now = Instant::now();
    let mut book = Book::empty(ROOM);
    let desired = three();
    let first = plan(&book, &desired, now);
    carry_out(&mut book, &desired, &first, now);
    let with = |change: &dyn Fn(&mut Wanted)| {
        let mut other = desired.clone();
        change(other.endpoints.get_mut(&key(2, 0)).unwrap());
        changed(&book, &other)
    };
    assert_eq!(with(&|it| it.trace = true), [key(2, 0)]);
    assert_eq!(with(&|it| it.tunnel = true), [key(2, 0)]);
    assert_eq!(with(&|it| it.members = [member(2, 5)].into()), [key(2, 0)]);
    // The same members in another list are no others.
    assert_eq!(with(&|it| it.members = [member(2, 1)].into()), []);
}

#[test]
fn a_backend_that_several_tables_named_rests_after_the_last_of_them() {
    let start = Instant::now();
    let mut book = Book::empty(ROOM);
    let mut desired = three();
    let first = plan(&book, &desired, start);
    carry_out(&mut book, &desired, &first, start);
    // One endpoint of the backend goes, and long after that the other one does without it.
    desired.endpoints.remove(&key(2, 0));
    let next = plan(&book, &desired, start);
    carry_out(&mut book, &desired, &next, start);
    let later = start + 10 * REST;
    desired.endpoints.insert(key(3, 0), wanted(&[(1, 1)]));
    let last = plan(&book, &desired, later);
    let frees = |plan: &Plan| {
        let frees = |it: &&Step| matches!(it, Step::FreeTarget { .. });
        plan.steps.iter().filter(frees).count()
    };
    assert_eq!((frees(&last), last.again), (0, Some(later + REST)));
    carry_out(&mut book, &desired, &last, later);
    assert_eq!(frees(&plan(&book, &desired, later + REST)), 1);
}

#[test]
fn an_endpoint_of_this_host_names_those_who_are_here() {
    let now = Instant::now();
    let mut book = Book::empty(ROOM);
    let here = key(1, scope::LOCAL);
    let mut desired = Desired {
        endpoints: BTreeMap::from([(here, wanted(&[(1, 1), (2, 1)]))]),
        ..Desired::default()
    };
    // The list of members is the same each time.
    for local in [&[1, 2][..], &[1], &[2], &[], &[2]] {
        desired.places = places(local.iter().copied());
        let next = plan(&book, &desired, now);
        carry_out(&mut book, &desired, &next, now);
        let index = |it: &u8| book.targets[&member(*it, 1).address].index;
        let expected: BTreeSet<u32> = local.iter().map(index).collect();
        assert_eq!(book.endpoints[&here].named, expected, "{local:?}");
    }
}

#[test]
fn tables_are_told_apart_by_any_bit_of_any_slot_and_by_their_length() {
    let table = [7_u16, 7, 300, 65_535, 1, 0, 7, 2, 9];
    let all = digest(&table);
    for shorter in 0..table.len() {
        assert_ne!(digest(&table[..shorter]), all, "{shorter}");
    }
    for (slot, bit) in (0..table.len()).flat_map(|slot| (0..16).map(move |bit| (slot, bit))) {
        let mut other = table;
        other[slot] ^= 1 << bit;
        assert_ne!(digest(&other), all, "{slot} {bit}");
    }
}
