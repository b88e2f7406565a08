use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

fn allocator(net: &str, records: Records) -> Allocator {
    let pool = Pool::try_from(net.parse::<Ipv4Net>().unwrap()).unwrap();
    Allocator::new(pool, "dc1".to_owned(), QUARANTINE, records, BTreeMap::new())
}

const QUARANTINE: Duration = Duration::from_secs(600);
/// When the tests happen, since 1970.
const NOW: Duration = Duration::from_secs(1_000_000);

fn owner(n: u32) -> Owner {
    Owner {
        since: None,
        ..Owner::new(name(n), NOW)
    }
}

fn pin(n: u32) -> Owner {
    Owner {
        pinned: true,
        ..owner(n)
    }
}

impl Allocator {
    /// Allocates at a time that stands still.
    fn allocate_now(&mut self, names: &Names) -> Round {
        self.allocate(names, NOW)
    }

    /// Whom each address is recorded for.
    fn recorded(&self) -> BTreeMap<Ipv4Addr, Option<ServiceName>> {
        let records = self.records.iter();
        let named = records.map(|(address, owner)| (*address, owner.clone().map(|it| it.name)));
        named.collect()
    }
}

fn name(n: u32) -> ServiceName {
    ServiceName::whole(format!("s{n}"))
}

fn names(numbers: impl IntoIterator<Item = u32>) -> Names {
    numbers.into_iter().map(|n| (name(n), None)).collect()
}

/// Allocates, with every claim recorded at once as without a Consul.
fn settled(allocator: &mut Allocator, names: &Names) -> Round {
    settled_at(allocator, names, NOW)
}

fn settled_at(allocator: &mut Allocator, names: &Names, now: Duration) -> Round {
    let round = allocator.allocate(names, now);
    for (address, name) in round.claims {
        allocator.record(address, Owner::new(name, now));
    }
    let round = allocator.allocate(names, now);
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
    assert_eq!(allocator.allocate_now(&Names::new()), Round::default());
}

#[test]
fn a_name_alone_has_its_home_without_a_record() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let round = allocator.allocate_now(&names([7]));
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
    allocator.allocate_now(&names([b]));
    let round = allocator.allocate_now(&names([a, b]));
    assert_eq!(round.by_name, BTreeMap::from([(name(b), home)]));
    let next = allocator.pool.after(home);
    assert_eq!(round.claims, Claims::from([(next, name(a))]));
    allocator.record(next, owner(a));
    let round = allocator.allocate_now(&names([a, b]));
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
    assert_eq!(restarted.allocate_now(&names([b])).by_name, before);
    assert_eq!(
        restarted.allocate_now(&names([a, b])).by_name[&name(a)],
        home
    );
}

#[test]
fn a_name_that_comes_back_has_its_old_address_though_another_wanted_it() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    allocator.allocate_now(&names([b]));
    allocator.allocate_now(&names([]));
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
    allocator.allocate_now(&names([1]));
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
        let record = (Ipv4Addr::new(10, 0, 0, 9), Some(owner(50)));
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
    // Two that get none, and the pool itself.
    assert_eq!(round.problems.len(), 3);
    let text = round.problems[0].to_string();
    assert!(
        text.contains("10.0.0.0/29 is full; give a larger one"),
        "{text}"
    );
    assert!(text.contains("lb-agent vip list"), "{text}");
}

#[test]
fn nobody_else_has_the_address_of_a_service_that_left_before_its_quarantine_is_over() {
    let mut allocator = allocator("10.0.0.0/30", Records::new());
    settled(&mut allocator, &names([1]));
    let round = settled(&mut allocator, &names([2]));
    assert_eq!(round.by_name, BTreeMap::new());
    let text = round.problems[0].to_string();
    assert!(text.contains("1 of its addresses in quarantine"), "{text}");
    assert_eq!(allocator.next_end(), Some(NOW + QUARANTINE));
    let just_before = NOW + QUARANTINE - Duration::from_millis(1);
    let round = settled_at(&mut allocator, &names([2]), just_before);
    assert_eq!(round.by_name, BTreeMap::new());
    let round = settled_at(&mut allocator, &names([2]), NOW + QUARANTINE);
    assert_eq!(round.by_name.len(), 1);
    assert_eq!(allocator.next_end(), None);
}

#[test]
fn whoever_comes_back_within_the_quarantine_has_its_address_and_a_new_quarantine() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    settled(&mut allocator, &names([b]));
    settled(&mut allocator, &names([]));
    let later = NOW + QUARANTINE / 2;
    assert_eq!(
        settled_at(&mut allocator, &names([b]), later).by_name[&name(b)],
        home
    );
    settled_at(&mut allocator, &names([a]), later);
    assert_eq!(allocator.next_end(), Some(later + QUARANTINE));
    assert_ne!(
        settled_at(&mut allocator, &names([a]), NOW + QUARANTINE).by_name[&name(a)],
        home
    );
}

