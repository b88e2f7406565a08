//! What our probes say of every target, as a value that is cheap to copy and to compare.

use std::{net::SocketAddr, sync::Arc};

use super::Target;
use crate::{
    cow_map::CowMap,
    options::CheckKind,
    snapshot::{Probe, changes},
};

/// What our probes say of every target that is probed.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    probes: CowMap<Target, Arc<Probe>>,
    /// Whether every target that the sources named at first has had its first verdict. Never taken back.
    pub settled: bool,
}

impl Verdicts {
    /// No verdict on anybody.
    pub const NONE: Self = Self {
        probes: CowMap::new(),
        settled: false,
    };

    /// The verdict on `address` asked in this way.
    pub fn of(&self, address: SocketAddr, check: &CheckKind) -> Option<&Probe> {
        if *check == CheckKind::Off {
            return None;
        }
        let probe = self.probes.get(&(address, check.clone()))?;
        Some(&**probe)
    }

    /// Notes a verdict.
    pub fn put(&mut self, target: Target, probe: Probe) {
        self.probes.insert(target, Arc::new(probe));
    }

    /// Forgets a target.
    pub(super) fn remove(&mut self, target: &Target) {
        self.probes.remove(target);
    }

    /// Every target with its verdict, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Probe)> {
        self.probes.iter().map(|(target, probe)| (target, &**probe))
    }

    /// The targets on which `before` said something else, or nothing, or this one no longer does.
    pub fn changed_since<'v>(&'v self, before: &'v Self) -> impl Iterator<Item = &'v Target> {
        changes(&before.probes, &self.probes).map(|(target, ..)| target)
    }
}

/// Two verdicts are equal when they say the same of the same targets.
impl PartialEq for Verdicts {
    fn eq(&self, other: &Self) -> bool {
        let says = |target: &Target, of: &Self| of.of(target.0, &target.1).cloned();
        self.settled == other.settled
            && self
                .changed_since(other)
                .all(|target| says(target, self) == says(target, other))
    }
}

impl Eq for Verdicts {}
