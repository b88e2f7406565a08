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
    let members = members.iter().copied().zip(0..);
    table_of(members.collect(), size)
}

/// The same with what stands for each member in the place of its index.
pub fn table_of<T: Copy>(members: Vec<(Member<'_>, T)>, size: Size) -> Vec<T> {
    match size {
        Size::Sockets => fill::<T, SOCKETS>(members),
        Size::Packets => fill::<T, PACKETS>(members),
    }
}

fn fill<T: Copy, const SLOTS: usize>(mut members: Vec<(Member<'_>, T)>) -> Vec<T> {
    members.retain(|(member, _)| member.weight > 0);
    // The turns go by identity: the order of the list differs from host to host.
    members.sort_by_key(|(member, _)| member.identity);
    let walks = members
        .iter()
        .map(|(member, sign)| Walk::new(*sign, member));
    let mut walks: Vec<Walk<T, SLOTS>> = walks.collect();
    // In each round the heaviest take a slot, the others in proportion to them.
    let Some(heaviest) = walks.iter().map(|walk| walk.weight).max() else {
        return Vec::new();
    };
    // Until all slots are taken nobody sees who has them.
    let anybody = walks[0].sign;
    // In the first one everybody does, however light.
    for walk in &mut walks {
        walk.credit = heaviest;
    }
    let mut slots = vec![anybody; SLOTS];
    let mut free = Free::all();
    loop {
        for walk in &mut walks {
            if walk.credit >= heaviest {
                walk.credit -= heaviest;
                free.claim(walk);
                slots[walk.at] = walk.sign;
                if free.count == 0 {
                    return slots;
                }
            }
            walk.credit += walk.weight;
        }
    }
}

/// A member's way through the slots: all of them once, in an order of its own.
struct Walk<T, const SLOTS: usize> {
    /// What stands for the member.
    sign: T,
    weight: u32,
    credit: u32,
    at: usize,
    skip: usize,
}

impl<T, const SLOTS: usize> Walk<T, SLOTS> {
    fn new(sign: T, it: &Member<'_>) -> Self {
        // Two hashes, so that members that begin at one slot go on to different ones.
        let offset = XxHash64::oneshot(SEED, it.identity);
        let skip = XxHash3_64::oneshot_with_seed(SEED, it.identity);
        // Less than the size, so they fit.
        let below = |hash: u64, limit: usize| usize::try_from(hash % limit as u64).unwrap_or(0);
        Self {
            sign,
            weight: it.weight.into(),
            credit: 0,
            at: below(offset, SLOTS),
            skip: below(skip, SLOTS - 1) + 1,
        }
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

/// The slot that is so far from another: both less than the size.
fn onward<const SLOTS: usize>(from: usize, by: usize) -> usize {
    let sum = from + by;
    // The lesser of both, for what is below zero wraps around: a branch could not be foretold.
    sum.min(sum.wrapping_sub(SLOTS))
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
    fn claim<T>(&mut self, walk: &mut Walk<T, SLOTS>) {
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

    fn walk<T>(&mut self, walk: &mut Walk<T, SLOTS>) {
        let onward = onward::<SLOTS>;
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

    fn jump<T>(&mut self, walk: &mut Walk<T, SLOTS>) {
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

/// Another value would move every client to another backend.
const SEED: u64 = 0;

#[cfg(test)]
mod tests;
