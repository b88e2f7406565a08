//! Whose turn it is, without a counter that all workers touch for each request.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The turns that a worker has taken from a service's cursor and not used yet.
///
/// One at a time as long as the worker is asked rarely, so that the turn is the same whichever worker a client
/// meets; after that in blocks. Either way each turn is used once.
#[derive(Default)]
pub(crate) struct Turns {
    next: usize,
    left: usize,
    /// Turns taken one by one since the last rest.
    singles: usize,
}

impl Turns {
    pub(crate) fn take(&mut self, cursor: &AtomicUsize) -> usize {
        if self.left == 0 {
            self.left = if self.singles < SINGLES {
                self.singles += 1;
                1
            } else {
                BLOCK
            };
            self.next = cursor.fetch_add(self.left, Ordering::Relaxed);
        }
        self.left -= 1;
        let turn = self.next;
        self.next = turn.wrapping_add(1);
        turn
    }

    /// Some seconds have passed.
    pub(crate) fn rest(&mut self) {
        self.singles = 0;
    }
}

const SINGLES: usize = 16;
const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn workers_use_each_turn_once(asked in proptest::collection::vec((0..4usize, any::<bool>()), 0..500)) {
            let cursor = AtomicUsize::new(0);
            let mut workers: [Turns; 4] = Default::default();
            let mut used = Vec::new();
            for &(worker, rests) in &asked {
                if rests && used.len() % 50 == 0 {
                    workers[worker].rest();
                }
                used.push(workers[worker].take(&cursor));
            }
            for worker in &workers {
                used.extend(worker.next..worker.next + worker.left);
            }
            used.sort_unstable();
            prop_assert_eq!(used, (0..cursor.into_inner()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_busy_worker_touches_the_shared_cursor_rarely() {
        let cursor = AtomicUsize::new(0);
        let mut turns = Turns::default();
        let mut last = 0;
        let mut touched = 0;
        for _ in 0..1600 {
            turns.take(&cursor);
            let now = cursor.load(Ordering::Relaxed);
            touched += usize::from(now != last);
            last = now;
        }
        assert_eq!(touched, SINGLES + (1600 - SINGLES) / BLOCK);
    }
}
