//! Who is due when. Those that are down wait apart: each of their probes may hold its place for the whole of its time, and
//! a rack that went away would leave none to the others.

use std::{collections::BTreeSet, time::Instant};

use super::{PROBES_AT_ONCE, Target};
use crate::snapshot::ProbeState;

/// When which target is due; one in flight is not in it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    others: Turns,
    down: Turns,
    /// Probes of such that are under way, also of those that left meanwhile.
    down_in_flight: usize,
}

type Turns = BTreeSet<(Instant, Target)>;

/// How many probes at once may be of targets that are down.
pub(super) const DOWN_AT_ONCE: usize = PROBES_AT_ONCE / 2;

impl Queue {
    pub(super) fn insert(&mut self, due: Instant, target: Target, state: ProbeState) {
        self.turns(state).insert((due, target));
    }

    /// Takes out one that was put in with the same words.
    pub(super) fn remove(&mut self, due: Instant, target: Target, state: ProbeState) {
        self.turns(state).remove(&(due, target));
    }

    /// The first one that is due and may start, which is in flight from now on.
    pub(super) fn start(&mut self, now: Instant) -> Option<Target> {
        let due = self.next().filter(|due| *due <= now)?;
        let of_down = self.others.first().is_none_or(|(first, _)| *first > due);
        if !of_down {
            return Some(self.others.pop_first()?.1);
        }
        self.down_in_flight += 1;
        Some(self.down.pop_first()?.1)
    }

    /// A probe of a target that was in this state at its start has ended.
    pub(super) fn ended(&mut self, state: ProbeState) {
        self.down_in_flight -= usize::from(state == ProbeState::Down);
    }

    /// When the next one is due that may start then.
    pub(super) fn next(&self) -> Option<Instant> {
        let down = self.down.first();
        let down = down.filter(|_| self.down_in_flight < DOWN_AT_ONCE);
        let both = self.others.first().into_iter().chain(down);
        both.map(|(due, _)| *due).min()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Instant, Target)> {
        self.others.iter().chain(&self.down)
    }

    fn turns(&mut self, state: ProbeState) -> &mut Turns {
        match state {
            ProbeState::Down => &mut self.down,
            ProbeState::Starting | ProbeState::Up | ProbeState::Off => &mut self.others,
        }
    }
}
