//! The index of a blocking query: which one to ask with next.

/// What Consul said last, and what to ask with.
///
/// An index is opaque except for its order, and never outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    ask: u64,
    last: u64,
}

/// How an index compares with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Higher or the same.
    Onward,
    /// Lower: Consul's state was restored or wiped, or whoever answers is behind.
    Back,
}

impl Index {
    /// The index to ask with; `None` asks for an answer at once.
    pub(crate) fn ask(self) -> Option<u64> {
        (self.ask > 0).then_some(self.ask)
    }

    /// The last index that Consul gave; 0 if none.
    pub(crate) fn last(self) -> u64 {
        self.last
    }

    /// How the index of an answer compares with the last one.
    pub(crate) fn step(self, header: Option<u64>) -> Step {
        match header {
            Some(index) if index > 0 && index < self.last => Step::Back,
            _ => Step::Onward,
        }
    }

    /// Takes in the index of an answer that is believed.
    pub(crate) fn answered(&mut self, header: Option<u64>) -> Step {
        let step = self.step(header);
        match (header, step) {
            // Asking with 0 would return at once, over and over.
            (None | Some(0), _) => self.ask = 1,
            (Some(index), Step::Back) => {
                *self = Self {
                    ask: 0,
                    last: index,
                };
            }
            (Some(index), Step::Onward) => {
                *self = Self {
                    ask: index,
                    last: index,
                };
            }
        }
        step
    }

    /// Makes the next answer come at once. Needed after a failure: whoever answers then may have restarted
    /// with a lower index, and a query above the current index waits its full time.
    pub(crate) fn at_once(&mut self) {
        self.ask = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answers: &[Option<u64>], asks: Option<u64>, step: Step) {
        let mut index = Index::default();
        let mut last = Step::Onward;
        for answer in answers {
            last = index.answered(*answer);
        }
        assert_eq!((index.ask(), last), (asks, step));
    }

    #[test]
    fn the_first_question_does_not_wait() {
        assert_eq!(Index::default().ask(), None);
    }

    #[test]
    fn the_next_question_carries_the_last_index() {
        check(&[Some(7)], Some(7), Step::Onward);
        check(&[Some(7), Some(7)], Some(7), Step::Onward);
        check(&[Some(7), Some(u64::MAX)], Some(u64::MAX), Step::Onward);
    }

    #[test]
    fn a_lower_index_starts_over_at_zero() {
        check(&[Some(7), Some(6)], None, Step::Back);
        check(&[Some(7), Some(6), Some(6)], Some(6), Step::Onward);
    }

    #[test]
    fn an_absent_or_zero_index_is_asked_for_as_one_so_that_the_loop_does_not_spin() {
        check(&[None], Some(1), Step::Onward);
        check(&[Some(0)], Some(1), Step::Onward);
        check(&[Some(7), Some(0)], Some(1), Step::Onward);
    }

    #[test]
    fn a_failure_asks_at_once_but_still_notices_a_lower_index() {
        let mut index = Index::default();
        index.answered(Some(900));
        index.at_once();
        assert_eq!(index.ask(), None);
        assert_eq!(index.answered(Some(12)), Step::Back);
    }
}
