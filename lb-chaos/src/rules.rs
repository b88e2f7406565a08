//! What must hold, and whether what a client saw agrees with it. Pure.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use crate::{
    event::{Outcome, Seen, Try},
    history::History,
    moment::Moment,
};

/// What must hold whatever fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No connect and no request reaches a backend that was taken out, after the deadline.
    RemovedIsNotReached,
    /// A new flow is served as long as one backend is usable.
    ConnectIsServed,
    /// A request through the front is served as long as one backend is usable.
    RequestIsServed,
    /// No established flow ends while its backend lives and is registered.
    FlowLivesOn,
    /// A service has the same VIP on every host, and keeps it.
    VipsAreEqual,
    /// After a fault has ended every host knows all there is.
    HostRecovers,
    /// No process of ours panics.
    NobodyPanics,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RemovedIsNotReached => "no flow reaches a removed backend after the deadline",
            Self::ConnectIsServed => "no connect fails while one backend is usable",
            Self::RequestIsServed => "no request of the front fails while one backend is usable",
            Self::FlowLivesOn => "no established flow is broken by the control plane",
            Self::VipsAreEqual => "VIPs are equal on all hosts, and stay",
            Self::HostRecovers => "a host recovers when the fault is over",
            Self::NobodyPanics => "no process panics",
        })
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What does not hold.
    pub invariant: Invariant,
    /// On which host, if it is about one.
    pub host: Option<usize>,
    /// When it was seen.
    pub at: Moment,
    /// What was seen.
    pub what: String,
}

/// Judges what a client on `host` saw.
pub fn judge(history: &History, host: usize, seen: &Seen) -> Option<Violation> {
    let violation = |invariant, at, what: String| Violation {
        invariant,
        host: Some(host),
        at,
        what,
    };
    match seen {
        Seen::Echo => None,
        Seen::Connect(it) | Seen::Request(it) => match &it.outcome {
            Outcome::Reached(backend) => {
                let removed = reached_a_removed(history, host, it, backend)?;
                let kind = kind(seen);
                let late = it.begun.since(removed).as_secs_f64();
                let what = format!(
                    "a {kind} for {} reached {backend}, {late:.3} s after it was removed",
                    it.service
                );
                Some(violation(Invariant::RemovedIsNotReached, it.begun, what))
            }
            Outcome::Failed(why) => {
                let (invariant, excused) = match seen {
                    Seen::Request(_) => (
                        Invariant::RequestIsServed,
                        request_may_fail(history, host, it),
                    ),
                    _ => (
                        Invariant::ConnectIsServed,
                        connect_may_fail(history, host, it),
                    ),
                };
                let took = it.ended.since(it.begun).as_secs_f64();
                let what = format!(
                    "a {} for {} failed after {took:.3} s: {why}",
                    kind(seen),
                    it.service
                );
                (!excused).then(|| violation(invariant, it.begun, what))
            }
        },
        Seen::Broken {
            service,
            backend,
            opened,
            ended,
            why,
        } => {
            let life = history.backends.get(backend)?;
            let severed = history.hosts[host].severed.get(backend);
            let excused = life.down.overlap(*opened, *ended)
                || life.away.overlap(*opened, *ended)
                || severed.is_some_and(|spans| spans.overlap(*opened, *ended));
            let age = ended.since(*opened).as_secs_f64();
            let what = format!("a flow of {service} to {backend} ended after {age:.3} s: {why}");
            (!excused).then(|| violation(Invariant::FlowLivesOn, *ended, what))
        }
    }
}

fn kind(seen: &Seen) -> &'static str {
    match seen {
        Seen::Request(_) => "request",
        _ => "connect",
    }
}

/// When the backend that answered had been removed, if it was all the time and the host had to know.
fn reached_a_removed(history: &History, host: usize, it: &Try, backend: &str) -> Option<Moment> {
    let life = history.backends.get(backend)?;
    let mut away = life.away.iter();
    let span = away.find(|span| span.covers(it.begun, it.ended))?;
    let due = history.due(host, span.from)?;
    (it.begun > due).then_some(span.from)
}

/// Whether the failure may be that of a backend that ended, or was out of reach, and that this host need not have heeded.
fn unheeded(history: &History, host: usize, it: &Try) -> bool {
    let of_service = |id: &&String| {
        let life = history.backends.get(*id);
        life.is_some_and(|life| life.service == it.service)
    };
    let lost = |span: &crate::history::Span| {
        let due = history.due(host, span.from);
        span.overlaps(it.begun, it.ended) && due.is_none_or(|due| it.begun <= due)
    };
    let severed = history.hosts[host].severed.iter();
    let mut severed = severed.filter(|(id, _)| of_service(id));
    let mut lives = history.backends.values();
    lives.any(|life| life.service == it.service && life.down.iter().any(lost))
        || severed.any(|(_, spans)| spans.iter().any(lost))
}

/// Whether no backend may have been usable.
fn nobody_usable(history: &History, it: &Try) -> bool {
    let lives = history.backends.values();
    let mut lives = lives.filter(|life| life.service == it.service);
    lives.all(|life| life.down.overlap(it.begun, it.ended) || life.away.overlap(it.begun, it.ended))
}

fn connect_may_fail(history: &History, host: usize, it: &Try) -> bool {
    let portless = history.hosts[host].portless.overlap(it.begun, it.ended);
    portless || unheeded(history, host, it) || nobody_usable(history, it)
}

/// A refused connect is tried elsewhere by the front. Only what was under way at a backend when that ended may be lost, and what
/// waits for a backend that fell silent.
fn request_may_fail(history: &History, host: usize, it: &Try) -> bool {
    let under_way = |span: &crate::history::Span| it.begun <= span.from && span.from <= it.ended;
    let mut lives = history.backends.values();
    let lost = lives.any(|life| life.service == it.service && life.down.iter().any(under_way));
    let silent = history.hosts[host].severed.iter().any(|(id, spans)| {
        let same = history.backends.get(id);
        same.is_some_and(|life| life.service == it.service)
            && spans.iter().any(|span| {
                let due = history.due(host, span.from);
                span.overlaps(it.begun, it.ended) && due.is_none_or(|due| it.begun <= due)
            })
    });
    let host = &history.hosts[host];
    let frontless =
        host.frontless.overlap(it.begun, it.ended) || host.portless.overlap(it.begun, it.ended);
    lost || silent || frontless || nobody_usable(history, it)
}

/// Whether each service has one VIP, of which `hosts` tell.
pub fn compare_vips(at: Moment, hosts: &[(usize, BTreeMap<String, Ipv4Addr>)]) -> Vec<Violation> {
    let mut first: BTreeMap<&str, (usize, Ipv4Addr)> = BTreeMap::new();
    let mut found = Vec::new();
    for (host, vips) in hosts {
        for (service, vip) in vips {
            let (other, same) = *first.entry(service).or_insert((*host, *vip));
            if same != *vip {
                found.push(Violation {
                    invariant: Invariant::VipsAreEqual,
                    host: Some(*host),
                    at,
                    what: format!("{service} is {vip} here and {same} on host {other}"),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
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
}
