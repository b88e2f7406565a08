//! Who waits for the figures. All that have asked before a count begins share it; who asks later knows things that it may
//! not hold, and has the next one.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::stats::{Stats, StatsRequest};

/// Those that one count is for.
pub(super) struct Askers(Vec<StatsRequest>);

impl Askers {
    /// `first` and all that wait behind it; `None` if none of them is there any more.
    pub(super) fn gather(
        first: StatsRequest,
        behind: &mut mpsc::Receiver<StatsRequest>,
    ) -> Option<Self> {
        // Bounded: those who come meanwhile wait for the next count.
        let behind = (0..behind.len()).map_while(|_| behind.try_recv().ok());
        let all = [first].into_iter().chain(behind);
        let there: Vec<_> = all.filter(|it| !it.is_closed()).collect();
        (!there.is_empty()).then_some(Self(there))
    }

    /// Whether nobody waits any more.
    pub(super) fn are_gone(&self) -> bool {
        self.0.iter().all(StatsRequest::is_closed)
    }

    /// Tells all of them.
    pub(super) fn tell(self, stats: Stats) {
        let stats = Arc::new(stats);
        for asker in self.0 {
            // It may have gone meanwhile.
            drop(asker.send(Arc::clone(&stats)));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn all_that_have_asked_are_told_one_count_and_nobody_counts_for_who_has_gone() {
        let (asks, mut asked) = mpsc::channel(16);
        let ask = || {
            let (asker, answer) = oneshot::channel();
            asks.try_send(asker).unwrap();
            answer
        };
        let (first, gone, mut last) = (ask(), ask(), ask());
        drop(gone);
        let mut first = first;
        let request = asked.try_recv().unwrap();
        let askers = Askers::gather(request, &mut asked).unwrap();
        assert_eq!(askers.0.len(), 2);
        let mut late = ask();
        assert!(!askers.are_gone());
        askers.tell(Stats::default());
        let (one, other) = (first.try_recv().unwrap(), last.try_recv().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(late.try_recv().is_err(), "who asked later has the next one");

        let request = asked.try_recv().unwrap();
        let askers = Askers::gather(request, &mut asked).unwrap();
        drop(late);
        assert!(askers.are_gone());
        drop(ask());
        let request = asked.try_recv().unwrap();
        assert!(Askers::gather(request, &mut asked).is_none());
    }
}
