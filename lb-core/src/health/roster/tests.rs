use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use proptest::{collection, prelude::*};

use super::{
    super::queue::DOWN_AT_ONCE, Config, HURRY, Job, News, Now, Outcome, Roster, States, Target,
};
use crate::{
    options::CheckKind,
    snapshot::{Probe, ProbeState},
};

/// A roster and a clock that only the test moves.
struct World {
    roster: Roster,
    now: Now,
    /// What was listed last.
    listed: Vec<Target>,
}

impl World {
    fn new(targets: &[Target]) -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        };
        let mut world = Self {
            roster: Roster::new(Config::default()),
            now,
            listed: Vec::new(),
        };
        world.follow(targets);
        world
    }

    /// Lists `targets`, and no others any more.
    fn follow(&mut self, targets: &[Target]) {
        for target in targets {
            self.roster.list(target.clone(), None, self.now);
        }
        for target in std::mem::replace(&mut self.listed, targets.to_vec()) {
            self.roster.unlist(&target, None);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time;
    }

    fn due(&mut self) -> Vec<Job> {
        self.roster.due(self.now.instant, usize::MAX)
    }

    /// The one probe that is due.
    #[track_caller]
    fn job(&mut self) -> Job {
        let mut jobs = self.due();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    fn finish(&mut self, job: Job, passed: bool) {
        let outcome = if passed {
            Outcome::Passed(Duration::from_millis(1))
        } else {
            Outcome::Failed("refused".to_owned())
        };
        self.roster.finished(job, outcome, self.now, 100);
    }

    /// Waits for the next probe and ends it; how long it waited.
    #[track_caller]
    fn probe(&mut self, passed: bool) -> Duration {
        let due = self.roster.next_due().expect("a probe is queued");
        let waited = due.saturating_duration_since(self.now.instant);
        self.pass(waited);
        let job = self.job();
        self.finish(job, passed);
        waited
    }

    fn state(&mut self, target: &Target) -> ProbeState {
        self.verdict(target).unwrap().state
    }

    fn verdict(&mut self, target: &Target) -> Option<Probe> {
        self.roster.report().of(target.0, &target.1).cloned()
    }
}

fn tcp(last: u8) -> Target {
    (SocketAddr::from(([10, 0, 0, last], 80)), CheckKind::Tcp)
}

const INTERVAL: Duration = Duration::from_secs(2);

#[test]
fn a_new_target_is_probed_at_once_and_up_within_a_tenth_of_a_second() {
    let mut world = World::new(&[tcp(1)]);
    world.roster.wait_for_starting();
    assert!(world.roster.is_waiting());
    assert_eq!(world.probe(true), Duration::ZERO);
    assert_eq!(world.state(&tcp(1)), ProbeState::Starting);
    assert_eq!(world.probe(true), HURRY);
    assert_eq!(world.state(&tcp(1)), ProbeState::Up);
    assert!(!world.roster.is_waiting());
    assert_eq!(world.probe(true), INTERVAL);
}

#[test]
fn a_failing_target_is_probed_rapidly_until_it_is_down() {
    let mut world = World::new(&[tcp(1)]);
    world.probe(true);
    world.probe(true);
    assert_eq!(world.probe(false), INTERVAL);
    assert_eq!(world.probe(false), HURRY);
    assert_eq!(world.state(&tcp(1)), ProbeState::Up);
    assert_eq!(world.probe(false), HURRY);
    assert_eq!(world.state(&tcp(1)), ProbeState::Down);
    assert_eq!(world.probe(true), INTERVAL);
    assert_eq!(world.probe(true), HURRY);
    assert_eq!(world.state(&tcp(1)), ProbeState::Up);
}

#[test]
fn a_suspect_is_probed_at_once_but_not_more_often_than_ten_times_a_second() {
    let mut world = World::new(&[tcp(1), tcp(2)]);
    for _ in 0..4 {
        let due = world.roster.next_due().unwrap();
        world.pass(due.saturating_duration_since(world.now.instant));
        for job in world.due() {
            world.finish(job, true);
        }
    }
    world.pass(HURRY);
    world.roster.suspect(tcp(1).0, world.now.instant);
    let job = world.job();
    assert_eq!(job.target, tcp(1));
    world.finish(job, true);
    // It answers, and is suspected again at once.
    world.roster.suspect(tcp(1).0, world.now.instant);
    assert_eq!(world.due().len(), 0);
    assert_eq!(world.probe(false), HURRY);
}

#[test]
fn a_target_suspected_during_its_probe_is_probed_again_soon() {
    let mut world = World::new(&[tcp(1)]);
    world.probe(true);
    world.probe(true);
    world.pass(INTERVAL);
    let job = world.job();
    world.roster.suspect(tcp(1).0, world.now.instant);
    world.finish(job, true);
    assert_eq!(world.probe(true), HURRY);
    assert_eq!(world.probe(true), INTERVAL);
}

#[test]
fn every_check_of_a_suspected_address_is_probed() {
    let address = tcp(1).0;
    let http = (address, CheckKind::Http("/".to_owned()));
    let mut world = World::new(&[tcp(1), http, (address, CheckKind::Off), tcp(2)]);
    for _ in 0..2 {
        for job in world.due() {
            world.finish(job, true);
        }
        world.pass(HURRY);
    }
    world.roster.suspect(address, world.now.instant);
    assert_eq!(world.due().len(), 2);
}

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
fn a_target_is_counted_by_the_state_that_it_has() {
    let mut world = World::new(&[tcp(1)]);
    let starting = States {
        starting: 1,
        ..States::default()
    };
    assert_eq!(world.roster.states(), starting);
    world.probe(true);
    world.probe(true);
    let up = States {
        up: 1,
        ..States::default()
    };
    assert_eq!(world.roster.states(), up);
    for _ in 0..3 {
        world.probe(false);
    }
    let down = States {
        down: 1,
        ..States::default()
    };
    assert_eq!(world.roster.states(), down);
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
fn what_this_host_cannot_ask_changes_no_verdict() {
    let mut world = World::new(&[tcp(1)]);
    world.probe(true);
    world.probe(true);
    for _ in 0..5 {
        world.pass(INTERVAL);
        let job = world.job();
        let unable = Outcome::Unable("no descriptor".to_owned());
        world.roster.finished(job, unable, world.now, 100);
    }
    assert_eq!(world.state(&tcp(1)), ProbeState::Up);
    let error = world.verdict(&tcp(1)).unwrap().error;
    assert_eq!(error.as_deref(), Some("no descriptor"));
}

#[test]
fn the_time_of_a_verdict_is_when_it_changed() {
    let mut world = World::new(&[tcp(1)]);
    world.probe(true);
    world.probe(true);
    let since = world.now.wall;
    world.probe(true);
    assert_eq!(world.verdict(&tcp(1)).unwrap().since, since);
}

#[test]
fn a_slower_answer_is_a_detail_and_a_new_error_is_news() {
    let mut world = World::new(&[tcp(1)]);
    world.probe(true);
    world.probe(true);
    assert_eq!(world.roster.news(), News::Verdicts);
    world.roster.report();
    assert_eq!(world.roster.news(), News::None);
    world.probe(true);
    assert_eq!(world.roster.news(), News::Details);
    world.probe(false);
    assert_eq!(world.roster.news(), News::Verdicts);
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

#[test]
fn no_more_probes_start_than_there_is_room_for() {
    let targets: Vec<Target> = (0..10).map(tcp).collect();
    let mut world = World::new(&targets);
    assert_eq!(world.roster.due(world.now.instant, 4).len(), 4);
    assert_eq!(world.roster.due(world.now.instant, 0).len(), 0);
    assert_eq!(world.roster.due(world.now.instant, 100).len(), 6);
    assert_eq!(world.roster.next_due(), None);
}

#[test]
fn targets_that_are_down_leave_half_of_the_places_to_the_others() {
    let wide = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let address = SocketAddr::from(([10, 1, high, low], 80));
        (address, CheckKind::Tcp)
    };
    let gone: Vec<Target> = (0..1_000).map(wide).collect();
    let mut world = World::new(&gone);
    // Until they are judged they are as good as others.
    for _ in 0..3 {
        let jobs = world.due();
        assert_eq!(jobs.len(), gone.len());
        for job in jobs {
            world.finish(job, false);
        }
        world.pass(HURRY);
    }
    assert_eq!(world.roster.states().down, gone.len());
    world.pass(INTERVAL * 2);
    let mut under_way = world.due();
    assert_eq!(under_way.len(), DOWN_AT_ONCE);
    // Nor is there anything to wake up for, however many of them are due.
    assert_eq!(world.roster.next_due(), None);
    let with_others = [&gone[..], &[tcp(1), tcp(2)]].concat();
    world.follow(&with_others);
    assert_eq!(world.due().len(), 2);
    world.finish(under_way.remove(0), false);
    assert!(world.roster.next_due().is_some());
    assert_eq!(world.due().len(), 1);
    // The places of those that leave are free when their probes have ended.
    world.follow(&[]);
    for job in under_way {
        world.finish(job, false);
    }
    world.follow(&gone[..2]);
    assert_eq!(world.due().len(), 2);
}

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
