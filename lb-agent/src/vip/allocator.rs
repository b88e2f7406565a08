//! Which service has which VIP. Pure: names and records come in, addresses and claims go out.
//!
//! In order: a user's wish, a record, what the agent gave before, the name's home (a hash, so that hosts
//! agree without talking). Only a name whose home is another's needs a record, which the caller sees to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{Names, pool::Pool};
use crate::{catalog::Problem, snapshot::ServiceName};

/// Addresses and the names recorded for them; `None` for a record that cannot be read, whose address
/// nobody can have.
pub(super) type Records = BTreeMap<Ipv4Addr, Option<ServiceName>>;

/// Names that need a record, by the address that each would have.
pub(super) type Claims = BTreeMap<Ipv4Addr, ServiceName>;

/// Gives addresses, and remembers them for the agent's life.
#[derive(Clone, Debug)]
pub(super) struct Allocator {
    pool: Pool,
    datacenter: String,
    /// What was given, also to names that are gone: they may come back, and clients may remember.
    given: BTreeMap<ServiceName, Ipv4Addr>,
    /// All known records.
    records: Records,
    /// Those that other hosts know too.
    shared: Records,
}

/// The outcome for one set of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Who has what.
    pub(super) by_name: BTreeMap<ServiceName, Ipv4Addr>,
    /// Who waits for a record, in no way served until then.
    pub(super) claims: Claims,
    pub(super) problems: Vec<Problem>,
}

impl Allocator {
    pub(super) fn new(pool: Pool, datacenter: String, records: Records) -> Self {
        Self {
            pool,
            datacenter,
            given: BTreeMap::new(),
            records,
            shared: Records::new(),
        }
    }

    /// Gives every name an address, or says why not.
    pub(super) fn allocate(&mut self, names: &Names) -> Round {
        if let Some(round) = self.attempt(names) {
            return round;
        }
        // Full: the addresses of those who left are needed now.
        self.given.retain(|name, _| names.contains_key(name));
        let mut problems = Vec::new();
        self.attempt_with(names, &mut |name, pool| {
            problems.push(Problem::new(
                format!("service {name}"),
                format!("has no VIP: the pool {pool} is full; give a larger one with --pool"),
            ));
            true
        })
        .map(|mut round| {
            round.problems.append(&mut problems);
            round
        })
        .unwrap_or_default()
    }

    fn attempt(&mut self, names: &Names) -> Option<Round> {
        self.attempt_with(names, &mut |_, _| false)
    }

    /// Calls `full` for each name that the pool has no room for; gives up, with nothing changed, when that
    /// says so.
    fn attempt_with(
        &mut self,
        names: &Names,
        full: &mut dyn FnMut(&ServiceName, Pool) -> bool,
    ) -> Option<Round> {
        let mut round = Round::default();
        let mut taken: BTreeSet<Ipv4Addr> = BTreeSet::new();
        self.grant_wishes(names, &mut taken, &mut round);
        self.keep_records(names, &mut taken, &mut round);

        // What was given stays, unless a wish or a record has come for it.
        let mut given = BTreeMap::new();
        for (name, address) in &self.given {
            if round.by_name.contains_key(name) || !taken.insert(*address) {
                continue;
            }
            if names.contains_key(name) {
                round.by_name.insert(name.clone(), *address);
            } else {
                given.insert(name.clone(), *address);
            }
        }

        let mut crowded = Vec::new();
        for name in names
            .keys()
            .filter(|name| !round.by_name.contains_key(name))
            .collect::<Vec<_>>()
        {
            let home = self.pool.home(&self.datacenter, name);
            if taken.insert(home) {
                round.by_name.insert(name.clone(), home);
            } else {
                crowded.push((name, home));
            }
        }
        for (name, home) in crowded {
            if taken.len() >= self.pool.size() {
                if !full(name, self.pool) {
                    return None;
                }
                continue;
            }
            let mut address = home;
            while !taken.insert(address) {
                address = self.pool.after(address);
            }
            round.claims.insert(address, name.clone());
        }

        given.extend(round.by_name.clone());
        self.given = given;
        Some(round)
    }

    fn grant_wishes(&self, names: &Names, taken: &mut BTreeSet<Ipv4Addr>, round: &mut Round) {
        for (name, wish) in names {
            let Some(wish) = *wish else { continue };
            let recorded = self.records.get(&wish);
            let why_not = if !self.pool.serves(wish) {
                format!(
                    "is not one that services may have in the pool {}",
                    self.pool
                )
            } else if recorded.is_some_and(|owner| owner.as_ref() != Some(name)) {
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
                        "its record cannot be read, so that nobody has it; delete the key \
                         {}{address} in Consul",
                        super::share::PREFIX
                    ),
                )),
                // Of two records, the lower address counts on every host.
                Some(name) if names.contains_key(name) && !round.by_name.contains_key(name) => {
                    round.by_name.insert(name.clone(), *address);
                }
                Some(_) => {}
            }
        }
    }

    /// Records `address` for `name`; the next [`Allocator::allocate`] gives it.
    pub(super) fn record(&mut self, address: Ipv4Addr, name: ServiceName) {
        self.records.entry(address).or_insert(Some(name));
    }

    /// Takes in the records that all hosts share. They win over ours: hosts must agree.
    pub(super) fn learn(&mut self, shared: Records) {
        let owners: BTreeSet<_> = shared.values().flatten().collect();
        self.records.retain(|_, owner| {
            // What only the store could not read is no longer of interest once the store has changed.
            owner.as_ref().is_some_and(|owner| !owners.contains(owner))
        });
        self.records.extend(shared.clone());
        self.shared = shared;
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// Records of `names` that other hosts do not know.
    pub(super) fn unshared(&self, names: &Names) -> Claims {
        let ours = self.records.iter().filter_map(|(address, owner)| {
            let name = owner.as_ref().filter(|name| names.contains_key(name))?;
            let known = self.shared.contains_key(address) || !self.pool.serves(*address);
            (!known).then(|| (*address, name.clone()))
        });
        ours.collect()
    }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
