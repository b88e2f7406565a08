//! Maglev's table: which member serves a hash, spread evenly and hardly moved when a member comes or goes
//! (Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Pure, and the same on every host and in every version of the agent: it depends on the members' identities and
//! weights alone, not on their order. So a client keeps its backend whichever host chooses it.

use twox_hash::{XxHash3_64, XxHash64};

/// One that takes slots.
#[derive(Clone, Copy, Debug)]
pub struct Member<'m> {
    /// What it is everywhere: never an index or an id that only this host knows.
    pub identity: &'m [u8],
    /// Its share beside the others; 0 takes no slot.
    pub weight: u16,
}

/// The number of slots in a table: a prime, so that every step through it reaches every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For connects: the greatest prime that one half of a table in the maps holds.
    Sockets,
    /// For packets.
    Packets,
}

impl Size {
    /// How many slots that are.
    pub const fn slots(self) -> usize {
        match self {
            Self::Sockets => SOCKETS,
            Self::Packets => PACKETS,
        }
    }
}

const SOCKETS: usize = 1021;
const PACKETS: usize = 65_537;

/// For each slot the index of its member; empty without a member of any weight. Every member of some weight has a
/// slot, unless there are more of them than slots: then those with the lowest identities have them.
pub fn table(members: &[Member<'_>], size: Size) -> Vec<u32> {
    match size {
        Size::Sockets => fill::<SOCKETS>(members),
        Size::Packets => fill::<PACKETS>(members),
    }
}

fn fill<const SLOTS: usize>(members: &[Member<'_>]) -> Vec<u32> {
    let mut walks: Vec<Walk<SLOTS>> = (0..)
        .zip(members)
        .filter(|(_, member)| member.weight > 0)
        .map(|(index, member)| Walk::new(index, member))
        .collect();
    // The turns go by identity: the order of the list differs from host to host.
    walks.sort_by_key(|walk| members[walk.member as usize].identity);
    // In each round the heaviest take a slot, the others in proportion to them.
    let Some(heaviest) = walks.iter().map(|walk| walk.weight).max() else {
        return Vec::new();
    };
    // In the first one everybody does, however light.
    for walk in &mut walks {
        walk.credit = heaviest;
    }
    let mut slots = vec![NOBODY; SLOTS];
    let mut free = Free::all();
    loop {
        for walk in &mut walks {
            if walk.credit >= heaviest {
                walk.credit -= heaviest;
                free.claim(walk);
                slots[walk.at] = walk.member;
                if free.count == 0 {
                    return slots;
                }
            }
            walk.credit += walk.weight;
        }
    }
}

/// A member's way through the slots: all of them once, in an order of its own.
struct Walk<const SLOTS: usize> {
    member: u32,
    weight: u32,
    credit: u32,
    at: usize,
    skip: usize,
}

impl<const SLOTS: usize> Walk<SLOTS> {
    fn new(member: u32, it: &Member<'_>) -> Self {
        // Two hashes, so that members that begin at one slot go on to different ones.
        let offset = XxHash64::oneshot(SEED, it.identity);
        let skip = XxHash3_64::oneshot_with_seed(SEED, it.identity);
        // Less than the size, so they fit.
        let below = |hash: u64, limit: usize| usize::try_from(hash % limit as u64).unwrap_or(0);
        Self {
            member,
            weight: it.weight.into(),
            credit: 0,
            at: below(offset, SLOTS),
            skip: below(skip, SLOTS - 1) + 1,
        }
    }

    /// The slot that is so far from another: both less than the size.
    fn onward(from: usize, by: usize) -> usize {
        let sum = from + by;
        // The lesser of both, for what is below zero wraps around: a branch could not be foretold.
        sum.min(sum.wrapping_sub(SLOTS))
    }

    /// By what a distance is to be multiplied to have the number of steps that cover it: the inverse of one step (Fermat).
    fn steps(&self) -> usize {
        let (mut power, mut base, mut exponent) = (1, self.skip, SLOTS - 2);
        while exponent > 0 {
            if exponent % 2 == 1 {
                power = power * base % SLOTS;
            }
            base = base * base % SLOTS;
            exponent /= 2;
        }
        power
    }
}

/// The slots that nobody has.
struct Free<const SLOTS: usize> {
    /// A bit for each: they are asked for ten times as often as there are slots, and so few bytes stay in the nearest cache.
    bits: Vec<u64>,
    count: usize,
    /// The last of them by number, once they are few: who walked would pass hundreds of taken ones to find one.
    last: Vec<usize>,
}

impl<const SLOTS: usize> Free<SLOTS> {
    /// As many as can be looked through in the time of an average walk to one of them.
    const FEW: usize = SLOTS.isqrt() / 2;

    fn all() -> Self {
        Self {
            bits: vec![u64::MAX; SLOTS.div_ceil(64)],
            count: SLOTS,
            last: Vec::new(),
        }
    }

    /// Leads a member to the next of them on its way, and takes it. There is one.
    fn claim(&mut self, walk: &mut Walk<SLOTS>) {
        if self.count > Self::FEW {
            self.walk(walk);
        } else {
            if self.last.is_empty() {
                self.last = (0..SLOTS).filter(|&slot| self.has(slot) == 1).collect();
            }
            self.jump(walk);
        }
        self.count -= 1;
    }

    fn walk(&mut self, walk: &mut Walk<SLOTS>) {
        let onward = Walk::<SLOTS>::onward;
        let two = onward(walk.skip, walk.skip);
        let (three, four) = (onward(two, walk.skip), onward(two, two));
        let mut at = walk.at;
        // Four at a time: none of the look-ups waits for another, and there are fewer branches that cannot be foretold.
        loop {
            let next = [
                at,
                onward(at, walk.skip),
                onward(at, two),
                onward(at, three),
            ];
            let [a, b, c, d] = next;
            let free = self.has(a) | self.has(b) << 1 | self.has(c) << 2 | self.has(d) << 3;
            if free != 0 {
                walk.at = next[free.trailing_zeros() as usize % 4];
                break;
            }
            at = onward(at, four);
        }
        self.bits[walk.at / 64] &= !(1 << (walk.at % 64));
    }

    fn jump(&mut self, walk: &mut Walk<SLOTS>) {
        let steps = walk.steps();
        let away = |slot: usize| (slot + SLOTS - walk.at) * steps % SLOTS;
        let nearest = (0..self.last.len()).min_by_key(|&it| away(self.last[it]));
        walk.at = self.last.swap_remove(nearest.unwrap_or(0));
    }

    /// 1 if nobody has it, 0 otherwise.
    fn has(&self, slot: usize) -> u64 {
        self.bits[slot / 64] >> (slot % 64) & 1
    }
}

/// In a slot without a member: no list is that long.
const NOBODY: u32 = u32::MAX;

/// Another value would move every client to another backend.
const SEED: u64 = 0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection, prelude::*};

    use super::*;

    /// Identities as they are: the bytes of an address and a port.
    fn identities(count: u16) -> Vec<Vec<u8>> {
        (0..count)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                vec![10, 1, high, low, 0x1f, 0x90]
            })
            .collect()
    }

    fn weighted<'m>(identities: &'m [Vec<u8>], weights: &[u16]) -> Vec<Member<'m>> {
        let both = identities.iter().zip(weights);
        both.map(|(identity, &weight)| Member { identity, weight })
            .collect()
    }

    fn equal(identities: &[Vec<u8>]) -> Vec<Member<'_>> {
        weighted(identities, &vec![1; identities.len()])
    }

    /// The identity in each slot.
    fn owners<'m>(members: &[Member<'m>], size: Size) -> Vec<&'m [u8]> {
        let table = table(members, size);
        table
            .iter()
            .map(|&it| members[it as usize].identity)
            .collect()
    }

    /// Slots by member.
    fn counts(members: &[Member<'_>], size: Size) -> Vec<usize> {
        let mut counts = vec![0; members.len()];
        for member in table(members, size) {
            counts[member as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_sizes_are_prime_and_the_small_one_fits_the_maps() {
        for size in [Size::Sockets, Size::Packets] {
            let slots = size.slots();
            assert!((2..slots).all(|divisor| slots % divisor != 0), "{slots}");
        }
        assert!(Size::Sockets.slots() <= lb_common::SLOTS as usize);
    }

    /// Agents of all versions must agree: if this fails, clients change their backends at an upgrade.
    #[test]
    fn the_table_is_the_same_for_ever() {
        let identities = identities(7);
        let members = weighted(&identities, &[1, 1, 2, 3, 0, 100, 50]);
        let digest = |size| {
            let slots = table(&members, size);
            let bytes: Vec<u8> = slots.iter().map(|&it| it.try_into().unwrap()).collect();
            XxHash64::oneshot(0, &bytes)
        };
        assert_eq!(digest(Size::Sockets), 7_274_263_284_405_976_473);
        assert_eq!(digest(Size::Packets), 8_373_542_858_675_898_631);
    }

    #[test]
    fn nobody_gives_no_table_and_one_has_all_of_it() {
        assert!(table(&[], Size::Sockets).is_empty());
        let identities = identities(2);
        assert!(table(&weighted(&identities, &[0, 0]), Size::Sockets).is_empty());
        let alone = table(&weighted(&identities, &[0, 9]), Size::Sockets);
        assert_eq!(alone, [1; 1021]);
    }

    #[test]
    fn equal_members_have_equal_shares() {
        for (count, size) in [
            (3, Size::Sockets),
            (50, Size::Sockets),
            (100, Size::Packets),
        ] {
            let identities = identities(count);
            let counts = counts(&equal(&identities), size);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{count} members: {least} to {most}");
        }
    }

    #[test]
    fn shares_follow_the_weights_to_within_a_percent() {
        let weights = [1, 2, 3, 10, 50, 34];
        let identities = identities(6);
        let counts = counts(&weighted(&identities, &weights), Size::Packets);
        for (count, weight) in counts.iter().zip(weights) {
            let share = *count as f64 / 65_537.0;
            let expect = f64::from(weight) / 100.0;
            let off = (share - expect).abs() / expect;
            assert!(off < 0.01, "{weight}: {share}");
        }
    }

    #[test]
    fn even_the_lightest_has_a_slot() {
        let identities = identities(20);
        let mut weights = [1; 20];
        weights[7] = u16::MAX;
        let counts = counts(&weighted(&identities, &weights), Size::Sockets);
        for (member, &count) in counts.iter().enumerate() {
            assert_eq!(count, if member == 7 { 1021 - 19 } else { 1 });
        }
    }

    #[test]
    fn more_members_than_slots_leave_the_last_without() {
        let identities = identities(1100);
        let counts = counts(&equal(&identities), Size::Sockets);
        assert!(counts[..1021].iter().all(|&count| count == 1));
        assert!(counts[1021..].iter().all(|&count| count == 0));
    }

    /// As the paper has it: each looks at one slot after the other.
    fn plain<const SLOTS: usize>(members: &[Member<'_>]) -> Vec<u32> {
        let mut walks: Vec<Walk<SLOTS>> = (0..)
            .zip(members)
            .filter(|(_, member)| member.weight > 0)
            .map(|(index, member)| Walk::new(index, member))
            .collect();
        walks.sort_by_key(|walk| members[walk.member as usize].identity);
        let heaviest = walks.iter().map(|walk| walk.weight).max().unwrap();
        for walk in &mut walks {
            walk.credit = heaviest;
        }
        let mut slots = vec![NOBODY; SLOTS];
        let mut left = SLOTS;
        loop {
            for walk in &mut walks {
                if walk.credit >= heaviest {
                    walk.credit -= heaviest;
                    while slots[walk.at] != NOBODY {
                        walk.at = (walk.at + walk.skip) % SLOTS;
                    }
                    slots[walk.at] = walk.member;
                    left -= 1;
                    if left == 0 {
                        return slots;
                    }
                }
                walk.credit += walk.weight;
            }
        }
    }

    #[test]
    fn the_table_is_as_the_paper_has_it() {
        for count in [1, 2, 3, 10, 40, 300] {
            let identities = identities(count);
            let mut weights = vec![1; count.into()];
            for uneven in [1, 7] {
                weights[usize::from(count) / 2] = uneven;
                let members = weighted(&identities, &weights);
                let sockets = plain::<SOCKETS>(&members);
                assert_eq!(table(&members, Size::Sockets), sockets, "{count}");
                let packets = plain::<PACKETS>(&members);
                assert!(table(&members, Size::Packets) == packets, "{count}");
            }
        }
    }

    /// The share of the slots that one leaves to others and that changed hands all the same, when it goes; the same
    /// slots change back when it comes.
    fn disruption(count: u16, gone: usize, size: Size) -> f64 {
        let identities = identities(count);
        let all = equal(&identities);
        let mut rest = all.clone();
        let gone = rest.remove(gone).identity;
        let (before, after) = (owners(&all, size), owners(&rest, size));
        let kept = before.iter().zip(&after).filter(|(old, _)| **old != gone);
        let moved = kept.filter(|(old, new)| old != new).count();
        moved as f64 / size.slots() as f64
    }

    #[test]
    fn a_member_that_comes_or_goes_moves_hardly_more_than_its_own_share() {
        for (count, gone, size, limit) in [
            (10, 3, Size::Packets, 0.01),
            (100, 0, Size::Packets, 0.01),
            (100, 99, Size::Packets, 0.01),
            // Fewer slots for each member: the last free ones move more easily.
            (10, 3, Size::Sockets, 0.05),
            (50, 3, Size::Sockets, 0.07),
        ] {
            let moved = disruption(count, gone, size);
            assert!(moved < limit, "{count} members: {moved}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_the_list_does_not_matter(
            all in collection::btree_map(any::<[u8; 6]>(), 0..500_u16, 1..60).prop_flat_map(|all| {
                let all: Vec<_> = all.into_iter().collect();
                (Just(all.clone()), Just(all).prop_shuffle())
            }),
        ) {
            let members = |list: &'_ [([u8; 6], u16)]| -> Vec<(Vec<u8>, u16)> {
                list.iter().map(|(identity, weight)| (identity.to_vec(), *weight)).collect()
            };
            let (one, other) = (members(&all.0), members(&all.1));
            let owners = |list: &[(Vec<u8>, u16)]| -> Vec<Vec<u8>> {
                let members: Vec<_> = list.iter().map(|(identity, weight)| Member { identity, weight: *weight }).collect();
                owners(&members, Size::Sockets).into_iter().map(<[u8]>::to_vec).collect()
            };
            prop_assert_eq!(owners(&one), owners(&other));
        }

        #[test]
        fn every_slot_is_taken_and_by_everybody_with_a_weight(weights in collection::vec(any::<u16>(), 1..200)) {
            let identities = identities(weights.len().try_into().unwrap());
            let members = weighted(&identities, &weights);
            let mut slots: BTreeMap<u32, usize> = BTreeMap::new();
            let table = table(&members, Size::Sockets);
            for &member in &table {
                *slots.entry(member).or_default() += 1;
            }
            let weighty = weights.iter().filter(|&&weight| weight > 0).count();
            prop_assert_eq!(slots.len(), weighty);
            prop_assert!(slots.keys().all(|&member| weights[member as usize] > 0));
            prop_assert_eq!(table.len(), if weighty == 0 { 0 } else { 1021 });
        }

        #[test]
        fn weights_in_one_proportion_give_one_table(
            weights in collection::vec(0..1000_u16, 1..30), times in 1..60_u16,
        ) {
            let identities = identities(30);
            let scaled: Vec<u16> = weights.iter().map(|weight| weight * times).collect();
            prop_assert_eq!(
                table(&weighted(&identities, &weights), Size::Sockets),
                table(&weighted(&identities, &scaled), Size::Sockets)
            );
        }

        #[test]
        fn a_heavier_member_has_no_fewer_slots(weights in collection::vec(1..1000_u16, 2..30)) {
            let identities = identities(30);
            let counts = counts(&weighted(&identities, &weights), Size::Sockets);
            for (one, other) in (0..weights.len()).flat_map(|it| (0..weights.len()).map(move |other| (it, other))) {
                // The last round may end between the two.
                if weights[one] >= weights[other] {
                    prop_assert!(counts[one] + 1 >= counts[other]);
                }
            }
        }
    }
}
