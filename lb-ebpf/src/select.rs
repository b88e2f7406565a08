//! The choice of a backend from the slots of a service.

use core::{
    hint::{black_box, cold_path},
    num::{NonZeroU32, NonZeroU64},
};

use lb_common::{Balance, SLOTS, random_slot};

/// What the choice reads. A backend is its index.
pub trait Slots {
    /// An integer that is another one for each choice, and spread evenly over choices.
    fn random(&self) -> u32;
    /// An integer that is the same for every flow of the client, and spread evenly over clients.
    fn client(&self) -> u32;
    /// The service's turn: a number that grows by one with each call, across all CPUs.
    fn turn(&self) -> u64;
    /// The backend in `slot`, which may be up to twice [`SLOTS`]: the slots are a ring.
    fn backend(&self, slot: u32) -> u32;
    /// How loaded a backend is.
    fn load(&self, backend: u32) -> Load;
    /// Whether the kernel saw the backend fail a moment ago.
    fn suspected(&self, backend: u32) -> bool;
    /// The first backend after slot `first` of `count` that is not suspected: [`unsuspected_after`], as the verifier
    /// likes it.
    fn unsuspected_after(&self, first: u32, count: u32) -> Option<u32>;
}

/// How loaded a backend is, for least-connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Open flows.
    pub flows: u64,
    /// Relative share, at least 1.
    pub weight: u16,
}

/// Chooses a backend among `count` slots (1 to [`SLOTS`]).
///
/// A suspected backend is skipped only while another one is not suspected, so that no client can take a
/// service down.
#[inline(always)]
pub fn select(balance: Balance, count: NonZeroU32, slots: &impl Slots) -> u32 {
    // Not zero by its type: a division by zero would bring a panic into the program.
    let turns = NonZeroU64::from(count);
    let count = count.get();
    let (first, rest) = match balance {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the remainder is below `count`"
        )]
        Balance::RoundRobin => ((slots.turn() % turns) as u32, 0),
        Balance::LeastConn | Balance::Random => random_slot(slots.random(), count),
        Balance::Maglev => random_slot(slots.client(), count),
    };
    let mut choice = slots.backend(first);
    let mut loser = choice;
    if matches!(balance, Balance::LeastConn) && count > 1 {
        // Another slot than the first: choosing the same one twice would be one random choice.
        let (after, _) = random_slot(rest, count - 1);
        let other = slots.backend(first + 1 + after);
        if less_loaded(slots.load(other), slots.load(choice)) {
            choice = other;
        } else {
            loser = other;
        }
    }
    // Of the winner only: a suspicion is rare.
    if !slots.suspected(choice) {
        return choice;
    }
    cold_path();
    if !slots.suspected(loser) {
        return loser;
    }
    slots.unsuspected_after(first, count).unwrap_or(choice)
}

/// The first backend after slot `first` that is not suspected. The rare path.
///
/// A half is filled with its sequence of backends over and over, so the slots that follow `first` hold all
/// of them without a jump back, which would multiply the states that the verifier walks through.
#[inline(always)]
pub fn unsuspected_after(
    first: u32,
    count: u32,
    backend: impl Fn(u32) -> u32,
    suspected: impl Fn(u32) -> bool,
) -> Option<u32> {
    // A sequence longer than half of the slots may meet the end of the half, where it is cut off.
    let steps = if count > SLOTS / 2 { SLOTS } else { count };
    // Bounded by a constant for the verifier.
    for step in 1..SLOTS {
        // Not to be seen through: see `slots_name` in the program.
        let step = black_box(step);
        if step >= steps {
            break;
        }
        let backend = backend(first.wrapping_add(step));
        if !suspected(backend) {
            return Some(backend);
        }
    }
    None
}

