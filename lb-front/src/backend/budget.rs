//! How many requests to a service may be tried again at once, so that retries never make a failure worse. A
//! state machine of one worker.

/// Retries under way beside all requests under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    in_flight: usize,
    retries: usize,
}

impl Budget {
    pub(crate) fn begin(&mut self) {
        self.in_flight += 1;
    }

    pub(crate) fn end(&mut self) {
        self.in_flight -= 1;
    }

    /// Whether a request under way may be tried again now. If so, [`Self::end_retry`] follows.
    pub(crate) fn begin_retry(&mut self) -> bool {
        let may = self.retries < FLOOR.max(self.in_flight / SHARE);
        self.retries += usize::from(may);
        may
    }

    pub(crate) fn end_retry(&mut self) {
        self.retries -= 1;
    }
}

/// Even one request alone may be tried again.
const FLOOR: usize = 3;
/// One retry for this many requests in flight (Envoy's default).
const SHARE: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn retries_never_begin_above_a_fifth_of_what_is_in_flight_or_three(
            steps in proptest::collection::vec(0..5u8, 0..400),
        ) {
            let mut budget = Budget::default();
            for step in steps {
                match step {
                    0 | 1 => budget.begin(),
                    2 if budget.in_flight > budget.retries => budget.end(),
                    3 => {
                        let before = budget;
                        let limit = 3.max(budget.in_flight / 5);
                        prop_assert_eq!(budget.begin_retry(), before.retries < limit);
                        prop_assert!(budget.retries == before.retries || budget.retries <= limit);
                    }
                    4 if budget.retries > 0 => budget.end_retry(),
                    _ => {}
                }
            }
        }
    }
}
