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
mod tests {
    use lb_common::{Be16, Be32, HOST_VIEW, PROTO_TCP};
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn name(n: u8) -> ServiceName {
        ServiceName::whole(format!("s{n}"))
    }

    fn key(n: u8) -> ServiceKey {
        let vip = Be32::from_host(0xc612_0000 + u32::from(n));
        ServiceKey::new(vip, Be16::from_host(80), PROTO_TCP, HOST_VIEW)
    }

    fn address(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 80).into()
    }

    fn service(backends: &[u8]) -> Service {
        let backend = |n: &u8| {
            let key = crate::catalog::InstanceKey::new("n", n.to_string());
            (key, Backend::usable(address(*n)))
        };
        Service {
            vip: None,
            options: Default::default(),
            aliases: Default::default(),
            backends: backends.iter().map(backend).collect(),
        }
    }

    fn counted(flows: u64) -> Counters {
        Counters {
            flows,
            failed: flows,
            refused: [flows; 4],
            ..Counters::default()
        }
    }

    fn shaken(index: u32, count: u64) -> Met {
        let mut handshakes = Handshakes {
            micros: count,
            ..Handshakes::default()
        };
        handshakes.buckets[0] = count;
        let generation = 1;
        (BackendId { index, generation }, handshakes)
    }

    fn flows(books: &Books, of: u8, tables: &[u64]) -> u64 {
        let read = |table: u32| counted(tables[table as usize]);
        let (counters, _) = books.total(&name(of), read, |_| None);
        assert_eq!(counters, counted(counters.flows));
        counters.flows
    }

    #[test]
    fn an_endpoint_that_goes_leaves_what_it_counted() {
        let mut books = Books::default();
        let tables = [0, 5, 7];
        let read = |table: u32| counted(tables[table as usize]);
        books.hold(key(1), Some(1), Some(&name(1)), read);
        books.hold(key(2), Some(2), Some(&name(1)), read);
        assert_eq!(flows(&books, 1, &tables), 12);
        books.hold(key(2), None, None, read);
        assert_eq!(flows(&books, 1, &tables), 12);
        // Another one has its table now.
        assert_eq!(flows(&books, 1, &[0, 6, 0]), 13);
        books.hold(key(2), Some(2), Some(&name(2)), |_| counted(0));
        assert_eq!(flows(&books, 2, &[0, 6, 1]), 1);
        // What nobody wants, but is not gone yet, still counts.
        books.hold(key(1), Some(1), None, read);
        assert_eq!(flows(&books, 1, &[0, 9, 1]), 16);
        books.meet(&name(1), None, false, |_| None);
        assert_eq!(flows(&books, 1, &tables), 0);
    }

    #[test]
    fn an_endpoint_that_changes_hands_counts_for_each_what_was_its_own() {
        let mut books = Books::default();
        books.hold(key(1), Some(1), Some(&name(1)), |_| counted(0));
        books.hold(key(1), Some(1), Some(&name(2)), |_| counted(5));
        assert_eq!(flows(&books, 1, &[0, 8]), 5);
        assert_eq!(flows(&books, 2, &[0, 8]), 3);
        // In another table nothing was there before.
        books.hold(key(1), Some(2), Some(&name(1)), |table| {
            counted(u64::from(table == 1) * 8)
        });
        assert_eq!(flows(&books, 1, &[0, 99, 4]), 9);
        assert_eq!(flows(&books, 2, &[0, 99, 4]), 3);
    }

    #[test]
    fn what_was_there_before_this_agent_counts_and_what_was_there_before_its_service_does_not() {
        let mut books = Books::default();
        let count = |books: &Books, of, met: Met| {
            let (_, handshakes) = books.total(&name(of), |_| counted(0), |_| Some(met));
            assert_eq!(handshakes.micros, handshakes.count());
            handshakes.count()
        };
        books.meet(&name(1), Some(&service(&[1])), true, |_| Some(shaken(1, 4)));
        books.meet(&name(2), Some(&service(&[1])), false, |_| {
            Some(shaken(1, 6))
        });
        assert_eq!(count(&books, 1, shaken(1, 7)), 7);
        assert_eq!(count(&books, 2, shaken(1, 7)), 1);
        // It leaves one service, serves the other, and comes back.
        books.meet(&name(1), Some(&service(&[])), false, |_| Some(shaken(1, 8)));
        assert_eq!(count(&books, 1, shaken(1, 9)), 8);
        books.meet(&name(1), Some(&service(&[1])), false, |_| {
            Some(shaken(1, 10))
        });
        assert_eq!(count(&books, 1, shaken(1, 11)), 9);
        assert_eq!(count(&books, 2, shaken(1, 11)), 5);
        // It was freed in between, and counts from zero.
        assert_eq!(count(&books, 1, shaken(2, 3)), 8 + 3);
    }

    #[test]
    fn an_address_that_no_view_needs_any_more_leaves_what_was_counted_there() {
        let mut books = Books::default();
        let total = |books: &Books, met: Option<Met>| {
            let (_, handshakes) = books.total(&name(1), |_| counted(0), |_| met);
            handshakes.count()
        };
        let gone = |met| BTreeMap::from([(address(1), (met, 2))]);
        books.meet(&name(1), Some(&service(&[1, 2])), false, |_| {
            Some(shaken(1, 4))
        });
        books.free(&gone(shaken(1, 9)));
        assert_eq!(total(&books, None), 5);
        // The instance shows all that was counted at its address.
        let freed = books.freed(&name(1), address(1)).unwrap();
        assert_eq!((freed.failed, freed.handshakes.count()), (2, 9));
        assert_eq!(books.freed(&name(1), address(2)), None);
        // It is needed again, and not once more.
        books.free(&gone(shaken(2, 3)));
        assert_eq!(total(&books, None), 5 + 3);
        let freed = books.freed(&name(1), address(1)).unwrap();
        assert_eq!((freed.failed, freed.handshakes.count()), (4, 12));
        books.meet(&name(1), Some(&service(&[2])), false, |_| None);
        assert_eq!(total(&books, None), 5 + 3);
        assert_eq!(books.freed(&name(1), address(1)), None);
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// Through an endpoint.
        Flow(usize),
        /// With a backend.
        Handshake(usize),
        /// The endpoint is this service's now, or nobody's.
        Hold(usize, Option<u8>),
        /// These are behind the service now.
        Meet(u8, Vec<u8>),
        /// Nobody needed the address for a while.
        Free(usize),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let service = || 0..2_u8;
        prop_oneof![
            (0..3_usize).prop_map(Event::Flow),
            (0..3_usize).prop_map(Event::Handshake),
            (0..3_usize, option::of(service())).prop_map(|(n, of)| Event::Hold(n, of)),
            (service(), vec(0..3_u8, 0..3)).prop_map(|(of, all)| Event::Meet(of, all)),
            (0..3_usize).prop_map(Event::Free),
        ]
    }

    proptest! {
        /// Each flow counts for whoever had the endpoint then, and each handshake for everybody who had the backend.
        #[test]
        fn every_count_is_kept_for_whose_it_was(events in vec(any_event(), 0..40)) {
            let mut books = Books::default();
            let (mut tables, mut backends) = ([0_u64; 3], [(1, 0_u64); 3]);
            let mut owners: [Option<u8>; 3] = [None; 3];
            let mut behind: [Vec<u8>; 2] = Default::default();
            let mut expect = [(0, 0); 2];
            for of in [0, 1] {
                books.meet(&name(of), Some(&service(&[])), false, |_| None);
            }
            for event in events {
                match event {
                    Event::Flow(n) => if let Some(of) = owners[n] {
                        tables[n] += 1;
                        expect[usize::from(of)].0 += 1;
                    },
                    Event::Handshake(n) => {
                        backends[n].1 += 1;
                        for (of, behind) in behind.iter().enumerate() {
                            expect[of].1 += u64::from(behind.iter().any(|it| usize::from(*it) == n));
                        }
                    }
                    Event::Hold(n, of) => {
                        if owners[n].is_none() && of.is_some() {
                            // A table that is given out anew is cleared.
                            tables[n] = 0;
                        }
                        owners[n] = of;
                        let table = u32::try_from(n).unwrap();
                        let read = |table: u32| counted(tables[table as usize]);
                        let wanted = of.map(name);
                        books.hold(key(u8::try_from(n).unwrap()), of.map(|_| table), wanted.as_ref(), read);
                    }
                    Event::Meet(of, all) => {
                        books.meet(&name(of), Some(&service(&all)), false, |at| shaken_at(at, &backends));
                        behind[usize::from(of)] = all;
                    }
                    Event::Free(n) => {
                        let at = address(u8::try_from(n).unwrap());
                        let met = shaken_at(at, &backends).unwrap();
                        books.free(&BTreeMap::from([(at, (met, 0))]));
                        // Its next one is another.
                        backends[n] = (backends[n].0 + 1, 0);
                    }
                }
                for (of, expect) in (0..).zip(expect) {
                    let read = |table: u32| counted(tables[table as usize]);
                    let (counters, handshakes) = books.total(&name(of), read, |at| shaken_at(at, &backends));
                    prop_assert_eq!((counters.flows, handshakes.count()), expect);
                }
            }
        }
    }

    /// The generation and the count of each.
    fn shaken_at(at: SocketAddr, backends: &[(u32, u64)]) -> Option<Met> {
        let found = (0..).zip(backends).find(|(n, _)| address(*n) == at);
        found.map(|(n, &(generation, count))| {
            let (id, handshakes) = shaken(n.into(), count);
            (BackendId { generation, ..id }, handshakes)
        })
    }
}
