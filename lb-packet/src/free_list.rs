//! Indexes of maps that are not in use, and when they may be used again.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How long an index rests before it is given out again. No program run lasts this long, so none that still
/// reads an old table can meet a stranger behind the index.
pub const REST: Duration = Duration::from_secs(2);

/// Indexes that are not in use; the one that has rested longest is given out first.
#[derive(Clone, Debug, Default)]
pub struct FreeList {
    rested: VecDeque<u32>,
    resting: VecDeque<(Instant, u32)>,
}

impl FromIterator<u32> for FreeList {
    fn from_iter<T: IntoIterator<Item = u32>>(indexes: T) -> Self {
        Self {
            rested: indexes.into_iter().collect(),
            resting: VecDeque::new(),
        }
    }
}

impl FreeList {
    /// The free `indexes` of maps that an earlier agent wrote. Those that were ever `used` begin to rest now: nobody knows
    /// since when they are free.
    pub fn found(
        indexes: impl Iterator<Item = u32>,
        used: &BTreeMap<u32, u32>,
        now: Instant,
    ) -> Self {
        let (resting, rested): (Vec<_>, _) = indexes.partition(|index| used.contains_key(index));
        Self {
            rested: VecDeque::from(rested),
            resting: resting.into_iter().map(|index| (now, index)).collect(),
        }
    }

    /// Takes an index that has rested, if there is one at `now`.
    pub fn take(&mut self, now: Instant) -> Option<u32> {
        while let Some(&(since, index)) = self.resting.front() {
            if now.saturating_duration_since(since) < REST {
                break;
            }
            self.resting.pop_front();
            self.rested.push_back(index);
        }
        self.rested.pop_front()
    }

    /// Takes the first rested index that `fits`; those before it go to the end.
    pub fn take_if(&mut self, now: Instant, fits: impl Fn(u32) -> bool) -> Option<u32> {
        for _ in 0..self.len() {
            let index = self.take(now)?;
            if fits(index) {
                return Some(index);
            }
            self.rested.push_back(index);
        }
        None
    }

    /// Gives an index back that was taken but not used.
    pub fn untake(&mut self, index: u32) {
        self.rested.push_front(index);
    }

    /// Takes `index` in particular, which is in use already.
    pub fn claim(&mut self, index: u32) {
        // Mostly the one at the front: it has just been taken in a plan.
        if self.rested.front() == Some(&index) {
            self.rested.pop_front();
        } else if self
            .resting
            .front()
            .is_some_and(|&(_, resting)| resting == index)
        {
            self.resting.pop_front();
        } else {
            self.rested.retain(|&free| free != index);
            self.resting.retain(|&(_, resting)| resting != index);
        }
    }

    /// Gives back an index that was in use until `now`.
    pub fn give_back(&mut self, index: u32, now: Instant) {
        self.resting.push_back((now, index));
    }

    /// When the next one has rested, if none has and one does rest.
    pub fn next_rested(&self) -> Option<Instant> {
        match self.resting.front() {
            Some(&(since, _)) if self.rested.is_empty() => Some(since + REST),
            _ => None,
        }
    }

    /// How many are free, resting ones included.
    pub fn len(&self) -> usize {
        self.rested.len() + self.resting.len()
    }

    /// Whether none is free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_rests_before_it_is_given_out_again_and_the_oldest_goes_first() {
        let start = Instant::now();
        let mut free: FreeList = (1..=2).collect();
        assert_eq!(free.take(start), Some(1));
        free.give_back(1, start);
        assert_eq!(free.take(start), Some(2));
        assert_eq!(free.next_rested(), Some(start + REST));
        assert_eq!(free.take(start), None);
        assert_eq!(free.take(start + REST), Some(1));
    }

    #[test]
    fn what_an_earlier_agent_used_rests_and_what_nobody_used_does_not() {
        let start = Instant::now();
        let mut free = FreeList::found(1..3, &BTreeMap::from([(1, 7)]), start);
        assert_eq!(free.take(start), Some(2));
        assert_eq!(free.take(start), None);
        assert_eq!(free.take(start + REST), Some(1));
    }

    #[test]
    fn a_claimed_index_is_not_given_out() {
        let mut free: FreeList = (1..=2).collect();
        free.claim(1);
        assert_eq!(free.take(Instant::now()), Some(2));
        assert!(free.is_empty());
    }

    #[test]
    fn whichever_is_claimed_the_others_are_given_out_in_their_order() {
        let start = Instant::now();
        let later = start + REST;
        for claimed in 1..=6 {
            let mut free: FreeList = (1..=3).collect();
            for index in 4..=6 {
                free.give_back(index, start);
            }
            assert_eq!(free.len(), 6);
            free.claim(claimed);
            assert_eq!(free.len(), 5);
            let given: Vec<_> = std::iter::from_fn(|| free.take(later)).collect();
            let others: Vec<_> = (1..=6).filter(|&it| it != claimed).collect();
            assert_eq!(given, others);
            assert!(free.is_empty());
            // One that is in use already changes nothing.
            free.claim(claimed);
            assert!(free.is_empty());
        }
    }

    #[test]
    fn the_first_that_fits_is_taken_and_those_before_it_go_to_the_end() {
        let start = Instant::now();
        let mut free: FreeList = (1..=3).collect();
        assert_eq!(free.take_if(start, |it| it % 2 == 0), Some(2));
        assert_eq!(free.take_if(start, |it| it % 2 == 0), None);
        let given: Vec<_> = std::iter::from_fn(|| free.take(start)).collect();
        assert_eq!(given, [3, 1]);
        free.give_back(2, start);
        assert_eq!(free.take_if(start, |_| true), None);
        assert_eq!(free.take_if(start + REST, |_| true), Some(2));
    }

    #[test]
    fn what_was_not_used_after_all_is_given_out_first() {
        let mut free: FreeList = (2..=3).collect();
        free.untake(1);
        assert_eq!(free.take(Instant::now()), Some(1));
    }

    #[test]
    fn nothing_is_waited_for_while_one_has_rested_or_none_rests() {
        let start = Instant::now();
        let mut free: FreeList = (1..=1).collect();
        assert!(!free.is_empty());
        assert_eq!(free.next_rested(), None);
        free.give_back(2, start);
        assert_eq!(free.next_rested(), None);
        free.claim(1);
        assert_eq!(free.next_rested(), Some(start + REST));
        let just_before = start + REST - Duration::from_nanos(1);
        assert_eq!(free.take(just_before), None);
        assert_eq!(free.take(start + REST), Some(2));
        assert_eq!(free.next_rested(), None);
    }
}
