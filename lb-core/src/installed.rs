//! What the maps hold, as far as this agent knows: read back from them at the start, then changed by each
//! step that the kernel has taken, never before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use lb_common::{BackendId, Balance, ServiceKey};
use lb_packet::free_list::{FreeList, REST};

/// What the maps hold.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// Virtual endpoints.
    pub services: BTreeMap<ServiceKey, InstalledService>,
    /// Backends that may be named by a table or a flow.
    pub backends: BTreeMap<SocketAddr, InstalledBackend>,
    /// The same by index.
    pub addresses: BTreeMap<u32, SocketAddr>,
    /// How many tables name a backend index, or backends count their flows at it, if any do.
    references: BTreeMap<u32, usize>,
    /// Backend indexes that no table names, and since when. A program that still reads the last table that
    /// named one may be about to count a flow there.
    unreferenced: BTreeMap<u32, Instant>,
    /// Table indexes not in use.
    pub free_tables: FreeList,
    /// Backend indexes not in use.
    pub free_backends: FreeList,
    /// The last generation of each backend index that was ever used.
    pub generations: BTreeMap<u32, u32>,
    /// The generation of the table that was published last. No two publications share one, whatever their tables: a
    /// client that is to keep its backend is only checked against the slots when it meets another one.
    pub published: u32,
}

/// A virtual endpoint in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledService {
    /// Index in `TABLES`, `CURSORS` and `COUNTERS`.
    pub table: u32,
    /// The live half.
    pub half: u32,
    /// Generation of the live half.
    pub generation: u32,
    /// How a backend is chosen.
    pub balance: Balance,
    /// For how many seconds a client keeps its backend; 0 means not at all.
    pub affinity_seconds: u32,
    /// [`lb_common::flag`]s.
    pub flags: u32,
    /// Backend indexes in use by the live half.
    pub slots: Vec<u32>,
}

/// A backend in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstalledBackend {
    /// Its id.
    pub id: BackendId,
    /// Its weight.
    pub weight: u16,
    /// The id that its flows are counted at, which may be its own.
    pub counted_at: BackendId,
}

impl InstalledBackend {
    /// The index of another one that its flows are counted at, if there is one.
    fn counted_elsewhere(&self) -> &[u32] {
        if self.counted_at.index == self.id.index {
            &[]
        } else {
            std::slice::from_ref(&self.counted_at.index)
        }
    }
}

impl Installed {
    /// Empty maps for so many services and backends. Index 0 is never given out.
    pub fn empty(services: u32, backends: u32) -> Self {
        Self {
            free_tables: (1..services).collect(),
            free_backends: (1..backends).collect(),
            ..Self::default()
        }
    }

    /// What the maps were found to hold at `now`, with room for so many services and backends. `generations` are the last
    /// ones of backend indexes, `published` those of tables, of what was ever used.
    pub fn found(
        services: BTreeMap<ServiceKey, InstalledService>,
        backends: BTreeMap<SocketAddr, InstalledBackend>,
        generations: BTreeMap<u32, u32>,
        published: &BTreeMap<u32, u32>,
        room: Room,
        now: Instant,
    ) -> Self {
        let mut found = Self {
            generations,
            ..Self::default()
        };
        let tables: BTreeSet<u32> = services.values().map(|service| service.table).collect();
        for (address, backend) in backends {
            found.unreferenced.insert(backend.id.index, now);
            found.addresses.insert(backend.id.index, address);
            found.backends.insert(address, backend);
        }
        for backend in found.backends.clone().into_values() {
            found.refer(backend.counted_elsewhere());
        }
        for (key, service) in services {
            found.refer(&service.slots);
            found.services.insert(key, service);
        }
        // An index may be named by a table although no backend is there: it is not free for all that.
        let used = |index: &u32| {
            found.addresses.contains_key(index) || found.references.contains_key(index)
        };
        let free = (1..room.backends).filter(|index| !used(index));
        found.free_backends = FreeList::found(free, &found.generations, now);
        found.published = published.values().copied().max().unwrap_or(0);
        let free = (1..room.services).filter(|index| !tables.contains(index));
        found.free_tables = FreeList::found(free, published, now);
        found
    }

    /// Backends that `keep` lets go and that can be freed at `now`: no table has named them for so long that no
    /// program still reads one that does, and they have no open flow.
    pub fn freeable(
        &self,
        keep: impl Fn(&SocketAddr) -> bool,
        active: impl Fn(u32) -> u64,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let rested = self
            .unreferenced
            .iter()
            .filter(|&(_, &since)| now.saturating_duration_since(since) >= REST);
        rested
            .filter_map(|(index, _)| Some((index, self.addresses.get(index)?)))
            .filter(|(index, address)| {
                let counted_at = self
                    .backends
                    .get(address)
                    .map_or(**index, |it| it.counted_at.index);
                !keep(address) && active(**index) == 0 && active(counted_at) == 0
            })
            .map(|(_, &address)| address)
            .collect()
    }

    /// Notes that one more table names these backend indexes.
    pub(crate) fn refer(&mut self, slots: &[u32]) {
        for index in slots.iter().copied().collect::<BTreeSet<_>>() {
            *self.references.entry(index).or_default() += 1;
            self.unreferenced.remove(&index);
        }
    }

