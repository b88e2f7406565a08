//! The catalog with everything the agent adds to it: VIPs, its own health verdicts, orders, problems.
//!
//! One immutable value, made by the stage `assemble` of the agent; the maps, the routes of the front, the names of the
//! resolver and every report are pure functions of it.

mod backend;
mod called;
mod name;
mod service;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::Serialize;

pub use self::{
    backend::{Backend, FULL, Probe, ProbeState, State},
    called::label,
    name::ServiceName,
    service::Service,
};
use crate::{
    catalog::Problem,
    cow_map::{self, CowMap, Difference},
};

/// Everything the agent knows at one moment.
///
/// Two snapshots are equal when nothing would be done otherwise after one than after the other: the number and mere
/// figures for people ([`Source::updated`], [`Probe::took`]) do not count. The channel of snapshots always holds the
/// newest one and wakes its readers only for one that differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Rises with each one that readers are woken for: by it they say how far they have come.
    pub number: u64,
    /// Whether every source has had its first full answer: a name that is not here does not exist.
    pub answered: bool,
    /// Whether those that have not had one told what an earlier agent kept: all there is to go by, perhaps for long.
    pub stopgap: bool,
    /// Whether, beyond that, every backend in those first answers has had its first verdict by our own
    /// probes. Before that nothing that the maps already hold may be removed: unknown is not empty.
    pub complete: bool,
    /// Services and their tagged parts, by name. What stays the same keeps its allocation from one snapshot to the
    /// next, so that [`changes`] costs what has changed.
    pub services: CowMap<ServiceName, Arc<Service>>,
    /// Everything that is wrong at the moment.
    pub problems: Vec<Problem>,
    /// The discovery sources, by name (`file`, `consul`).
    pub sources: BTreeMap<String, Source>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            number: _,
            answered,
            stopgap,
            complete,
            services,
            problems,
            sources,
        } = self;
        (answered, stopgap, complete) == (&other.answered, &other.stopgap, &other.complete)
            && *services == other.services
            && *problems == other.problems
            && *sources == other.sources
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// What a stage has reached that acted on all of it: its number if it is complete, or a stopgap while a source is away;
    /// `None` if it has to wait for more.
    pub fn reached(&self) -> Option<u64> {
        (self.complete || self.stopgap).then_some(self.number)
    }

    /// Whether any source has ever answered. Before that the snapshot only says why none has.
    pub fn is_known(&self) -> bool {
        self.sources.values().any(|source| source.updated.is_some())
    }
}

/// A discovery source, for people to read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Source {
    /// When its last good answer came; `None` before the first. Not part of equality once there is one.
    pub updated: Option<SystemTime>,
    /// Why it cannot be read at the moment.
    pub error: Option<String>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        let Self { updated, error } = self;
        updated.is_some() == other.updated.is_some() && *error == other.error
    }
}

impl Eq for Source {}

/// What differs between two maps whose equal values mostly share their allocation: each such key with the value
/// `before` and the one `after`. Values of one allocation are not looked at.
pub fn changes<'m, K: Ord, V>(
    before: &'m CowMap<K, Arc<V>>,
    after: &'m CowMap<K, Arc<V>>,
) -> impl Iterator<Item = Difference<'m, K, Arc<V>>>
where
    V: ?Sized,
{
    before.differences(after, Arc::ptr_eq)
}

/// What differs between two maps, as `same` sees their values.
pub fn differences<'m, K: Ord, V>(
    before: &'m BTreeMap<K, V>,
    after: &'m BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> impl Iterator<Item = Difference<'m, K, V>> {
    cow_map::differences(before.iter(), after.iter(), |_, _| {}, same)
}

#[cfg(test)]
mod tests;
