use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

fn allocator(net: &str, records: Records) -> Allocator {
    let pool = Pool::try_from(net.parse::<Ipv4Net>().unwrap()).unwrap();
    Allocator::new(pool, "dc1".to_owned(), records)
}

fn name(n: u32) -> ServiceName {
    ServiceName::whole(format!("s{n}"))
}

fn names(numbers: impl IntoIterator<Item = u32>) -> Names {
    numbers.into_iter().map(|n| (name(n), None)).collect()
}

/// Allocates, with every claim recorded at once as without a Consul.
fn settled(allocator: &mut Allocator, names: &Names) -> Round {
    let round = allocator.allocate(names);
    for (address, name) in round.claims {
        allocator.record(address, name);
    }
    let round = allocator.allocate(names);
    assert_eq!(round.claims, Claims::new());
    round
}

/// Two names with the same home, and that home.
fn twins(allocator: &Allocator) -> (u32, u32, Ipv4Addr) {
    let home = |n| allocator.pool.home("dc1", &name(n));
    let first = home(0);
    let second = (1..).find(|n| home(*n) == first).unwrap();
    (0, second, first)
}

#[test]
fn no_names_need_nothing() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    assert_eq!(allocator.allocate(&Names::new()), Round::default());
}

#[test]
fn a_name_alone_has_its_home_without_a_record() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let round = allocator.allocate(&names([7]));
    assert_eq!(
        round.by_name[&name(7)],
        allocator.pool.home("dc1", &name(7))
    );
    assert_eq!(round.claims, Claims::new());
}

#[test]
fn the_second_of_two_with_one_home_waits_for_a_record_of_the_next_address() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    allocator.allocate(&names([b]));
    let round = allocator.allocate(&names([a, b]));
    assert_eq!(round.by_name, BTreeMap::from([(name(b), home)]));
    let next = allocator.pool.after(home);
    assert_eq!(round.claims, Claims::from([(next, name(a))]));
    allocator.record(next, name(a));
    let round = allocator.allocate(&names([a, b]));
    assert_eq!(
        round.by_name,
        BTreeMap::from([(name(a), next), (name(b), home)])
    );
}

#[test]
fn a_record_outlives_the_collision_and_the_agent() {
    let mut first = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&first);
    settled(&mut first, &names([a, b]));
    let before = settled(&mut first, &names([b])).by_name;
    let mut restarted = allocator("10.0.0.0/24", first.records().clone());
    assert_eq!(restarted.allocate(&names([b])).by_name, before);
    assert_eq!(restarted.allocate(&names([a, b])).by_name[&name(a)], home);
}

#[test]
fn a_name_that_comes_back_has_its_old_address_though_another_wanted_it() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    allocator.allocate(&names([b]));
    allocator.allocate(&names([]));
    settled(&mut allocator, &names([a]));
    assert_eq!(
        settled(&mut allocator, &names([a, b])).by_name[&name(b)],
        home
    );
}

#[test]
fn a_wish_wins_and_the_name_that_was_there_moves_with_a_record() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let home = allocator.pool.home("dc1", &name(1));
    allocator.allocate(&names([1]));
    let mut wanted = names([1, 2]);
    wanted.insert(name(2), Some(home));
    let round = settled(&mut allocator, &wanted);
    assert_eq!(round.by_name[&name(2)], home);
    assert_eq!(round.by_name[&name(1)], allocator.pool.after(home));
    assert_eq!(round.problems, []);
}

#[test]
fn a_wish_that_cannot_be_granted_is_reported_and_the_name_still_served() {
    let own = "10.0.0.1";
    for (wish, why) in [
        ("10.0.1.7", "in the pool"),
        (own, "in the pool"),
        ("10.0.0.255", "in the pool"),
        ("10.0.0.9", "recorded for another"),
    ] {
        let record = (Ipv4Addr::new(10, 0, 0, 9), Some(name(50)));
        let mut allocator = allocator("10.0.0.0/24", Records::from([record]));
        let wanted = Names::from([(name(1), Some(wish.parse().unwrap()))]);
        let round = settled(&mut allocator, &wanted);
        assert!(round.by_name.contains_key(&name(1)));
        assert!(
            round.problems[0].message.contains(why),
            "{:?}",
            round.problems
        );
    }
}

#[test]
fn of_two_equal_wishes_the_first_name_has_it_on_every_host() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let wish = Ipv4Addr::new(10, 0, 0, 77);
    let round = settled(
        &mut allocator,
        &Names::from([(name(1), Some(wish)), (name(2), Some(wish))]),
    );
    assert_eq!(round.by_name[&name(1)], wish);
    assert_eq!((round.by_name.len(), round.problems.len()), (2, 1));
}

#[test]
fn a_full_pool_is_reported_and_takes_nothing_from_those_who_have() {
    let mut allocator = allocator("10.0.0.0/29", Records::new());
    let before = settled(&mut allocator, &names(0..5)).by_name;
    assert_eq!(before.len(), 5);
    let round = settled(&mut allocator, &names(0..7));
    assert_eq!(round.by_name, before);
    assert_eq!(round.problems.len(), 2);
    assert!(
        round.problems[0]
            .message
            .contains("10.0.0.0/29 is full; give a larger one")
    );
}

