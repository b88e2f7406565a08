//! Whatever happens to an allocator.

use super::*;

/// What happens to an allocator.
#[derive(Clone, Debug)]
enum Happening {
    Wanted(BTreeSet<u32>),
    Wished(u32, u8),
    Learnt(Vec<(u8, Option<u32>)>),
    Pinned(u32, u8),
    Released(u8),
    Passed(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => proptest::collection::btree_set(0u32..40, 0..20).prop_map(Happening::Wanted),
        1 => (0u32..40, any::<u8>()).prop_map(|(n, last)| Happening::Wished(n, last)),
        1 => proptest::collection::vec((any::<u8>(), proptest::option::of(0u32..40)), 0..6)
            .prop_map(Happening::Learnt),
        1 => (0u32..40, any::<u8>()).prop_map(|(n, last)| Happening::Pinned(n, last)),
        1 => any::<u8>().prop_map(Happening::Released),
        1 => (0u16..700).prop_map(Happening::Passed),
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
        let (mut now, mut index) = (NOW, 0);
        for happening in happenings {
            match happening {
                Happening::Pinned(n, last) => {
                    allocator.record(Ipv4Addr::new(10, 0, 0, last), pin(n));
                }
                Happening::Released(last) => allocator.release(Ipv4Addr::new(10, 0, 0, last), now),
                Happening::Passed(seconds) => now += Duration::from_secs(seconds.into()),
                Happening::Wanted(numbers) => wanted = names(numbers),
                Happening::Wished(n, last) => {
                    wanted.insert(name(n), Some(Ipv4Addr::new(10, 0, 0, last)));
                }
                Happening::Learnt(records) => {
                    index += 1;
                    let records = records.into_iter();
                    let records = records
                        .map(|(last, n)| (Ipv4Addr::new(10, 0, 0, last), n.map(owner)));
                    allocator.learn(records.collect(), index, now);
                }
            }
            let round = settled_at(&mut allocator, &wanted, now);
            let listed: BTreeSet<_> = allocator.list(&wanted).iter().map(|it| it.address).collect();
            prop_assert!(round.by_name.values().all(|vip| listed.contains(vip)));
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
        two.learn(one.records().clone(), 1, NOW);
        one.learn(two.records().clone(), 2, NOW);
        two.learn(one.records().clone(), 3, NOW);
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