#[test]
fn a_quarantine_outlives_the_agent_and_a_clock_set_back_prolongs_nothing() {
    let fresh = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&fresh);
    let since = NOW + Duration::from_secs(3_600);
    let left = BTreeMap::from([(
        home,
        Left {
            name: name(b),
            since,
        },
    )]);
    let mut restarted = Allocator::new(
        fresh.pool,
        "dc1".to_owned(),
        QUARANTINE,
        Records::new(),
        left,
    );
    let round = settled(&mut restarted, &names([a]));
    assert_ne!(round.by_name[&name(a)], home);
    assert_eq!(restarted.next_end(), Some(NOW + QUARANTINE));
    assert_eq!(
        settled(&mut restarted, &names([a, b])).by_name[&name(b)],
        home
    );
}

#[test]
fn the_address_that_a_service_moved_from_is_in_quarantine_too() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    settled(&mut allocator, &names([b]));
    let elsewhere = allocator.pool.after(allocator.pool.after(home));
    allocator.record(elsewhere, pin(b));
    let round = settled(&mut allocator, &names([a, b]));
    assert_eq!(round.by_name[&name(b)], elsewhere);
    assert_ne!(round.by_name[&name(a)], home);
}

#[test]
fn a_released_pin_that_was_in_use_rests_before_another_service_has_its_address() {
    for learnt in [false, true] {
        let mut allocator = allocator("10.0.0.0/24", Records::new());
        let (a, b, home) = twins(&allocator);
        let pinned = Records::from([(home, Some(pin(300)))]);
        allocator.learn(pinned.clone(), 50, NOW);
        settled(&mut allocator, &names([300]));
        if learnt {
            // Of this host's own order, too: the store may tell of it before it has answered.
            allocator.learn(Records::new(), 51, NOW);
        }
        allocator.release(home, NOW);
        let released = settled(&mut allocator, &names([a, 300]));
        assert!(!released.by_name.values().any(|vip| *vip == home));
        assert_eq!(allocator.next_end(), Some(NOW + QUARANTINE));

        // Whoever had it may have it again at once.
        let mut again = allocator.clone();
        again.learn(pinned, 52, NOW);
        let round = settled(&mut again, &names([a, 300]));
        assert_eq!(round.by_name[&name(300)], home);
        let round = settled_at(&mut allocator, &names([a, 300, b]), NOW + QUARANTINE);
        assert_eq!(round.by_name[&name(b)], home);
    }
}

#[test]
fn a_release_ends_the_quarantine_that_was_seen_and_no_later_one() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    settled(&mut allocator, &names([b]));
    settled(&mut allocator, &names([]));
    let seen = allocator.left()[&home].clone();
    let later = NOW + Duration::from_secs(1);
    settled_at(&mut allocator, &names([b]), later);
    settled_at(&mut allocator, &names([]), later);
    allocator.end_quarantine(home, &seen);
    assert_ne!(
        settled_at(&mut allocator.clone(), &names([a]), later).by_name[&name(a)],
        home
    );
    let seen = allocator.left()[&home].clone();
    allocator.end_quarantine(home, &seen);
    assert_eq!(
        settled_at(&mut allocator, &names([a]), later).by_name[&name(a)],
        home
    );
}

#[test]
fn a_release_in_a_full_pool_leaves_the_service_where_it_was() {
    let mut allocator = allocator("10.0.0.0/29", Records::new());
    let before = settled(&mut allocator, &names(0..5)).by_name;
    let away = |(name, vip): &(&ServiceName, &Ipv4Addr)| allocator.pool.home("dc1", name) != **vip;
    let (owner, vip) = before.iter().find(away).unwrap();
    let pinned = Owner {
        pinned: true,
        ..Owner::new(owner.clone(), NOW)
    };
    allocator.record(*vip, pinned);
    assert_eq!(settled(&mut allocator, &names(0..5)).by_name, before);
    allocator.release(*vip, NOW);
    assert_eq!(settled(&mut allocator, &names(0..5)).by_name, before);
}

#[test]
fn a_record_that_only_this_host_knows_ends_with_the_quarantine_and_a_shared_one_stays() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, _) = twins(&allocator);
    settled(&mut allocator, &names([a, b]));
    let shared = Ipv4Addr::new(10, 0, 0, 200);
    allocator.learn(Records::from([(shared, Some(owner(300)))]), 5, NOW);
    settled(&mut allocator, &names([300]));
    settled(&mut allocator, &names([]));
    assert_eq!(allocator.records().len(), 2);
    settled_at(&mut allocator, &names([]), NOW + QUARANTINE);
    let left: Vec<_> = allocator.records().keys().collect();
    assert_eq!(left, [&shared]);
}

