//! Whatever happens, in whatever order, every target has its turn.

use std::collections::BTreeSet;

use proptest::{collection, prelude::*};

use super::*;

/// One thing that may happen to a roster.
#[derive(Clone, Debug)]
enum Step {
    Follow(BTreeSet<u8>),
    Start(usize),
    Finish(usize, bool),
    Suspect(u8),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        collection::btree_set(0u8..6, 0..6).prop_map(Step::Follow),
        (0usize..4).prop_map(Step::Start),
        (0usize..8, any::<bool>()).prop_map(|(at, passed)| Step::Finish(at, passed)),
        (0u8..8).prop_map(Step::Suspect),
        any::<u16>().prop_map(Step::Pass),
    ]
}

proptest! {
    /// No target is lost: each is in flight, or queued exactly once.
    #[test]
    fn every_target_has_its_turn(steps in collection::vec(step(), 0..60)) {
        let mut world = World::new(&[]);
        let mut flying: Vec<Job> = Vec::new();
        for step in steps {
            match step {
                Step::Follow(last) => {
                    let targets: Vec<Target> = last.into_iter().map(tcp).collect();
                    world.follow(&targets);
                }
                Step::Start(room) => flying.extend(world.roster.due(world.now.instant, room)),
                Step::Finish(at, passed) if at < flying.len() => {
                    let job = flying.remove(at);
                    world.finish(job, passed);
                }
                Step::Finish(..) => {}
                Step::Suspect(last) => world.roster.suspect(tcp(last).0, world.now.instant),
                Step::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds.into())),
            }
            let queued: Vec<&Target> = world.roster.queue.iter().map(|(_, it)| it).collect();
            for target in world.roster.entries.keys() {
                let waits = queued.iter().filter(|it| **it == target).count();
                let flies = flying.iter().any(|job| job.target == *target);
                prop_assert!(waits == 1 || (waits == 0 && flies), "{target:?}");
            }
            let states = world.roster.states();
            let known = states.starting + states.up + states.down;
            prop_assert_eq!(known, world.roster.entries.len());
            prop_assert_eq!(world.roster.verdicts.iter().count(), known);
            prop_assert!(queued.iter().all(|it| world.roster.entries.contains_key(*it)));
        }
    }
}