#[test]
fn a_full_pool_takes_back_the_addresses_of_those_who_left() {
    let mut allocator = allocator("10.0.0.0/30", Records::new());
    settled(&mut allocator, &names([1]));
    let round = settled(&mut allocator, &names([2]));
    assert_eq!((round.by_name.len(), round.problems.len()), (1, 0));
}

#[test]
fn shared_records_win_over_what_a_host_gave_by_itself() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    settled(&mut allocator, &names([a, b]));
    let other_host = Records::from([
        (Ipv4Addr::new(10, 0, 0, 200), Some(name(a))),
        (home, Some(name(b))),
    ]);
    allocator.learn(other_host.clone());
    let round = allocator.allocate(&names([a, b]));
    assert_eq!(round.by_name[&name(b)], home);
    assert_eq!(round.by_name[&name(a)], Ipv4Addr::new(10, 0, 0, 200));
    assert_eq!(allocator.unshared(&names([a, b])), Claims::new());
    assert_eq!(*allocator.records(), other_host);
}

#[test]
fn records_that_the_store_lost_are_kept_and_offered_again() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, _) = twins(&allocator);
    let before = settled(&mut allocator, &names([a, b])).by_name;
    allocator.learn(allocator.records().clone());
    allocator.learn(Records::new());
    assert_eq!(allocator.allocate(&names([a, b])).by_name, before);
    assert_eq!(allocator.unshared(&names([a, b])).len(), 1);
    assert_eq!(allocator.unshared(&names([])).len(), 0);
}

#[test]
fn a_record_that_cannot_be_read_blocks_its_address_and_nothing_else() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let home = allocator.pool.home("dc1", &name(1));
    allocator.learn(Records::from([(home, None)]));
    let round = settled(&mut allocator, &names([1, 2]));
    assert_eq!(round.by_name[&name(1)], allocator.pool.after(home));
    assert!(
        round.problems[0]
            .message
            .contains("delete the key lb-agent/vip/")
    );
    allocator.learn(Records::new());
    assert_eq!(allocator.allocate(&names([1, 2])).problems, []);
}

/// What happens to an allocator.
#[derive(Clone, Debug)]
enum Happening {
    Wanted(BTreeSet<u32>),
    Wished(u32, u8),
    Learnt(Vec<(u8, Option<u32>)>),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => proptest::collection::btree_set(0u32..40, 0..20).prop_map(Happening::Wanted),
        1 => (0u32..40, any::<u8>()).prop_map(|(n, last)| Happening::Wished(n, last)),
        1 => proptest::collection::vec((any::<u8>(), proptest::option::of(0u32..40)), 0..6)
            .prop_map(Happening::Learnt),
    ]
}

proptest! {
    #[test]
    fn no_two_names_ever_share_a_vip_and_each_lies_in_the_pool(
        happenings in proptest::collection::vec(happening(), 1..30),
        length in 26u8..=29,
    ) {
        let mut allocator = allocator(&format!("10.0.0.0/{length}"), Records::new());
        let mut wanted = Names::new();
        for happening in happenings {
            match happening {
                Happening::Wanted(numbers) => wanted = names(numbers),
                Happening::Wished(n, last) => {
                    wanted.insert(name(n), Some(Ipv4Addr::new(10, 0, 0, last)));
                }
                Happening::Learnt(records) => allocator.learn(
                    records
                        .into_iter()
                        .map(|(last, n)| (Ipv4Addr::new(10, 0, 0, last), n.map(name)))
                        .collect(),
                ),
            }
            let round = settled(&mut allocator, &wanted);
            let vips: BTreeSet<_> = round.by_name.values().collect();
            prop_assert_eq!(vips.len(), round.by_name.len());
            prop_assert!(vips.iter().all(|vip| allocator.pool.serves(**vip)));
            prop_assert!(round.by_name.keys().all(|name| wanted.contains_key(name)));
            let without = wanted.len() - round.by_name.len();
            let full = round.problems.iter().filter(|p| p.message.contains("is full")).count();
            prop_assert_eq!(without, full);
        }
    }

    #[test]
    fn with_shared_records_hosts_agree_whatever_came_first(
        numbers in proptest::collection::btree_set(0u32..60, 1..30),
        order in any::<u64>(),
    ) {
        // One host saw all at once, the other one after the other in some order.
        let all = names(numbers.clone());
        let mut one = allocator("10.0.0.0/26", Records::new());
        settled(&mut one, &all);
        let mut two = allocator("10.0.0.0/26", Records::new());
        let mut arrival: Vec<_> = numbers.into_iter().collect();
        arrival.sort_by_key(|n| u64::from(*n).wrapping_mul(order | 1).rotate_left(17));
        let mut seen = BTreeSet::new();
        for n in arrival {
            seen.insert(n);
            settled(&mut two, &names(seen.iter().copied()));
        }
        two.learn(one.records().clone());
        one.learn(two.records().clone());
        two.learn(one.records().clone());
        prop_assert_eq!(settled(&mut one, &all).by_name, settled(&mut two, &all).by_name);
    }

    #[test]
    fn what_was_given_stays_while_names_come_and_go(
        sets in proptest::collection::vec(proptest::collection::btree_set(0u32..60, 0..30), 1..20),
    ) {
        let mut allocator = allocator("10.0.0.0/24", Records::new());
        let mut ever = BTreeMap::new();
        for set in sets {
            for (name, vip) in settled(&mut allocator, &names(set)).by_name {
                prop_assert_eq!(*ever.entry(name).or_insert(vip), vip);
            }
        }
    }
}
