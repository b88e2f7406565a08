//! Which service has which VIP. Pure: names, records and the time come in, addresses and claims go out.
//!
//! In order: an operator's pin, a user's wish, a record, what the agent gave before, the name's home (a hash, so
//! that hosts agree without talking). Only a name whose home is another's needs a record, which the caller sees
//! to. The address of a name that left is in quarantine for a while: clients may remember it, so that nobody else
//! has it but by a wish or a record.

mod listed;
mod round;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

pub use self::round::{Claims, Round};
use super::{Names, pool::Pool, record::Owner};
use crate::snapshot::ServiceName;

/// Addresses and whom they are recorded for; `None` for a record that cannot be read, whose address nobody can
/// have.
pub type Records = BTreeMap<Ipv4Addr, Option<Owner>>;

/// Gives addresses, and remembers them for the agent's life.
#[derive(Clone, Debug)]
pub struct Allocator {
    pool: Pool,
    datacenter: String,
    quarantine: Duration,
    /// What the names that are there have.
    given: BTreeMap<ServiceName, Given>,
    /// What others had: in quarantine.
    left: BTreeMap<Ipv4Addr, Left>,
    /// All known records.
    records: Records,
    /// Those that other hosts know too.
    shared: Records,
}

/// The address of a name that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// It.
    pub address: Ipv4Addr,
    /// When it was given, since 1970.
    pub since: Duration,
}

/// Whose an address was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Theirs who left it.
    pub name: ServiceName,
    /// When it left or moved, since 1970.
    pub since: Duration,
}

impl Allocator {
    /// `left` is what an earlier agent left in quarantine.
    pub fn new(
        pool: Pool,
        datacenter: String,
        quarantine: Duration,
        records: Records,
        left: BTreeMap<Ipv4Addr, Left>,
    ) -> Self {
        let left = left
            .into_iter()
            .filter(|(it, _)| pool.serves(*it))
            .collect();
        Self {
            pool,
            datacenter,
            quarantine,
            given: BTreeMap::new(),
            left,
            records,
            shared: Records::new(),
        }
    }

    /// When the next quarantine ends, since 1970, if every source has answered by then.
    pub fn next_end(&self) -> Option<Duration> {
        let first = self.left.values().map(|left| left.since).min()?;
        Some(first.saturating_add(self.quarantine))
    }

    /// Records `address` for `owner`; the next [`Allocator::allocate`] gives it. A pin takes the place of all
    /// other records of its name.
    pub fn record(&mut self, address: Ipv4Addr, owner: Owner) {
        if owner.pinned {
            // Consul may have told of it already.
            let known = self.records.get(&address).and_then(Option::as_ref);
            let seen = known
                .filter(|it| it.name == owner.name)
                .and_then(|it| it.seen);
            self.records
                .retain(|_, other| other.as_ref().is_none_or(|it| it.name != owner.name));
            self.records.insert(address, Some(Owner { seen, ..owner }));
        } else {
            self.records.entry(address).or_insert(Some(owner));
        }
    }

    /// Forgets the record of `address`. Whoever is there leaves it, and clients may remember that.
    pub fn release(&mut self, address: Ipv4Addr, now: Duration) {
        self.records.remove(&address);
        self.shared.remove(&address);
        let (given, left) = (&mut self.given, &mut self.left);
        given.retain(|name, given| {
            let stays = given.address != address;
            if !stays {
                let name = name.clone();
                left.insert(address, Left { name, since: now });
            }
            stays
        });
    }

    /// Ends this quarantine of `address`, and none that began since.
    pub fn end_quarantine(&mut self, address: Ipv4Addr, quarantine: &Left) {
        if self.left.get(&address) == Some(quarantine) {
            self.left.remove(&address);
        }
    }

    /// Takes in the records that all hosts share, from an answer with this index. They win over ours: hosts must
    /// agree.
    pub fn learn(&mut self, shared: Records, index: u64, now: Duration) {
        let owners: BTreeSet<_> = shared.values().flatten().map(|owner| &owner.name).collect();
        let mut released = Vec::new();
        self.records.retain(|address, owner| {
            // What only the store could not read is no longer of interest once the store has changed.
            let Some(owner) = owner else { return false };
            if shared.contains_key(address) {
                return true;
            }
            let gone = owner.seen.is_some_and(|seen| index >= seen);
            if gone {
                released.push(*address);
            }
            !gone && !owners.contains(&owner.name)
        });
        for address in released {
            self.release(address, now);
        }
        for (address, owner) in &shared {
            let known = self.records.get(address).and_then(Option::as_ref);
            let first = known.and_then(|it| it.seen).filter(|seen| *seen <= index);
            let seen = Some(first.unwrap_or(index));
            let owner = owner.clone().map(|owner| Owner { seen, ..owner });
            self.records.insert(*address, owner);
        }
        self.shared = shared;
    }

    /// All known records.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The addresses in quarantine.
    pub fn left(&self) -> &BTreeMap<Ipv4Addr, Left> {
        &self.left
    }

    /// Every address that a name has or had.
    pub fn known(&self) -> BTreeMap<Ipv4Addr, (&ServiceName, Option<Duration>)> {
        let given = self.given.iter();
        let given = given.map(|(name, given)| (given.address, (name, None)));
        let left = self.left.iter();
        let left = left.map(|(address, left)| (*address, (&left.name, Some(left.since))));
        given.chain(left).collect()
    }

    /// The pool that addresses are given of.
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// Records of `names` that other hosts do not know.
    pub fn unshared(&self, names: &Names) -> BTreeMap<Ipv4Addr, Owner> {
        let ours = self.records.iter().filter_map(|(address, owner)| {
            let owner = owner.as_ref().filter(|it| names.contains_key(&it.name))?;
            let known = self.shared.contains_key(address) || !self.pool.serves(*address);
            (!known).then(|| (*address, owner.clone()))
        });
        ours.collect()
    }
}

#[cfg(test)]
mod tests;
