//! What happened to backends and hosts, and from when on it must be known. Pure: moments come from outside.
//!
//! Whoever acts writes down the beginning of what may harm before it acts, and the end after it was undone: what is excused is
//! never shorter than what was done.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::moment::Moment;

/// From when on every host must heed what happened to a backend, when it can know of it.
pub const HEEDED_WITHIN: Duration = Duration::from_secs(10);

/// The same after a host has said itself that it knows: what is said may be in force a moment later.
pub const IN_FORCE_WITHIN: Duration = Duration::from_secs(1);

/// From one moment to another, or until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: Moment,
    /// Its end, once there is one.
    pub to: Option<Moment>,
}

impl Span {
    /// Whether some of it lies between these.
    pub fn overlaps(&self, from: Moment, to: Moment) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }

    /// Whether all that is between these lies in it.
    pub fn covers(&self, from: Moment, to: Moment) -> bool {
        self.from <= from && self.to.is_none_or(|end| end >= to)
    }
}

/// Spans of one thing, in order, of which the last may be open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Begins one, unless one is open.
    pub fn begin(&mut self, from: Moment) {
        if !self.is_open() {
            self.0.push(Span { from, to: None });
        }
    }

    /// Ends the open one, if there is one.
    pub fn end(&mut self, at: Moment) {
        if let Some(last) = self.0.last_mut().filter(|last| last.to.is_none()) {
            last.to = Some(at);
        }
    }

    /// Whether the last one has no end yet.
    pub fn is_open(&self) -> bool {
        self.0.last().is_some_and(|last| last.to.is_none())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        self.0.iter()
    }

    /// Whether one of them has some of what is between these.
    pub fn overlap(&self, from: Moment, to: Moment) -> bool {
        self.iter().any(|span| span.overlaps(from, to))
    }
}

/// The life of one backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) service: String,
    /// It does not run.
    pub(crate) down: Spans,
    /// It ends in one of these, at a moment that nobody knows.
    pub(crate) ending: Spans,
    /// It is not registered.
    pub(crate) away: Spans,
}

/// What happened to one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Its agent cannot know or do anything.
    pub(crate) blind: Spans,
    /// Its front is not there.
    pub(crate) frontless: Spans,
    /// It has no ports for new connections.
    pub(crate) portless: Spans,
    /// It cannot reach these backends.
    pub(crate) severed: BTreeMap<String, Spans>,
    /// When it was seen to know all there was to know.
    pub(crate) calm: Vec<Moment>,
}

/// What happened, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub(crate) backends: BTreeMap<String, Life>,
    pub(crate) hosts: Vec<Host>,
}

impl History {
    /// Of so many hosts, of which nothing is known.
    pub fn of(hosts: usize) -> Self {
        Self {
            backends: BTreeMap::new(),
            hosts: vec![Host::default(); hosts],
        }
    }

    /// There is such a backend, which runs and is registered.
    pub fn backend(&mut self, id: &str, service: &str) {
        let life = self.backends.entry(id.to_owned()).or_default();
        service.clone_into(&mut life.service);
    }

    /// A backend is about to end.
    pub fn down(&mut self, id: &str, at: Moment) {
        self.backends
            .entry(id.to_owned())
            .or_default()
            .down
            .begin(at);
    }

    /// A backend is about to end, at a moment that nobody will know: if it is ended by somebody else.
    pub fn ending(&mut self, id: &str, at: Moment) {
        self.down(id, at);
        let life = self.backends.entry(id.to_owned()).or_default();
        life.ending.begin(at);
    }

    /// It has ended by now.
    pub fn ended(&mut self, id: &str, at: Moment) {
        let life = self.backends.entry(id.to_owned()).or_default();
        life.ending.end(at);
    }

    /// It runs again.
    pub fn up(&mut self, id: &str, at: Moment) {
        let life = self.backends.entry(id.to_owned()).or_default();
        life.ending.end(at);
        life.down.end(at);
    }

    /// A backend is not registered any more.
    pub fn removed(&mut self, id: &str, at: Moment) {
        self.backends
            .entry(id.to_owned())
            .or_default()
            .away
            .begin(at);
    }

    /// It is about to be registered again.
    pub fn returned(&mut self, id: &str, at: Moment) {
        self.backends.entry(id.to_owned()).or_default().away.end(at);
    }

    /// A host's agent is about to be unable to know or do anything.
    pub fn blind(&mut self, host: usize, at: Moment) {
        self.hosts[host].blind.begin(at);
    }

    /// It can know again.
    pub fn sees(&mut self, host: usize, at: Moment) {
        self.hosts[host].blind.end(at);
    }

    /// A host's front is about to be gone.
    pub fn frontless(&mut self, host: usize, at: Moment) {
        self.hosts[host].frontless.begin(at);
    }

    /// A host is about to have no ports for new connections.
    pub fn portless(&mut self, host: usize, at: Moment) {
        self.hosts[host].portless.begin(at);
    }