#[test]
fn a_pool_that_is_nearly_full_is_told() {
    let mut allocator = allocator("10.0.0.0/26", Records::new());
    let told = |round: &Round| {
        round
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    // Of 61 addresses.
    let round = settled(&mut allocator, &names(0..54));
    assert_eq!(told(&round), [""; 0]);
    let round = settled(&mut allocator, &names(0..55));
    let [text] = &told(&round)[..] else {
        panic!("{round:?}")
    };
    assert!(
        text.contains("VIP pool 10.0.0.0/26: 90 % of its 61 addresses"),
        "{text}"
    );
    assert!(text.contains("--pool"), "{text}");
    // Those in quarantine count: nobody can have them.
    assert_eq!(told(&settled(&mut allocator, &names(0..3))).len(), 1);
    assert_eq!(
        told(&settled_at(&mut allocator, &names(0..3), NOW + QUARANTINE)),
        [""; 0]
    );
}

#[test]
fn a_pin_wins_over_hash_record_and_wish_and_a_withdrawn_one_leads_home() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (wish, pinned) = (Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(10, 0, 0, 99));
    let home = allocator.pool.home("dc1", &name(1));
    allocator.record(Ipv4Addr::new(10, 0, 0, 33), owner(1));
    allocator.record(pinned, pin(1));
    // The former record went with the pin.
    assert_eq!(
        allocator.recorded(),
        BTreeMap::from([(pinned, Some(name(1)))])
    );
    let round = settled(&mut allocator, &Names::from([(name(1), Some(wish))]));
    assert_eq!(round.by_name[&name(1)], pinned);
    let text = round.problems[0].to_string();
    assert!(
        text.contains("an operator pinned it to 10.0.0.99"),
        "{text}"
    );
    let round = settled(&mut allocator, &Names::from([(name(1), Some(pinned))]));
    assert_eq!(round.problems, []);
    allocator.release(pinned, NOW);
    assert_eq!(settled(&mut allocator, &names([1])).by_name[&name(1)], home);
}

#[test]
fn a_pin_for_a_service_that_is_yet_to_come_keeps_its_address() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let home = allocator.pool.home("dc1", &name(1));
    allocator.record(home, pin(2));
    assert_ne!(settled(&mut allocator, &names([1])).by_name[&name(1)], home);
    settled_at(&mut allocator, &names([1]), NOW + 2 * QUARANTINE);
    assert_eq!(
        settled(&mut allocator, &names([1, 2])).by_name[&name(2)],
        home
    );
}

#[test]
fn every_address_is_listed_with_its_reason() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, _) = twins(&allocator);
    let mut wanted = names([a, b, 7]);
    let (wish, pinned) = (Ipv4Addr::new(10, 0, 0, 200), Ipv4Addr::new(10, 0, 0, 201));
    let broken = Ipv4Addr::new(10, 0, 0, 202);
    wanted.insert(name(8), Some(wish));
    allocator.record(pinned, pin(9));
    allocator.records.insert(broken, None);
    settled(&mut allocator, &wanted);
    wanted.remove(&name(7));
    settled(&mut allocator, &wanted);
    let listed = allocator.list(&wanted).into_iter();
    let mut listed: Vec<_> = listed
        .map(|it| (it.how, it.in_use, it.service, it.until_unix.is_some()))
        .collect();
    listed.sort_by_key(|(how, ..)| how.as_str());
    let of = |n: u32| Some(format!("s{n}"));
    assert_eq!(
        listed,
        [
            (How::Hash, true, of(a), false),
            (How::Pin, false, of(9), false),
            (How::Quarantine, false, of(7), true),
            (How::Record, true, of(b), false),
            (How::Unreadable, false, None, false),
            (How::Wish, true, of(8), false),
        ]
    );
}

#[test]
fn what_another_host_released_is_forgotten_and_what_a_wiped_store_lost_is_not() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let address = Ipv4Addr::new(10, 0, 0, 99);
    let home = allocator.pool.home("dc1", &name(1));
    let shared = Records::from([(address, Some(pin(1)))]);
    allocator.learn(shared.clone(), 50, NOW);
    assert_eq!(
        settled(&mut allocator, &names([1])).by_name[&name(1)],
        address
    );
    allocator.learn(Records::new(), 12, NOW);
    assert_eq!(
        settled(&mut allocator, &names([1])).by_name[&name(1)],
        address
    );
    assert_eq!(allocator.unshared(&names([1])).len(), 1);
    allocator.learn(shared, 14, NOW);
    allocator.learn(Records::new(), 15, NOW);
    assert_eq!(settled(&mut allocator, &names([1])).by_name[&name(1)], home);
    assert_eq!(allocator.unshared(&names([1])).len(), 0);
}

