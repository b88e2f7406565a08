//! Whether an answer may replace what is known. Pure.
//!
//! "Empty" and "unknown" are different values: only a successful, unfiltered and fresh answer may take the
//! last instance of a service away, and only after a second one agrees.

/// What matters of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many entries it has.
    pub(super) entries: usize,
    /// Whether Consul left out what the token may not see.
    pub(super) filtered: bool,
}

impl Seen {
    /// What to remember of it after `before`: filtered counts only where it was so from the beginning. Else rights
    /// that were taken away would take instances away in two steps.
    pub(super) fn after(self, before: Option<Self>) -> Self {
        let filtered = self.filtered && before.is_none_or(|before| before.filtered);
        Self { filtered, ..self }
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It is the new truth.
    Apply,
    /// It removes everything: ask the leader.
    Confirm,
    /// It says less than Consul knows: keep what is known.
    Keep,
}

/// Judges `now` against the last applied answer.
pub(super) fn judge(before: Option<Seen>, now: Seen) -> Verdict {
    let fewer = before.is_some_and(|before| now.entries < before.entries);
    // Where answers have always been filtered, a missing entry is as likely gone as hidden.
    let newly_filtered = now.filtered && before.is_some_and(|before| !before.filtered);
    let was_empty = before.is_some_and(|before| before.entries == 0);
    if now.filtered && (now.entries == 0 || (fewer && newly_filtered)) {
        Verdict::Keep
    } else if now.entries == 0 && !was_empty {
        Verdict::Confirm
    } else {
        Verdict::Apply
    }
}

/// Whether an answer that no leader vouches for may be older than the last applied one: a server that has just
/// started answers from its last snapshot.
pub(super) fn may_be_older(before: Option<Seen>, now: Seen, went_back: bool) -> bool {
    before.is_some_and(|before| went_back || now.entries < before.entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seen(entries: usize) -> Option<Seen> {
        Some(Seen {
            entries,
            filtered: false,
        })
    }

    const fn filtered(entries: usize) -> Option<Seen> {
        Some(Seen {
            entries,
            filtered: true,
        })
    }

    #[track_caller]
    fn check(before: Option<Seen>, now: Option<Seen>, verdict: Verdict) {
        assert_eq!(judge(before, now.unwrap()), verdict);
    }

    #[test]
    fn the_empty_set_is_never_taken_from_one_answer() {
        check(None, seen(0), Verdict::Confirm);
        check(seen(3), seen(0), Verdict::Confirm);
    }

    #[test]
    fn what_is_known_to_be_empty_stays_so() {
        check(seen(0), seen(0), Verdict::Apply);
    }

    #[test]
    fn an_answer_with_instances_is_applied() {
        check(None, seen(1), Verdict::Apply);
        check(seen(3), seen(1), Verdict::Apply);
        check(seen(0), seen(2), Verdict::Apply);
    }

    #[test]
    fn a_filtered_answer_takes_nothing_away() {
        check(None, filtered(0), Verdict::Keep);
        check(seen(3), filtered(0), Verdict::Keep);
        check(filtered(3), filtered(0), Verdict::Keep);
        check(seen(3), filtered(2), Verdict::Keep);
    }

    #[test]
    fn rights_that_were_taken_away_take_nothing_away_in_two_steps_either() {
        let first = filtered(3).unwrap().after(seen(3));
        check(Some(first), filtered(2), Verdict::Keep);
        let never_saw_all = filtered(3).unwrap().after(filtered(3));
        check(Some(never_saw_all), filtered(2), Verdict::Apply);
        let given_back = seen(3).unwrap().after(filtered(2));
        check(Some(given_back), filtered(2), Verdict::Keep);
    }

    #[test]
    fn without_a_leader_an_answer_counts_only_if_it_cannot_be_older() {
        let older = |before, now, went_back| may_be_older(before, seen(now).unwrap(), went_back);
        assert!(older(seen(3), 2, false));
        assert!(older(seen(3), 4, true));
        assert!(!older(seen(3), 3, false));
        assert!(!older(None, 3, false));
    }

    #[test]
    fn a_token_that_never_saw_everything_still_sees_changes() {
        check(None, filtered(2), Verdict::Apply);
        check(filtered(3), filtered(2), Verdict::Apply);
        check(seen(2), filtered(2), Verdict::Apply);
    }
}
