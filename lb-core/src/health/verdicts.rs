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
    probes: CowMap<Target, Arc<Verdict>>,
    /// Whether every target that the sources named at first has had its first verdict. Never taken back.
    pub settled: bool,
}

/// What is said of one target.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    probe: Probe,
    /// The containers of whom it is said; none where nobody knows of any.
    containers: Box<[Arc<str>]>,
}

impl Verdicts {
    /// No verdict on anybody.
    pub const NONE: Self = Self {
        probes: CowMap::new(),
        settled: false,
    };

    /// The verdict on `address` asked in this way.
    pub fn of(&self, address: SocketAddr, check: &CheckKind) -> Option<&Probe> {
        self.said(address, check).map(|verdict| &verdict.probe)
    }

    /// The same, if it is said of this container, which may have got the address of another one a moment ago. Where either
    /// is not known, the address alone counts.
    pub fn on(
        &self,
        address: SocketAddr,
        check: &CheckKind,
        container: Option<&str>,
    ) -> Option<&Probe> {
        let verdict = self.said(address, check)?;
        let another = |it| !verdict.containers.is_empty() && !verdict.is_on(it);
        (!container.is_some_and(another)).then_some(&verdict.probe)
    }

    fn said(&self, address: SocketAddr, check: &CheckKind) -> Option<&Verdict> {
        if *check == CheckKind::Off {
            return None;
        }
        let verdict = self.probes.get(&(address, check.clone()))?;
        Some(&**verdict)
    }

    /// Notes a verdict.
    pub fn put(&mut self, target: Target, probe: Probe) {
        self.put_on(target, [], probe);
    }

    /// Notes a verdict on these containers.
    pub fn put_on(
        &mut self,
        target: Target,
        containers: impl IntoIterator<Item = Arc<str>>,
        probe: Probe,
    ) {
        let verdict = Verdict {
            probe,
            containers: containers.into_iter().collect(),
        };
        self.probes.insert(target, Arc::new(verdict));
    }

    /// Forgets a target.
    pub(super) fn remove(&mut self, target: &Target) {
        self.probes.remove(target);
    }

    /// Every target with its verdict, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Probe)> {
        let all = self.probes.iter();
        all.map(|(target, verdict)| (target, &verdict.probe))
    }

    /// The targets on which `before` said something else, or nothing, or this one no longer does.
    pub fn changed_since<'v>(&'v self, before: &'v Self) -> impl Iterator<Item = &'v Target> {
        changes(&before.probes, &self.probes).map(|(target, ..)| target)
    }
}

impl Verdict {
    fn is_on(&self, container: &str) -> bool {
        self.containers.iter().any(|it| **it == *container)
    }
}

/// Two verdicts are equal when they say the same of the same targets.
impl PartialEq for Verdicts {
    fn eq(&self, other: &Self) -> bool {
        let says = |target: &Target, of: &Self| of.probes.get(target).cloned();
        self.settled == other.settled
            && self
                .changed_since(other)
                .all(|target| says(target, self) == says(target, other))
    }
}

impl Eq for Verdicts {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::snapshot::ProbeState::{self, Down, Up};

    fn target(last: u8) -> Target {
        (SocketAddr::from(([10, 0, 0, last], 80)), CheckKind::Tcp)
    }

    fn probe(state: ProbeState) -> Probe {
        Probe {
            state,
            since: SystemTime::UNIX_EPOCH,
            error: None,
            took: None,
        }
    }

    fn verdicts(states: &[(u8, ProbeState)]) -> Verdicts {
        let mut verdicts = Verdicts::NONE;
        for &(last, state) in states {
            verdicts.put(target(last), probe(state));
        }
        verdicts
    }

    #[test]
    fn two_are_equal_that_say_the_same_of_the_same_targets() {
        let one = verdicts(&[(1, Up), (2, Down)]);
        assert_eq!(one, verdicts(&[(1, Up), (2, Down)]));
        assert_ne!(one, verdicts(&[(1, Up), (2, Up)]));
        assert_ne!(one, verdicts(&[(1, Up)]));
        assert_ne!(verdicts(&[(1, Up)]), one);
        let mut other = one.clone();
        other.settled = true;
        assert_ne!(one, other);
        // How long a probe took is a detail.
        let mut slower = verdicts(&[(1, Up), (2, Down)]);
        let took = Some(Duration::from_secs(1));
        slower.put(target(1), Probe { took, ..probe(Up) });
        assert_eq!(one, slower);
    }

    #[test]
    fn a_verdict_on_one_container_is_none_on_another() {
        let (address, check) = target(1);
        let mut verdicts = verdicts(&[(1, Up)]);
        let says =
            |verdicts: &Verdicts, container| verdicts.on(address, &check, container).cloned();
        assert_eq!(says(&verdicts, Some("a")), Some(probe(Up)));
        let before = verdicts.clone();
        verdicts.put_on(target(1), ["a".into(), "b".into()], probe(Up));
        assert_ne!(verdicts, before);
        for known in [None, Some("a"), Some("b")] {
            assert_eq!(says(&verdicts, known), Some(probe(Up)));
        }
        assert_eq!(says(&verdicts, Some("c")), None);
    }

    #[test]
    fn a_change_is_a_target_that_is_new_or_gone_or_was_judged_anew() {
        let before = verdicts(&[(1, Up), (2, Up), (3, Up)]);
        let mut after = before.clone();
        assert_eq!(after.changed_since(&before).count(), 0);
        after.remove(&target(1));
        after.put(target(2), probe(Down));
        after.put(target(4), probe(Up));
        let changed: Vec<_> = after.changed_since(&before).cloned().collect();
        assert_eq!(changed, [1, 2, 4].map(target));
    }
}