/// Whether `a` carries fewer flows for its weight than `b`. The flow about to be added counts, so that
/// of two idle backends the heavier one is less loaded.
#[inline(always)]
pub const fn less_loaded(a: Load, b: Load) -> bool {
    (a.flows + 1) * (b.weight as u64) < (b.flows + 1) * (a.weight as u64)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        collections::{BTreeMap, BTreeSet},
    };

    use proptest::prelude::*;

    use super::*;

    /// A service with backends 1, 2, … in its slots, over and over, as the agent fills them.
    #[derive(Default)]
    struct Model {
        random: Cell<u32>,
        client: u32,
        turn: Cell<u64>,
        loads: Vec<Load>,
        /// How many loads were read.
        weighed: Cell<u32>,
        suspects: BTreeSet<u32>,
    }

    impl Slots for Model {
        fn random(&self) -> u32 {
            self.random.get()
        }
        fn client(&self) -> u32 {
            self.client
        }
        fn turn(&self) -> u64 {
            self.turn.replace(self.turn.get() + 1)
        }
        fn backend(&self, slot: u32) -> u32 {
            slot % SLOTS % u32::try_from(self.loads.len()).unwrap() + 1
        }
        fn load(&self, backend: u32) -> Load {
            self.weighed.set(self.weighed.get() + 1);
            self.loads[backend as usize - 1]
        }
        fn suspected(&self, backend: u32) -> bool {
            self.suspects.contains(&backend)
        }
        fn unsuspected_after(&self, first: u32, count: u32) -> Option<u32> {
            unsuspected_after(
                first,
                count,
                |slot| self.backend(slot),
                |backend| self.suspected(backend),
            )
        }
    }

    fn model(flows: &[u64], suspects: &[u32]) -> Model {
        let loads = flows
            .iter()
            .map(|&flows| Load { flows, weight: 1 })
            .collect();
        Model {
            loads,
            suspects: suspects.iter().copied().collect(),
            ..Model::default()
        }
    }

    fn choose(balance: Balance, count: u32, model: &Model) -> u32 {
        select(balance, NonZeroU32::new(count).unwrap(), model)
    }

    #[test]
    fn round_robin_visits_every_backend_in_turn() {
        let model = model(&[0, 0, 0], &[]);
        let visited: Vec<_> = (0..6)
            .map(|_| choose(Balance::RoundRobin, 3, &model))
            .collect();
        assert_eq!(visited, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn a_client_is_given_the_slot_it_hashes_to_whatever_the_load() {
        let mut model = model(&[9, 0, 0, 0], &[]);
        for (client, expect) in [(0, 1), (u32::MAX / 2 + 1, 3), (u32::MAX, 4)] {
            model.client = client;
            model.random.set(model.random.get().wrapping_add(77));
            assert_eq!(choose(Balance::Maglev, 4, &model), expect);
        }
    }

    #[test]
    fn of_two_random_backends_the_less_loaded_one_wins() {
        // Zero draws slot 0, then the slot after it.
        for (flows, expect) in [([5, 2], 2), ([2, 5], 1), ([3, 3], 1)] {
            let model = model(&flows, &[]);
            model.random.set(0);
            assert_eq!(choose(Balance::LeastConn, 2, &model), expect, "{flows:?}");
        }
    }

    #[test]
    fn the_most_loaded_of_three_never_wins_for_it_meets_another_one_each_time() {
        for draw in 0..1_u32 << 12 {
            let model = model(&[9, 0, 0], &[]);
            model.random.set(draw.wrapping_mul(0x9e37_79b1));
            assert_ne!(choose(Balance::LeastConn, 3, &model), 1, "{draw}");
            assert_eq!(model.weighed.get(), 2);
        }
        // A backend alone meets nobody.
        let alone = model(&[9], &[]);
        assert_eq!(choose(Balance::LeastConn, 1, &alone), 1);
        assert_eq!(alone.weighed.get(), 0);
    }

    #[test]
    fn one_random_number_draws_every_pair_of_slots_equally_often() {
        let count = 7;
        let mut pairs: BTreeMap<_, u32> = BTreeMap::new();
        for draw in 0..1_u32 << 20 {
            // Odd and large: it visits the whole range evenly.
            let random = draw.wrapping_mul(0x9e37_79b1);
            let (first, rest) = random_slot(random, count);
            let (after, _) = random_slot(rest, count - 1);
            *pairs
                .entry((first, (first + 1 + after) % count))
                .or_default() += 1;
        }
        assert_eq!(pairs.len(), 42);
        let even = (1 << 20) / 42;
        for (pair, times) in pairs {
            assert!(
                pair.0 != pair.1 && times.abs_diff(even) < even / 50,
                "{pair:?} {times}"
            );
        }
    }

    #[test]
    fn a_heavier_backend_carries_more_flows_before_it_counts_as_loaded() {
        let heavy = Load {
            flows: 5,
            weight: 4,
        };
        let light = Load {
            flows: 2,
            weight: 1,
        };
        assert!(less_loaded(heavy, light));
        assert!(!less_loaded(light, heavy));
        // By their loads and not by their weights alone.
        let [few, many] = [9, 19].map(|flows| Load { flows, weight: 10 });
        assert!(less_loaded(few, many) && !less_loaded(many, few));
        // Of two that are idle, the heavier one is less loaded; of two alike, none.
        let [light, heavy] = [1, 5].map(|weight| Load { flows: 0, weight });
        assert!(less_loaded(heavy, light) && !less_loaded(light, heavy));
        assert!(!less_loaded(light, light));
    }

    #[test]
    fn where_all_are_suspected_each_is_looked_at_once_or_the_half_to_its_end() {
        for (count, looks) in [(1, 0), (3, 2), (512, 511), (513, 1023), (SLOTS, 1023)] {
            let looked = Cell::new(0);
            let suspected = |_| {
                looked.set(looked.get() + 1);
                true
            };
            assert_eq!(unsuspected_after(7, count, |slot| slot, suspected), None);
            assert_eq!(looked.get(), looks, "{count}");
        }
        // The one after the first comes first.
        assert_eq!(unsuspected_after(7, 3, |slot| slot, |_| false), Some(8));
    }

    #[test]
    fn a_suspect_is_used_when_there_is_nothing_else() {
        let only = model(&[0], &[1]);
        assert_eq!(choose(Balance::RoundRobin, 1, &only), 1);
        let all = model(&[0, 0], &[1, 2]);
        assert_eq!(choose(Balance::RoundRobin, 2, &all), 1);
    }

    proptest! {
        #[test]
        fn a_random_slot_is_always_in_use(random: u32, count in 1..=1024_u32) {
            prop_assert!(random_slot(random, count).0 < count);
        }

        #[test]
        fn a_suspect_is_never_chosen_while_another_backend_is_not(
            flows in prop::collection::vec(0..100_u64, 1..=SLOTS as usize),
            trusted in prop::collection::btree_set(1..=SLOTS, 0..3),
            random: u32,
            turn: u32,
            balance in prop::sample::select(vec![Balance::LeastConn, Balance::RoundRobin, Balance::Random, Balance::Maglev]),
        ) {
            let count = u32::try_from(flows.len()).unwrap();
            let suspects: Vec<_> = (1..=count).filter(|backend| !trusted.contains(backend)).collect();
            let model = model(&flows, &suspects);
            model.random.set(random);
            model.turn.set(turn.into());
            let chosen = choose(balance, count, &model);
            prop_assert!((1..=count).contains(&chosen));
            let alternative = (1..=count).any(|backend| !suspects.contains(&backend));
            prop_assert!(!suspects.contains(&chosen) || !alternative);
        }
    }
}
