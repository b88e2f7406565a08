//! What each service has counted, so that its figures never fall: endpoints and backends come and go, and the kernel's
//! counts with them. What a service had counted where it is no more is kept as long as the service is there. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::{BackendId, Counters, ServiceKey};

use crate::{
    snapshot::{Backend, Service, ServiceName},
    stats::Handshakes,
};

/// The books of all services.
#[derive(Debug, Default)]
pub(super) struct Books {
    by_name: BTreeMap<ServiceName, Book>,
    /// Whose endpoints the maps hold.
    owners: BTreeMap<ServiceKey, ServiceName>,
}

/// What one service counts, and where.
#[derive(Debug, Default)]
struct Book {
    endpoints: BTreeMap<ServiceKey, Endpoint>,
    /// What was counted at endpoints that are gone.
    closed: Counters,
    /// Where its backends are, with what had been counted there before they were its own.
    backends: BTreeMap<SocketAddr, Option<Box<Met>>>,
    /// What was counted at backends that left, and at those of `freed`.
    parted: Handshakes,
    /// What was counted at addresses of its backends before the maps held them no more. Mostly none.
    freed: BTreeMap<SocketAddr, Freed>,
}

/// What was counted at an address that the maps do not hold any more, whosever it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) failed: u64,
    pub(super) handshakes: Handshakes,
}

#[derive(Clone, Debug)]
struct Endpoint {
    table: u32,
    /// What had been counted there for another service, if it was another's.
    before: Option<Box<Counters>>,
}

/// The handshakes with a backend, as the kernel has counted them so far.
pub(super) type Met = (BackendId, Handshakes);

impl Books {
    /// Goes over to what the maps now hold at `key`: the table, and the service that wants it. Without such a service,
    /// what is there stays its last owner's. `read` tells what was counted at a table, also for a while after it was freed.
    pub(super) fn hold(
        &mut self,
        key: ServiceKey,
        table: Option<u32>,
        wanted: Option<&ServiceName>,
        read: impl Fn(u32) -> Counters,
    ) {
        let (Some(table), Some(name)) = (table, wanted) else {
            if table.is_none() {
                self.close(key, &read);
            }
            return;
        };
        let owner = self.owners.get(&key);
        let held = owner.and_then(|owner| self.by_name.get(owner)?.endpoints.get(&key));
        let held = held.map(|it| it.table);
        if owner == Some(name) && held == Some(table) {
            return;
        }
        // Nobody clears a table that only changes hands.
        let taken_over = held == Some(table);
        self.close(key, &read);
        let before = taken_over.then(|| Box::new(read(table)));
        let book = self.by_name.entry(name.clone()).or_default();
        book.endpoints.insert(key, Endpoint { table, before });
        self.owners.insert(key, name.clone());
    }

    fn close(&mut self, key: ServiceKey, read: impl Fn(u32) -> Counters) {
        let Some(owner) = self.owners.remove(&key) else {
            return;
        };
        // The service may be gone, and its figures with it.
        if let Some(book) = self.by_name.get_mut(&owner)
            && let Some(endpoint) = book.endpoints.remove(&key)
        {
            book.closed = sum(book.closed, endpoint.counted(&read));
        }
    }

    /// Goes over to the backends that a service has now; `None` ends its book. `met` tells what was counted at a backend that
    /// the maps hold; whether that was before it came is not asked when an agent finds everything as it was (`adopting`).
    pub(super) fn meet(
        &mut self,
        name: &ServiceName,
        service: Option<&Service>,
        adopting: bool,
        met: impl Fn(SocketAddr) -> Option<Met>,
    ) {
        let Some(service) = service else {
            self.by_name.remove(name);
            return;
        };
        let there: BTreeSet<SocketAddr> = service
            .backends
            .values()
            .flat_map(Backend::addresses)
            .collect();
        let book = self.by_name.entry(name.clone()).or_default();
        let parted = &mut book.parted;
        book.backends.retain(|address, before| {
            let stays = there.contains(address);
            if !stays {
                *parted += since(met(*address), before.as_deref());
            }
            stays
        });
        book.freed.retain(|address, _| there.contains(address));
        for address in there {
            // Mostly none: it has come just now.
            let counted = |met: &Met| met.1.count() > 0;
            let before = || match adopting {
                true => None,
                false => met(address).filter(counted).map(Box::new),
            };
            book.backends.entry(address).or_insert_with(before);
        }
    }

    /// Goes over to maps without these addresses, at each of which so much was counted, and so many failures. They may still
    /// be a service's: nobody needs all the addresses of an instance.
    pub(super) fn free(&mut self, gone: &BTreeMap<SocketAddr, (Met, u64)>) {
        if gone.is_empty() {
            return;
        }
        for book in self.by_name.values_mut() {
            for (address, before) in &mut book.backends {
                let Some((met, failed)) = gone.get(address) else {
                    continue;
                };
                book.parted += since(Some(*met), before.as_deref());
                // Whatever comes to the address next has another id.
                *before = None;
                let freed = book.freed.entry(*address).or_default();
                freed.failed += failed;
                freed.handshakes += met.1;
            }
        }
    }

    /// What was counted at an address of a service before the maps held it no more, if it came to that.
    pub(super) fn freed(&self, name: &ServiceName, address: SocketAddr) -> Option<&Freed> {
        self.by_name.get(name)?.freed.get(&address)
    }

    /// All that a service has counted. `read` and `met` as above.
    pub(super) fn total(
        &self,
        name: &ServiceName,
        read: impl Fn(u32) -> Counters,
        met: impl Fn(SocketAddr) -> Option<Met>,
    ) -> (Counters, Handshakes) {
        let Some(book) = self.by_name.get(name) else {
            return Default::default();
        };
        let endpoints = book.endpoints.values();
        let counted = endpoints.fold(book.closed, |all, endpoint| {
            sum(all, endpoint.counted(&read))
        });
        let mut handshakes = book.parted;
        for (address, before) in &book.backends {
            handshakes += since(met(*address), before.as_deref());
        }
        (counted, handshakes)
    }

    /// The endpoints of a service in the maps: what looking at its figures costs.
    pub(super) fn endpoints(&self, name: &ServiceName) -> usize {
        self.by_name
            .get(name)
            .map_or(0, |book| book.endpoints.len())
    }
}

/// What was counted at a backend since; all of it if that is another one than before.
fn since(now: Option<Met>, before: Option<&Met>) -> Handshakes {
    let Some((id, mut now)) = now else {
        return Handshakes::default();
    };
    if let Some(&(_, before)) = before.filter(|(former, _)| *former == id) {
        now -= before;
    }
    now
}

impl Endpoint {
    fn counted(&self, read: impl Fn(u32) -> Counters) -> Counters {
        let now = read(self.table);
        match &self.before {
            Some(before) => less(now, **before),
            None => now,
        }
    }
}

fn sum(one: Counters, other: Counters) -> Counters {
    combine(one, other, u64::saturating_add)
}

fn less(one: Counters, other: Counters) -> Counters {
    combine(one, other, u64::saturating_sub)
}

/// Of what services show: that something could not be told is the tracers' business.
fn combine(one: Counters, other: Counters, how: fn(u64, u64) -> u64) -> Counters {
    let mut refused = one.refused;
    for (one, other) in refused.iter_mut().zip(other.refused) {
        *one = how(*one, other);
    }
    Counters {
        flows: how(one.flows, other.flows),
        failed: how(one.failed, other.failed),
        refused,
        ..Counters::default()
    }
}

#[cfg(test)]
mod tests;
