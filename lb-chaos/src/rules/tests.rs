use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Moment {
    Moment(seconds * 1_000_000_000)
}

/// Two services, two backends each.
fn history() -> History {
    let mut history = History::of(2);
    for (id, service) in [("a", "www"), ("b", "www"), ("c", "api"), ("d", "api")] {
        history.backend(id, service);
    }
    history
}

fn tried(begun: u64, ended: u64, outcome: Outcome) -> Try {
    Try {
        service: "www".to_owned(),
        begun: at(begun),
        ended: at(ended),
        outcome,
    }
}

fn reached(begun: u64, id: &str) -> Seen {
    Seen::Connect(tried(begun, begun + 1, Outcome::Reached(id.to_owned())))
}

fn failed(begun: u64, ended: u64) -> [Seen; 2] {
    let it = tried(begun, ended, Outcome::Failed("refused".to_owned()));
    [Seen::Connect(it.clone()), Seen::Request(it)]
}

fn broken(opened: u64, ended: u64) -> Seen {
    Seen::Broken {
        service: "www".to_owned(),
        backend: "a".to_owned(),
        opened: at(opened),
        ended: at(ended),
        why: "reset".to_owned(),
    }
}

fn verdict(history: &History, seen: &Seen) -> Option<Invariant> {
    judge(history, 0, seen).map(|it| it.invariant)
}

#[test]
fn a_removed_backend_may_be_reached_until_the_deadline() {
    let mut history = history();
    history.removed("a", at(10));
    assert_eq!(verdict(&history, &reached(9, "a")), None);
    assert_eq!(verdict(&history, &reached(20, "a")), None);
    let late = Some(Invariant::RemovedIsNotReached);
    assert_eq!(verdict(&history, &reached(21, "a")), late);
    assert_eq!(verdict(&history, &reached(21, "b")), None);
    history.returned("a", at(22));
    assert_eq!(
        verdict(&history, &reached(21, "a")),
        late,
        "it was over before"
    );
    assert_eq!(verdict(&history, &reached(22, "a")), None);
}

#[test]
fn a_blind_host_may_reach_a_removed_backend_and_others_may_not() {
    let mut history = history();
    history.blind(0, at(5));
    history.removed("a", at(10));
    let seen = reached(60, "a");
    assert_eq!(judge(&history, 0, &seen), None);
    assert!(judge(&history, 1, &seen).is_some());
    history.calm(0, at(100));
    assert_eq!(judge(&history, 0, &seen), None);
    assert_eq!(judge(&history, 0, &reached(101, "a")), None);
    assert!(judge(&history, 0, &reached(102, "a")).is_some());
}

#[test]
fn who_is_of_another_service_or_unknown_may_never_be_reached() {
    let wrong = Some(Invariant::RightService);
    for id in ["c", "", "nobody"] {
        assert_eq!(verdict(&history(), &reached(5, id)), wrong, "{id:?}");
        let Seen::Connect(request) = reached(5, id) else {
            unreachable!("it is a connect")
        };
        assert_eq!(verdict(&history(), &Seen::Request(request)), wrong);
    }
    let mut history = history();
    history.down("c", at(1));
    let of_another = Seen::Broken {
        service: "www".to_owned(),
        backend: "c".to_owned(),
        opened: at(1),
        ended: at(2),
        why: "reset".to_owned(),
    };
    assert_eq!(verdict(&history, &of_another), wrong);
}

#[test]
fn without_a_cause_nothing_may_fail() {
    let [connect, request] = failed(5, 6);
    assert_eq!(
        verdict(&history(), &connect),
        Some(Invariant::ConnectIsServed)
    );
    assert_eq!(
        verdict(&history(), &request),
        Some(Invariant::RequestIsServed)
    );
    assert_eq!(
        verdict(&history(), &broken(1, 5)),
        Some(Invariant::FlowLivesOn)
    );
}

#[test]
fn removing_a_backend_excuses_no_failure() {
    let mut history = history();
    history.removed("a", at(5));
    for seen in failed(5, 6) {
        assert!(judge(&history, 0, &seen).is_some(), "{seen:?}");
    }
}

