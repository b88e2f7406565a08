mod happenings;
mod listing;

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use super::{
    super::queue::DOWN_AT_ONCE, Config, HURRY, Job, News, Now, Outcome, Roster, States, Target,
    UNABLE_AT_MOST,
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
fn a_host_that_cannot_ask_is_waited_for_only_so_long() {
    let mut world = World::new(&[tcp(1)]);
    world.roster.wait_for_starting();
    let ask = |world: &mut World| {
        let job = world.job();
        let unable = Outcome::Unable("no descriptor".to_owned());
        world.roster.finished(job, unable, world.now, 100);
    };
    ask(&mut world);
    world.pass(UNABLE_AT_MOST / 2);
    // Here it could: what was before counts no more.
    let job = world.job();
    world.finish(job, true);
    world.pass(UNABLE_AT_MOST / 2);
    ask(&mut world);
    world.pass(UNABLE_AT_MOST - HURRY);
    ask(&mut world);
    assert!(world.roster.is_waiting());
    world.pass(HURRY);
    ask(&mut world);
    assert!(!world.roster.is_waiting());
    assert_eq!(world.state(&tcp(1)), ProbeState::Starting);
    // The first verdict all the same, and nobody is counted twice.
    world.probe(true);
    assert_eq!(world.state(&tcp(1)), ProbeState::Up);
    assert!(!world.roster.is_waiting());
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