#[test]
fn shared_records_win_over_what_a_host_gave_by_itself() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, home) = twins(&allocator);
    settled(&mut allocator, &names([a, b]));
    let other_host = Records::from([
        (Ipv4Addr::new(10, 0, 0, 200), Some(owner(a))),
        (home, Some(owner(b))),
    ]);
    allocator.learn(other_host, 1, NOW);
    let round = allocator.allocate_now(&names([a, b]));
    assert_eq!(round.by_name[&name(b)], home);
    assert_eq!(round.by_name[&name(a)], Ipv4Addr::new(10, 0, 0, 200));
    assert_eq!(allocator.unshared(&names([a, b])), BTreeMap::new());
    let expect = BTreeMap::from([
        (Ipv4Addr::new(10, 0, 0, 200), Some(name(a))),
        (home, Some(name(b))),
    ]);
    assert_eq!(allocator.recorded(), expect);
}

#[test]
fn records_that_the_store_lost_are_kept_and_offered_again() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, _) = twins(&allocator);
    let before = settled(&mut allocator, &names([a, b])).by_name;
    allocator.learn(allocator.records().clone(), 90, NOW);
    allocator.learn(Records::new(), 10, NOW);
    assert_eq!(allocator.allocate_now(&names([a, b])).by_name, before);
    assert_eq!(allocator.unshared(&names([a, b])).len(), 1);
    assert_eq!(allocator.unshared(&names([])).len(), 0);
}

#[test]
fn a_record_that_cannot_be_read_blocks_its_address_and_nothing_else() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let home = allocator.pool.home("dc1", &name(1));
    allocator.learn(Records::from([(home, None)]), 1, NOW);
    let round = settled(&mut allocator, &names([1, 2]));
    assert_eq!(round.by_name[&name(1)], allocator.pool.after(home));
    assert!(
        round.problems[0]
            .message
            .contains("deletes the key lb-agent/vip/")
    );
    allocator.learn(Records::new(), 2, NOW);
    assert_eq!(allocator.allocate_now(&names([1, 2])).problems, []);
}

#[test]
fn since_when_the_store_has_a_record_is_kept_until_the_store_begins_anew() {
    let address = Ipv4Addr::new(10, 0, 0, 99);
    let shared = Records::from([(address, Some(pin(1)))]);
    let seen = |allocator: &Allocator| allocator.records()[&address].clone().unwrap().seen;
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    allocator.learn(shared.clone(), 50, NOW);
    allocator.learn(shared.clone(), 60, NOW);
    assert_eq!(seen(&allocator), Some(50));
    // The pin that an operator of this host orders again is the one that the store has told of.
    allocator.record(address, pin(1));
    assert_eq!(seen(&allocator), Some(50));
    // Another one is not.
    let mut other = allocator.clone();
    other.record(address, pin(2));
    assert_eq!(seen(&other), None);
    allocator.learn(shared, 12, NOW);
    assert_eq!(seen(&allocator), Some(12));
}

#[test]
fn what_lies_beyond_the_pool_is_neither_given_nor_offered_to_others() {
    let beyond = Ipv4Addr::new(10, 0, 1, 7);
    let left = Left {
        name: name(3),
        since: NOW,
    };
    let records = Records::from([(beyond, Some(owner(1)))]);
    let pool = Pool::try_from("10.0.0.0/24".parse::<Ipv4Net>().unwrap()).unwrap();
    let left = BTreeMap::from([(beyond, left)]);
    let mut allocator = Allocator::new(pool, "dc1".to_owned(), QUARANTINE, records, left);
    assert_eq!(allocator.left(), &BTreeMap::new());
    let round = settled(&mut allocator, &names([1]));
    assert_eq!(round.by_name[&name(1)], pool.home("dc1", &name(1)));
    assert_eq!(allocator.unshared(&names([1])), BTreeMap::new());
}

#[test]
fn a_pin_that_only_this_host_knows_outlives_the_quarantine_of_its_service() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let pinned = Ipv4Addr::new(10, 0, 0, 99);
    allocator.record(pinned, pin(1));
    settled(&mut allocator, &names([1]));
    settled(&mut allocator, &names([]));
    settled_at(&mut allocator, &names([]), NOW + QUARANTINE);
    let expected = BTreeMap::from([(pinned, Some(name(1)))]);
    assert_eq!(allocator.recorded(), expected);
}

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
