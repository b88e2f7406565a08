//! Which fault comes when, by a seed: the same seed has the same schedule. Pure.

use std::fmt;

use crate::fault::Fault;

/// One step: a fault, and what happens beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What fails.
    pub fault: Fault,
    /// Whom it hits.
    pub pick: u32,
    /// How long it lasts, counted in tries of each client.
    pub lasts: usize,
    /// When a backend is removed, and which one.
    pub removal: Option<(When, u32)>,
}

/// When something happens beside a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Just before it.
    Before,
    /// While it lasts.
    During,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fault, pick, lasts, ..
        } = self;
        write!(f, "{fault:?} of {pick} for {lasts} tries")?;
        match self.removal {
            None => Ok(()),
            Some((When::Before, backend)) => write!(f, ", after backend {backend} was removed"),
            Some((When::During, backend)) => write!(f, ", while backend {backend} is removed"),
        }
    }
}

/// Steps without end. Each fault comes once before one comes again.
#[derive(Debug)]
pub struct Schedule {
    random: fastrand::Rng,
    left: Vec<Fault>,
}

impl Schedule {
    /// That of this seed.
    pub fn of(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            left: Vec::new(),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.left.is_empty() {
            self.left = Fault::ALL.to_vec();
            self.random.shuffle(&mut self.left);
        }
        let fault = self.left.pop()?;
        let random = &mut self.random;
        let pick = random.u32(0..1_000);
        let lasts = random.usize(20..300);
        let backend = random.u32(0..1_000);
        let removal = match random.u8(0..3) {
            0 => None,
            1 if fault.consul_takes_changes() => Some((When::During, backend)),
            _ => Some((When::Before, backend)),
        };
        Some(Step {
            fault,
            pick,
            lasts,
            removal,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_seed_has_another_schedule() {
        let steps = |seed| Schedule::of(seed).take(50).collect::<Vec<_>>();
        assert_ne!(steps(1), steps(2));
    }

    proptest! {
        #[test]
        fn the_same_seed_has_the_same_schedule(seed: u64) {
            let steps = || Schedule::of(seed).take(60);
            prop_assert!(steps().eq(steps()));
        }

        #[test]
        fn each_fault_comes_before_one_comes_again(seed: u64) {
            let all = Fault::ALL.len();
            for round in 0..3 {
                let steps = Schedule::of(seed).skip(round * all).take(all);
                let faults: BTreeSet<_> = steps.map(|it| it.fault).collect();
                prop_assert_eq!(faults.len(), all);
            }
        }

        #[test]
        fn nothing_is_removed_while_consul_takes_no_changes(seed: u64) {
            for step in Schedule::of(seed).take(100) {
                let during = matches!(step.removal, Some((When::During, _)));
                prop_assert!(!during || step.fault.consul_takes_changes());
            }
        }
    }
}
