//! `lb_canary`: a service's backends in two groups, of which the canaries have an exact share of the turns.

use crate::rules::WHOLE;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Rest,
    Canary,
}

impl Group {
    pub(crate) fn of(is_canary: bool) -> Self {
        match is_canary {
            true => Self::Canary,
            false => Self::Rest,
        }
    }
}

/// The canaries of a service that has both kinds, usable ones.
pub(super) struct Canaries {
    /// Indexes of its backends, as in the order of the rest.
    order: Box<[usize]>,
    /// In parts of [`WHOLE`].
    share: usize,
}

impl Canaries {
    pub(super) fn new(order: Box<[usize]>, share: u16) -> Self {
        Self {
            order,
            share: share.min(WHOLE).into(),
        }
    }

    /// The backends of `turn`: those of its group, or of the `wished` one, and then the others.
    pub(super) fn in_turn<'a>(
        &'a self,
        rest: &'a [usize],
        turn: usize,
        wished: Option<Group>,
    ) -> (Turn<'a>, Turn<'a>) {
        let (own, rank) = match wished {
            Some(group) => (group, turn),
            None => self.rank(turn),
        };
        let (first, second) = match own {
            Group::Rest => (rest, &*self.order),
            Group::Canary => (&*self.order, rest),
        };
        (from(first, rank), from(second, rank))
    }

    /// Whose turn it is, and how many that group had before it: a share of 5 in 100 has every twentieth turn.
    fn rank(&self, turn: usize) -> (Group, usize) {
        let (cycles, at) = (turn / usize::from(WHOLE), turn % usize::from(WHOLE));
        let within = |turns: usize| turns * self.share / usize::from(WHOLE);
        let had = cycles * self.share + within(at);
        match within(at + 1) > within(at) {
            true => (Group::Canary, had),
            false => (Group::Rest, turn - had),
        }
    }
}

/// An order, begun at some place.
pub(super) type Turn<'a> =
    std::iter::Chain<std::slice::Iter<'a, usize>, std::slice::Iter<'a, usize>>;

pub(super) fn from(order: &[usize], turn: usize) -> Turn<'_> {
    let start = turn.checked_rem(order.len()).unwrap_or_default();
    order[start..].iter().chain(&order[..start])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canaries(share: u16) -> Canaries {
        Canaries::new([7, 8].into(), share)
    }

    /// Who is first in each of `turns`.
    fn firsts(share: u16, turns: std::ops::Range<usize>) -> Vec<usize> {
        let canaries = canaries(share);
        let first = |turn| canaries.in_turn(&[0, 1, 2], turn, None).0.next().copied();
        turns.filter_map(first).collect()
    }

    #[test]
    fn each_group_has_its_own_turns() {
        assert_eq!(
            firsts(WHOLE / 4, 0..12),
            [0, 1, 2, 7, 0, 1, 2, 8, 0, 1, 2, 7]
        );
        assert_eq!(firsts(0, 0..4), [0, 1, 2, 0]);
        assert_eq!(firsts(WHOLE, 0..3), [7, 8, 7]);
    }

    #[test]
    fn whoever_wishes_for_a_group_gets_it_and_each_is_in_the_others_place() {
        let canaries = canaries(WHOLE / 20);
        let order = |turn, wished| {
            let (first, second) = canaries.in_turn(&[0, 1, 2], turn, wished);
            first.chain(second).copied().collect::<Vec<_>>()
        };
        assert_eq!(order(0, None), [0, 1, 2, 7, 8]);
        assert_eq!(order(1, Some(Group::Canary)), [8, 7, 1, 2, 0]);
        assert_eq!(order(19, Some(Group::Rest)), [1, 2, 0, 8, 7]);
        // The third one of the canaries, by whose failure the rest is not burdened unevenly.
        assert_eq!(order(59, None), [7, 8, 2, 0, 1]);
    }

    proptest! {
        #[test]
        fn the_share_is_exact(share in 0..=WHOLE, begin in 0..usize::MAX / 2, count in 0..20_000_usize) {
            let canaries = canaries(share);
            let (first, mut next) = canaries.rank(begin);
            let mut of_canaries = 0_usize;
            for turn in begin..begin + count {
                let (group, rank) = canaries.rank(turn);
                // No turn of a group is used twice, and none left out.
                if group == first {
                    prop_assert_eq!(rank, next);
                    next += 1;
                }
                of_canaries += usize::from(group == Group::Canary);
            }
            // At every moment, not only in the end.
            let expected = count * usize::from(share) / usize::from(WHOLE);
            prop_assert!(of_canaries.abs_diff(expected) <= 1, "{of_canaries} of {count}");
        }
    }
}
