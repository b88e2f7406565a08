//! One round: for one set of names who has what, who waits for a record, and what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use super::{Allocator, Given, Left};
use crate::{
    catalog::Problem,
    snapshot::ServiceName,
    vip::{
        Names, Wanted,
        record::{Owner, PREFIX},
    },
};

/// Names that need a record, by the address that each would have.
pub type Claims = BTreeMap<Ipv4Addr, ServiceName>;

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
    /// Gives every name an address, or says why not. `now` is the time since 1970.
    pub fn allocate(&mut self, wanted: &Wanted, now: Duration) -> Round {
        let names = &*wanted.names;
        // Who may still be there has not left: its address is kept for it, however long a source is away.
        if wanted.answered {
            self.end_quarantines(names, now);
        }
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
                         deletes the key {PREFIX}{address} in Consul"
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
}

/// Percent of the pool from which on its end is in sight.
const NEARLY_FULL: usize = 90;
