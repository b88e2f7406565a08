//! Who is probed and who is not any more, and what is said of both.

use std::sync::Arc;

use super::*;

#[test]
fn targets_that_stay_keep_their_state() {
    let mut world = World::new(&[tcp(1), tcp(2)]);
    for _ in 0..2 {
        for job in world.due() {
            world.finish(job, true);
        }
        world.pass(HURRY);
    }
    world.follow(&[tcp(2), tcp(3)]);
    assert_eq!(world.state(&tcp(2)), ProbeState::Up);
    assert_eq!(world.state(&tcp(3)), ProbeState::Starting);
    assert_eq!(world.verdict(&tcp(1)), None);
    assert_eq!(world.job().target, tcp(3));
}

#[test]
fn the_result_of_a_target_that_left_and_came_back_is_not_believed() {
    let mut world = World::new(&[tcp(1)]);
    let old = world.job();
    world.follow(&[]);
    world.finish(old.clone(), true);
    world.follow(&[tcp(1)]);
    let fresh = world.job();
    world.finish(old, false);
    world.finish(fresh, true);
    assert_eq!(world.probe(true), HURRY);
    assert_eq!(world.state(&tcp(1)), ProbeState::Up);
}

#[test]
fn a_target_that_is_not_probed_is_counted_and_never_due() {
    let off = (tcp(1).0, CheckKind::Off);
    let mut world = World::new(&[off.clone(), off.clone()]);
    assert_eq!(world.verdict(&off), None);
    assert_eq!(world.roster.states().off, 1);
    world.roster.wait_for_starting();
    assert!(!world.roster.is_waiting());
    assert_eq!(world.roster.next_due(), None);
    // Another service still has it.
    world.follow(std::slice::from_ref(&off));
    assert_eq!(world.roster.states().off, 1);
    world.follow(&[]);
    assert_eq!(world.roster.states(), States::default());
}

#[test]
fn a_target_of_two_services_is_probed_once_and_until_both_have_left() {
    let mut world = World::new(&[tcp(1), tcp(1)]);
    assert_eq!(world.due().len(), 1);
    world.follow(&[tcp(1)]);
    assert_eq!(world.state(&tcp(1)), ProbeState::Starting);
    world.follow(&[]);
    assert_eq!(world.verdict(&tcp(1)), None);
}

#[test]
fn who_left_without_a_verdict_is_not_waited_for() {
    let mut world = World::new(&[tcp(1), tcp(2)]);
    world.roster.wait_for_starting();
    for job in world.due() {
        world.finish(job, true);
    }
    world.follow(&[tcp(2), tcp(3)]);
    assert!(world.roster.is_waiting());
    world.follow(&[tcp(3)]);
    assert!(!world.roster.is_waiting());
}

#[test]
fn that_a_target_left_is_news_and_nothing_is_said_of_it_any_more() {
    let mut world = World::new(&[tcp(1), tcp(2)]);
    world.roster.report();
    world.follow(&[tcp(2)]);
    assert_eq!(world.roster.news(), News::Verdicts);
    assert_eq!(world.verdict(&tcp(1)), None);
    assert!(world.verdict(&tcp(2)).is_some());
    // Who is listed by another service still is told of.
    world.roster.list(tcp(2), None, world.now);
    world.roster.unlist(&tcp(2), None);
    assert_eq!(world.roster.news(), News::None);
}

#[test]
fn another_container_at_the_same_address_begins_anew() {
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let mut world = World::new(&[]);
    let (address, check) = tcp(1);
    world.roster.list(tcp(1), Some(&a), world.now);
    world.probe(true);
    world.probe(true);
    let on = |world: &mut World, container: &str| {
        let verdicts = world.roster.report();
        let probe = verdicts.on(address, &check, Some(container));
        probe.map(|it| it.state)
    };
    assert_eq!(on(&mut world, "a"), Some(ProbeState::Up));
    assert_eq!(on(&mut world, "b"), None);
    // A part of its service is the same container.
    world.roster.list(tcp(1), Some(&a), world.now);
    world.roster.unlist(&tcp(1), Some(&a));
    world.pass(INTERVAL * 2);
    let of_the_former = world.job();
    world.roster.list(tcp(1), Some(&b), world.now);
    world.roster.unlist(&tcp(1), Some(&a));
    assert_eq!(world.roster.news(), News::Verdicts);
    assert_eq!(on(&mut world, "a"), None);
    assert_eq!(on(&mut world, "b"), Some(ProbeState::Starting));
    assert_eq!(
        world.roster.states(),
        States {
            starting: 1,
            ..States::default()
        }
    );
    world.finish(of_the_former, true);
    assert_eq!(world.probe(true), Duration::ZERO);
    assert_eq!(on(&mut world, "b"), Some(ProbeState::Starting));
    world.probe(true);
    assert_eq!(on(&mut world, "b"), Some(ProbeState::Up));
    // Who tells no container is no other one.
    world.roster.list(tcp(1), None, world.now);
    world.roster.unlist(&tcp(1), Some(&b));
    assert_eq!(on(&mut world, "b"), Some(ProbeState::Up));
    world.roster.unlist(&tcp(1), None);
    assert_eq!(on(&mut world, "b"), None);
}