#[test]
fn a_backend_that_ended_excuses_connects_until_it_must_be_heeded_and_requests_that_were_under_way()
{
    let mut history = history();
    history.down("a", at(10));
    let [connect, request] = failed(9, 11);
    assert_eq!(verdict(&history, &connect), None);
    assert_eq!(verdict(&history, &request), None);
    let [connect, request] = failed(12, 13);
    assert_eq!(verdict(&history, &connect), None);
    assert!(
        verdict(&history, &request).is_some(),
        "the front tries another one"
    );
    let [connect, _] = failed(21, 22);
    assert!(verdict(&history, &connect).is_some(), "it had to be known");
    assert_eq!(verdict(&history, &broken(1, 12)), None);
}

#[test]
fn what_somebody_else_ends_excuses_requests_until_it_has_ended() {
    let mut history = history();
    history.ending("a", at(10));
    let during = failed(12, 13);
    assert_eq!(during.each_ref().map(|it| verdict(&history, it)), [None; 2]);
    history.ended("a", at(14));
    let [connect, request] = failed(15, 16);
    assert_eq!(verdict(&history, &connect), None, "not heeded yet");
    assert!(
        verdict(&history, &request).is_some(),
        "nothing was under way"
    );
    history.up("a", at(20));
    assert_eq!(history.usable().len(), 4);
    assert!(verdict(&history, &failed(21, 22)[0]).is_some());
}

#[test]
fn a_backend_of_another_service_excuses_nothing() {
    let mut history = history();
    history.down("c", at(5));
    for seen in failed(5, 6) {
        assert!(judge(&history, 0, &seen).is_some(), "{seen:?}");
    }
}

#[test]
fn without_a_usable_backend_everything_may_fail() {
    let mut history = history();
    history.down("a", at(1));
    history.removed("b", at(1));
    for seen in failed(50, 51) {
        assert_eq!(judge(&history, 0, &seen), None);
    }
}

#[test]
fn a_lost_way_and_a_lost_front_excuse_their_own_host_only() {
    let mut history = history();
    history.severed(0, "a", at(5));
    history.frontless(1, at(5));
    let [connect, request] = failed(6, 7);
    assert_eq!(judge(&history, 0, &connect), None);
    assert_eq!(judge(&history, 0, &request), None);
    assert!(judge(&history, 1, &connect).is_some());
    assert_eq!(judge(&history, 1, &request), None);
    assert_eq!(judge(&history, 0, &broken(1, 9)), None);
    assert!(judge(&history, 1, &broken(1, 9)).is_some());
}

#[test]
fn a_host_without_ports_loses_what_is_new_and_no_flow() {
    let mut history = history();
    history.portless(0, at(5));
    history.ported(0, at(8));
    for seen in failed(6, 7) {
        assert_eq!(judge(&history, 0, &seen), None);
        assert!(judge(&history, 1, &seen).is_some());
    }
    assert!(judge(&history, 0, &failed(9, 10)[0]).is_some());
    assert!(judge(&history, 0, &broken(1, 7)).is_some());
}

#[test]
fn hosts_that_disagree_about_a_vip_are_named() {
    let vips = |last| BTreeMap::from([("www".to_owned(), Ipv4Addr::new(198, 18, 0, last))]);
    assert_eq!(compare_vips(at(1), &[(0, vips(7)), (1, vips(7))]), []);
    assert_eq!(
        compare_vips(at(1), &[(0, vips(7)), (1, BTreeMap::new())]),
        []
    );
    let found = compare_vips(at(1), &[(0, vips(7)), (1, vips(8))]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].host, Some(1));
}

proptest! {
    /// Whatever happened, what a client saw before it is judged as if it had not.
    #[test]
    fn what_comes_later_excuses_nothing(begun in 0_u64..50, lasts in 0_u64..5, what in 0..4) {
        let mut history = history();
        let later = at(begun + lasts + 1);
        match what {
            0 => history.down("a", later),
            1 => history.severed(0, "a", later),
            2 => history.frontless(0, later),
            _ => history.removed("a", later),
        }
        for seen in failed(begun, begun + lasts) {
            prop_assert!(judge(&history, 0, &seen).is_some());
        }
        prop_assert!(judge(&history, 0, &broken(begun, begun + lasts)).is_some());
    }

    /// A backend that was never removed may always be reached.
    #[test]
    fn who_is_registered_may_be_reached(begun in 0_u64..200, blind in 0_u64..100) {
        let mut history = history();
        history.removed("b", at(5));
        history.blind(0, at(blind));
        prop_assert_eq!(judge(&history, 0, &reached(begun, "a")), None);
    }
}
