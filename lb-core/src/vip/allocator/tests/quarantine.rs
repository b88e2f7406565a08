//! How long the address of a service that left rests, and what ends that.

use super::*;

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

#[test]
fn nothing_ends_before_it_is_known_who_has_left() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, _) = twins(&allocator);
    let before = settled(&mut allocator, &names([a, b]));
    settled(&mut allocator, &names([]));
    let (left, recorded) = (allocator.left().clone(), allocator.recorded());
    assert_eq!((left.len(), recorded.len()), (2, 1));
    // A source has been away for longer than that.
    let mut wanted = Wanted {
        names: Arc::new(names([b])),
        answered: false,
    };
    let later = NOW + 2 * QUARANTINE;
    let round = allocator.allocate(&wanted, later);
    assert_eq!(round.by_name[&name(b)], before.by_name[&name(b)]);
    assert_eq!(
        (allocator.left().len(), allocator.recorded()),
        (1, recorded)
    );
    // It answers: who is there has what it had, whoever came first.
    wanted = Wanted::all(names([a, b]));
    let round = allocator.clone().allocate(&wanted, later);
    assert_eq!(round.by_name, before.by_name);
    wanted = Wanted::all(names([]));
    allocator.allocate(&wanted, later);
    let rests: Vec<_> = allocator
        .left()
        .values()
        .map(|it| it.name.clone())
        .collect();
    assert_eq!(rests, [name(b)]);
}
