//! Records that hosts share: which win, which are kept, and which are offered again.

use super::*;

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