    /// It has them again.
    pub fn ported(&mut self, host: usize, at: Moment) {
        self.hosts[host].portless.end(at);
    }

    /// A host is about to lose the way to a backend.
    pub fn severed(&mut self, host: usize, id: &str, at: Moment) {
        let severed = &mut self.hosts[host].severed;
        severed.entry(id.to_owned()).or_default().begin(at);
    }

    /// It has the way again.
    pub fn joined(&mut self, host: usize, id: &str, at: Moment) {
        let severed = &mut self.hosts[host].severed;
        severed.entry(id.to_owned()).or_default().end(at);
    }

    /// A host was seen to know all there is, and to have its front.
    pub fn calm(&mut self, host: usize, at: Moment) {
        let host = &mut self.hosts[host];
        host.blind.end(at);
        host.frontless.end(at);
        host.calm.push(at);
    }

    /// Whose backend this is, if there ever was such a one.
    pub fn service_of(&self, id: &str) -> Option<&str> {
        self.backends.get(id).map(|life| life.service.as_str())
    }

    /// The backends that run and are registered, with their services.
    pub fn usable(&self) -> BTreeSet<(&str, &str)> {
        let all = self.backends.iter();
        let usable = all.filter(|(_, life)| !life.down.is_open() && !life.away.is_open());
        usable
            .map(|(id, life)| (life.service.as_str(), id.as_str()))
            .collect()
    }

    /// From when on a host must heed what happened at a moment; `None` if it still cannot know.
    pub fn due(&self, host: usize, happened: Moment) -> Option<Moment> {
        let host = &self.hosts[host];
        let mut known = Some(happened);
        for span in host.blind.iter() {
            let Some(from) = known else { break };
            // A host that is blinded before its time is over has all of it again.
            if span.overlaps(from, from.after(HEEDED_WITHIN)) {
                known = span.to;
            }
        }
        let due = known.map(|known| known.after(HEEDED_WITHIN));
        let calm = host.calm.iter().find(|calm| **calm >= happened);
        let calm = calm.map(|calm| calm.after(IN_FORCE_WITHIN));
        match (due, calm) {
            (Some(due), Some(calm)) => Some(due.min(calm)),
            (due, calm) => due.or(calm),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    #[test]
    fn a_host_that_can_know_has_its_time_and_no_more() {
        let history = History::of(1);
        assert_eq!(history.due(0, at(5)), Some(at(5).after(HEEDED_WITHIN)));
    }

    #[test]
    fn the_time_of_a_blind_host_begins_when_it_sees_again() {
        let mut history = History::of(2);
        history.blind(0, at(1));
        assert_eq!(history.due(0, at(5)), None);
        history.calm(0, at(20));
        assert_eq!(history.due(0, at(5)), Some(at(21)), "it said that it knows");
        assert_eq!(history.due(1, at(5)), Some(at(15)), "the other one saw");
    }

    #[test]
    fn a_host_that_sees_again_has_its_time_before_it_says_anything() {
        let mut history = History::of(1);
        history.blind(0, at(1));
        history.sees(0, at(20));
        assert_eq!(history.due(0, at(5)), Some(at(30)));
        assert_eq!(history.due(0, at(21)), Some(at(31)));
    }

    #[test]
    fn a_host_that_is_blinded_before_its_time_is_over_has_all_of_it_again() {
        let mut history = History::of(1);
        history.hosts[0].blind.begin(at(8));
        history.hosts[0].blind.end(at(30));
        assert_eq!(history.due(0, at(0)), Some(at(40)));
        assert_eq!(history.due(0, at(31)), Some(at(41)));
    }

    #[test]
    fn who_is_down_or_away_is_not_usable() {
        let mut history = History::of(1);
        for id in ["a", "b", "c"] {
            history.backend(id, "www");
        }
        history.down("a", at(1));
        history.removed("b", at(1));
        assert_eq!(history.usable(), BTreeSet::from([("www", "c")]));
        history.up("a", at(2));
        history.returned("b", at(2));
        assert_eq!(history.usable().len(), 3);
    }

    proptest! {
        /// Blindness only ever gives more time, and a calm host has the least.
        #[test]
        fn blindness_never_brings_a_deadline_nearer(
            spans in proptest::collection::vec((0_u64..50, 0_u64..50), 0..6),
            happened in 0_u64..200,
            calm in 0_u64..400,
        ) {
            let mut history = History::of(1);
            let mut last = 0;
            let plain = history.due(0, at(happened));
            for (before, lasts) in spans {
                history.hosts[0].blind.begin(at(last + before));
                last += before + lasts;
                history.hosts[0].blind.end(at(last));
            }
            let blind = history.due(0, at(happened));
            prop_assert!(blind >= plain);
            history.calm(0, at(calm));
            let calmed = history.due(0, at(happened));
            prop_assert!(calmed <= blind);
            if calm >= happened {
                prop_assert!(calmed <= Some(at(calm + 1)));
            }
        }
    }
}
