mod happenings;
mod listed;
mod quarantine;
mod records;

use std::sync::Arc;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;
use crate::vip::Wanted;

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
        self.allocate(&Wanted::all(names.clone()), NOW)
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
    let wanted = Wanted::all(names.clone());
    let round = allocator.allocate(&wanted, now);
    for (address, name) in round.claims {
        allocator.record(address, Owner::new(name, now));
    }
    let round = allocator.allocate(&wanted, now);
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
