//! Which service has which VIP. Pure: names, records and the time come in, addresses and claims go out.
//!
//! In order: an operator's pin, a user's wish, a record, what the agent gave before, the name's home (a hash, so
//! that hosts agree without talking). Only a name whose home is another's needs a record, which the caller sees
//! to. The address of a name that left is in quarantine for a while: clients may remember it, so that nobody else
//! has it but by a wish or a record.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use super::{
    Names,
    order::{Entry, How},
    pool::Pool,
    record::Owner,
};
use crate::{catalog::Problem, snapshot::ServiceName};

/// Addresses and whom they are recorded for; `None` for a record that cannot be read, whose address nobody can
/// have.
pub type Records = BTreeMap<Ipv4Addr, Option<Owner>>;

/// Names that need a record, by the address that each would have.
pub type Claims = BTreeMap<Ipv4Addr, ServiceName>;

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

/// The outcome for one set of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Who has what.
    pub by_name: BTreeMap<ServiceName, Ipv4Addr>,
    /// Who waits for a record, in no way served until then.
    pub claims: Claims,
    /// What is wrong with addresses.
    pub problems: Vec<Problem>,
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

    /// Gives every name an address, or says why not. `now` is the time since 1970.
    pub fn allocate(&mut self, names: &Names, now: Duration) -> Round {
        self.end_quarantines(names, now);
        let mut round = Round::default();
        let mut taken: BTreeSet<Ipv4Addr> = BTreeSet::new();
        self.keep_pins(names, &mut taken, &mut round);
        self.grant_wishes(names, &mut taken, &mut round);
        self.keep_records(names, &mut taken, &mut round);

        // What was given stays, unless a pin, a wish or a record has come for it.
        for (name, given) in &self.given {
            if names.contains_key(name)
                && !round.by_name.contains_key(name)
                && taken.insert(given.address)
            {
                round.by_name.insert(name.clone(), given.address);
            }
        }
        // Clients may remember what others had until just now. A move to a record is how hosts come to agree
        // a moment after a start: a quarantine there would only make the next two disagree.
        let (given, left, records) = (&mut self.given, &mut self.left, &self.records);
        given.retain(|name, given| {
            let address = round.by_name.get(name);
            let stays = address == Some(&given.address);
            let record = address.and_then(|it| records.get(it)?.as_ref());
            if !stays && record.is_none_or(|record| record.pinned) {
                let name = name.clone();
                left.insert(given.address, Left { name, since: now });
            }
            stays
        });
        for address in round.by_name.values() {
            left.remove(address);
        }

        let mut crowded = Vec::new();
        for name in names.keys() {
            if round.by_name.contains_key(name) {
                continue;
            }
            let home = self.pool.home(&self.datacenter, name);
            let mine = self.left.get(&home).is_none_or(|left| left.name == *name);
            if mine && taken.insert(home) {
                self.left.remove(&home);
                round.by_name.insert(name.clone(), home);
            } else {
                crowded.push((name, home));
            }
        }
        taken.extend(self.left.keys());
        for (name, home) in crowded {
            if taken.len() >= self.pool.size() {
                // A release must not cost the service that was there its last address.
                let own = self.left.iter().find(|(_, left)| left.name == *name);
                match own.filter(|(address, _)| !self.records.contains_key(address)) {
                    Some((address, _)) => _ = round.claims.insert(*address, name.clone()),
                    None => round.problems.push(self.full(name)),
                }
                continue;
            }
            let mut address = home;
            while !taken.insert(address) {
                address = self.pool.after(address);
            }
            round.claims.insert(address, name.clone());
        }
        round.problems.extend(self.nearly_full(taken.len()));

        for (name, &address) in &round.by_name {
            if !self.given.contains_key(name) {
                let given = Given {
                    address,
                    since: now,
                };
                self.given.insert(name.clone(), given);
            }
        }
        round
    }

    fn end_quarantines(&mut self, names: &Names, now: Duration) {
        let quarantine = self.quarantine;
        let mut forgotten = BTreeSet::new();
        self.left.retain(|_, left| {
            // A clock that was set back prolongs nothing.
            left.since = left.since.min(now);
            let over = now.saturating_sub(left.since) >= quarantine;
            if over && !names.contains_key(&left.name) {
                forgotten.insert(left.name.clone());
            }
            !over
        });
        // What only this host knows ends with the quarantine; what all know, when somebody releases it.
        self.records.retain(|_, owner| {
            owner.as_ref().is_none_or(|owner| {
                owner.pinned || owner.seen.is_some() || !forgotten.contains(&owner.name)
            })
        });
    }

    /// When the next quarantine ends, since 1970.
    pub fn next_end(&self) -> Option<Duration> {
        let first = self.left.values().map(|left| left.since).min()?;
        Some(first.saturating_add(self.quarantine))
    }

    fn full(&self, name: &ServiceName) -> Problem {
        let pool = self.pool;
        let waiting = match self.left.len() {
            0 => String::new(),
            n => format!(", {n} of its addresses in quarantine after services that left"),
        };
        Problem::new(
            format!("service {name}"),
            format!(
                "has no VIP: the pool {pool} is full{waiting}; give a larger one with --pool, or see \
                 `lb-agent vip list` and release what nobody needs"
            ),
        )
    }

    fn nearly_full(&self, taken: usize) -> Option<Problem> {
        let (pool, size) = (self.pool, self.pool.size());
        let percent = taken.saturating_mul(100) / size;
        (percent >= NEARLY_FULL).then(|| {
            Problem::new(
                format!("VIP pool {pool}"),
                format!(
                    "{percent} % of its {size} addresses are in use or reserved; give a larger one with --pool \
                     before services get none, or see `lb-agent vip list` and release what nobody needs"
                ),
            )
        })
    }

    fn keep_pins(&self, names: &Names, taken: &mut BTreeSet<Ipv4Addr>, round: &mut Round) {
        for (address, owner) in self.pins() {
            taken.insert(address);
            // Of two pins, the lower address counts on every host.
            if names.contains_key(&owner.name) && !round.by_name.contains_key(&owner.name) {
                round.by_name.insert(owner.name.clone(), address);
            }
        }
    }

    fn pins(&self) -> impl Iterator<Item = (Ipv4Addr, &Owner)> {
        let records = self.records.iter();
        let pinned = records.filter_map(|(address, owner)| {
            let owner = owner.as_ref().filter(|owner| owner.pinned)?;
            Some((*address, owner))
        });
        pinned.filter(|(address, _)| self.pool.serves(*address))
    }

    fn grant_wishes(&self, names: &Names, taken: &mut BTreeSet<Ipv4Addr>, round: &mut Round) {
        for (name, wish) in names {
            let Some(wish) = *wish else { continue };
            let recorded = self.records.get(&wish).map(Option::as_ref);
            let why_not = if let Some(pin) = round.by_name.get(name) {
                if *pin == wish {
                    continue;
                }
                format!("has no effect, because an operator pinned it to {pin}")
            } else if !self.pool.serves(wish) {
                format!(
                    "is not one that services may have in the pool {}",
                    self.pool
                )
            } else if recorded.is_some_and(|owner| owner.is_none_or(|it| it.name != *name)) {
                "is recorded for another service".to_owned()
            } else if !taken.insert(wish) {
                "is wished by another service, too".to_owned()
            } else {
                round.by_name.insert(name.clone(), wish);
                continue;
            };
            round.problems.push(Problem::new(
                format!("service {name}"),
                format!(
                    "the virtual address {wish} that it asks for {why_not}; ask for another or none"
                ),
            ));
        }
    }

    fn keep_records(&self, names: &Names, taken: &mut BTreeSet<Ipv4Addr>, round: &mut Round) {
        for (address, owner) in &self.records {
            if !self.pool.serves(*address) {
                continue;
            }
            // Recorded addresses are nobody else's, whether or not their owner is here.
            taken.insert(*address);
            match owner {
                None => round.problems.push(Problem::new(
                    format!("VIP {address}"),
                    format!(
                        "its record cannot be read, so that nobody has it; `lb-agent vip release {address}` \
                         deletes the key {}{address} in Consul",
                        super::record::PREFIX
                    ),
                )),
                // Of two records, the lower address counts on every host.
                Some(Owner { name, .. })
                    if names.contains_key(name) && !round.by_name.contains_key(name) =>
                {
                    round.by_name.insert(name.clone(), *address);
                }
                Some(_) => {}
            }
        }
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

    /// Every address that somebody has or that is kept from others, in their order.
    pub fn list(&self, names: &Names) -> Vec<Entry> {
        let mut entries = BTreeMap::new();
        for (name, given) in &self.given {
            let home = self.pool.home(&self.datacenter, name);
            let how = match names.get(name) {
                Some(Some(wish)) if *wish == given.address => How::Wish,
                _ if given.address == home => How::Hash,
                _ => How::Kept,
            };
            let entry = Entry {
                address: given.address,
                service: Some(name.to_string()),
                how,
                in_use: true,
                since_unix: Some(given.since.as_secs()),
                until_unix: None,
            };
            entries.insert(given.address, entry);
        }
        for (address, left) in &self.left {
            let entry = Entry {
                address: *address,
                service: Some(left.name.to_string()),
                how: How::Quarantine,
                in_use: false,
                since_unix: Some(left.since.as_secs()),
                until_unix: Some(left.since.saturating_add(self.quarantine).as_secs()),
            };
            entries.insert(*address, entry);
        }
        for (address, owner) in &self.records {
            let here = entries.get(address).filter(|entry| entry.in_use);
            let in_use = here.is_some();
            let given = here.and_then(|entry| entry.since_unix);
            let recorded = owner.as_ref().and_then(|it| it.since);
            let entry = Entry {
                address: *address,
                service: owner.as_ref().map(|it| it.name.to_string()),
                how: match owner {
                    None => How::Unreadable,
                    Some(owner) if owner.pinned => How::Pin,
                    Some(_) if here.is_some_and(|entry| entry.how == How::Wish) => How::Wish,
                    Some(_) => How::Record,
                },
                in_use,
                since_unix: recorded.map(|since| since.as_secs()).or(given),
                until_unix: None,
            };
            entries.insert(*address, entry);
        }
        entries.into_values().collect()
    }
}

/// Percent of the pool from which on its end is in sight.
const NEARLY_FULL: usize = 90;

#[cfg(test)]
mod tests;