    /// Notes that one table less names them.
    pub(crate) fn unrefer(&mut self, slots: &[u32], now: Instant) {
        for index in slots.iter().copied().collect::<BTreeSet<_>>() {
            let references = self.references.entry(index).or_default();
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.references.remove(&index);
                self.unreferenced.insert(index, now);
            }
        }
    }

    /// Notes a backend that no table names yet.
    pub(crate) fn place(&mut self, address: SocketAddr, backend: InstalledBackend, now: Instant) {
        let index = backend.id.index;
        self.free_backends.claim(index);
        self.generations.insert(index, backend.id.generation);
        self.addresses.insert(index, address);
        self.refer(backend.counted_elsewhere());
        match self.backends.insert(address, backend) {
            Some(old) => self.unrefer(old.counted_elsewhere(), now),
            None => drop(self.unreferenced.insert(index, now)),
        }
    }

    /// Notes that a backend is gone.
    pub(crate) fn displace(&mut self, address: &SocketAddr, now: Instant) {
        if let Some(backend) = self.backends.remove(address) {
            let index = backend.id.index;
            self.addresses.remove(&index);
            self.unreferenced.remove(&index);
            self.free_backends.give_back(index, now);
            self.unrefer(backend.counted_elsewhere(), now);
        }
    }
}

/// Capacity of the maps, index 0 included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For virtual endpoints.
    pub services: u32,
    /// For backends.
    pub backends: u32,
}

#[cfg(test)]
mod tests {
    use lb_common::{ANY_PORT, Be32, HOST_VIEW, PROTO_TCP};

    use super::*;

    #[test]
    fn what_an_earlier_agent_used_rests_and_what_nobody_used_does_not() {
        let start = Instant::now();
        let used = BTreeMap::from([(1, 7)]);
        let room = Room {
            services: 3,
            backends: 3,
        };
        let mut found = Installed::found(
            BTreeMap::new(),
            BTreeMap::new(),
            used.clone(),
            &used,
            room,
            start,
        );
        for free in [&mut found.free_tables, &mut found.free_backends] {
            assert_eq!(free.take(start), Some(2));
            assert_eq!(free.take(start), None);
            assert_eq!(free.take(start + REST), Some(1));
        }
        // No later publication shares the generation of one that is gone.
        assert_eq!(found.published, 7);
    }

    /// With a service that names the first one, whose flows are counted at the second one.
    fn counting() -> (Installed, [SocketAddr; 2], Instant) {
        let start = Instant::now();
        let [published, own] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 80)));
        let id = |index| BackendId {
            index,
            generation: 1,
        };
        let backend = |index| InstalledBackend {
            id: id(index),
            weight: 1,
            counted_at: id(5),
        };
        let mut installed = Installed::empty(8, 8);
        installed.place(own, backend(5), start);
        installed.place(published, backend(4), start);
        installed.refer(&[4]);
        (installed, [published, own], start)
    }

    #[test]
    fn a_backend_is_not_freed_while_another_one_counts_its_flows_there() {
        let (mut installed, [published, own], start) = counting();
        let freeable = |installed: &Installed, now| installed.freeable(|_| false, |_| 0, now);
        assert_eq!(freeable(&installed, start + REST), vec![]);
        installed.unrefer(&[4], start + REST);
        assert_eq!(freeable(&installed, start + REST), vec![]);
        // Nobody names the second one, but by counting there.
        let later = start + 2 * REST;
        assert_eq!(freeable(&installed, later), [published]);
        installed.displace(&published, later);
        assert_eq!(freeable(&installed, later), vec![]);
        assert_eq!(freeable(&installed, later + REST), [own]);
    }

    #[test]
    fn a_backend_that_two_tables_name_is_not_freed_when_one_of_them_goes() {
        let (mut installed, [published, _], start) = counting();
        installed.refer(&[4]);
        for freeable in [vec![], vec![published]] {
            installed.unrefer(&[4], start);
            let found = installed.freeable(|_| false, |_| 0, start + REST);
            assert_eq!(found, freeable);
        }
    }

    #[test]
    fn a_backend_is_not_freed_while_flows_are_counted_at_its_index_or_where_it_has_them_counted() {
        let (mut installed, [published, _], start) = counting();
        installed.unrefer(&[4], start);
        let freeable = |counts: u32| {
            let active = |index| u64::from(index == counts);
            installed.freeable(|_| false, active, start + REST)
        };
        assert_eq!(freeable(4), vec![]);
        assert_eq!(freeable(5), vec![]);
        assert_eq!(freeable(6), [published]);
    }

    #[test]
    fn what_was_found_is_kept_as_if_it_had_been_put() {
        let (kept, [published, own], start) = counting();
        let owner = ServiceKey::new(Be32::from_host(1), ANY_PORT, PROTO_TCP, HOST_VIEW);
        let service = InstalledService {
            table: 3,
            half: 0,
            generation: 9,
            balance: Balance::LeastConn,
            affinity_seconds: 0,
            flags: 0,
            slots: vec![4, 6],
        };
        let room = Room {
            services: 8,
            backends: 8,
        };
        let mut found = Installed::found(
            BTreeMap::from([(owner, service)]),
            kept.backends.clone(),
            kept.generations.clone(),
            &BTreeMap::from([(2, 9), (3, 8)]),
            room,
            start,
        );
        assert_eq!(found.published, 9);
        assert_eq!(found.addresses, kept.addresses);
        // Both are in use, and so is what a table names without a backend there.
        let later = start + 3 * REST;
        let indexes = std::iter::from_fn(|| found.free_backends.take(later));
        assert_eq!(
            indexes.collect::<BTreeSet<_>>(),
            BTreeSet::from([1, 2, 3, 7])
        );
        let tables = std::iter::from_fn(|| found.free_tables.take(later));
        assert_eq!(
            tables.collect::<BTreeSet<_>>(),
            BTreeSet::from([1, 2, 4, 5, 6, 7])
        );
        let freeable = |found: &Installed| found.freeable(|_| false, |_| 0, later);
        assert_eq!(freeable(&found), vec![]);
        found.unrefer(&[4], start);
        assert_eq!(freeable(&found), [published]);
        found.displace(&published, start);
        assert_eq!(freeable(&found), [own]);
    }
}
