//! The maps of the version before, read so that this version's go on where they were left.
//!
//! Version 1 knew IPv4 and TCP only. Its values are read as plain integers, whose sizes [`crate::programs`] has
//! checked before.

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use lb_common::{
    Backend, BackendId, Be16, Be32, Counters, Cursor, Half, SLOTS, Service, ServiceKey, Suspect,
    Table, map,
};

use super::{Error, Maps, failed};

/// `{table, half, count, generation, balance, spare}`.
pub(crate) type ServiceWords = [u32; 6];
/// Two halves of `{generation, vip, slots}`.
pub(crate) type TableWords = [u32; 2 * HALF];
/// `{address, port and weight, generation, spare}`.
pub(crate) type BackendWords = [u32; 4];
/// `{flows, refused, failed, spare}`.
pub(crate) type CounterWords = [u64; 4];

/// Words of one half.
const HALF: usize = 2 + SLOTS as usize;

/// What the version before counted. It stays where it is, for its programs count on until they are replaced.
pub(super) type FormerCounters = PerCpuArray<MapData, CounterWords>;

/// Opens what the version before counted.
pub(super) fn counters(path: &Path) -> Result<FormerCounters, Error> {
    open(path, Map::PerCpuArray).map_err(failed("open the former", map::COUNTERS))
}

/// What was counted, in today's terms.
pub(super) fn counted(former: &FormerCounters, table: u32) -> Result<Counters, Error> {
    if table >= former.len() {
        return Ok(Counters::default());
    }
    let per_cpu = former
        .get(&table, 0)
        .map_err(failed("read the former", map::COUNTERS))?;
    let mut sum = Counters::default();
    for [flows, refused, failed, _] in per_cpu.iter() {
        sum.flows += flows;
        sum.failed += failed;
        // It refused for one reason only that a table has.
        sum.refused[lb_common::Refusal::NoBackend as usize] += refused;
    }
    Ok(sum)
}

/// Forgets what was counted of a table, which another service gets.
pub(super) fn clear(former: &mut FormerCounters, table: u32, cpus: usize) -> Result<(), Error> {
    if table >= former.len() {
        return Ok(());
    }
    let failed = || failed("write the former", map::COUNTERS);
    let zeroes = PerCpuValues::try_from(vec![CounterWords::default(); cpus])
        .map_err(|error| failed()(error.into()))?;
    former.set(table, zeroes, 0).map_err(failed())
}

fn open<M: TryFrom<Map, Error = MapError>>(
    path: &Path,
    kind: fn(MapData) -> Map,
) -> Result<M, MapError> {
    M::try_from(kind(MapData::from_pin(path)?))
}

impl Maps {
    /// Writes what the maps below `folder` hold into these, in the order of a publication. No agent writes the former
    /// ones meanwhile, so that it may be done again after it was interrupted.
    ///
    /// Answers whether there was something to be taken over.
    pub(super) fn take_over(&mut self, folder: &Path) -> Result<bool, Error> {
        let path = |name| folder.join(name);
        let backends: Array<_, BackendWords> = open(&path(map::BACKENDS), Map::Array)
            .map_err(failed("open the former", map::BACKENDS))?;
        let tables: Array<_, TableWords> =
            open(&path(map::TABLES), Map::Array).map_err(failed("open the former", map::TABLES))?;
        let services: HashMap<_, ServiceKey, ServiceWords> =
            open(&path(map::SERVICES), Map::HashMap)
                .map_err(failed("open the former", map::SERVICES))?;
        let suspects: Array<_, Suspect> = open(&path(map::SUSPECTS), Map::Array)
            .map_err(failed("open the former", map::SUSPECTS))?;
        let cursors: Array<_, Cursor> = open(&path(map::CURSORS), Map::Array)
            .map_err(failed("open the former", map::CURSORS))?;

        let mut former = Vec::new();
        for index in 1..backends.len().min(self.backends.len()) {
            let words = backends
                .get(&index, 0)
                .map_err(failed("read the former", map::BACKENDS))?;
            let backend = backend(index, words);
            if self.raw_backend(index)?.generation > backend.generation {
                // An id that only these maps know: they have been in use since.
                return Ok(false);
            }
            if backend.generation != 0 {
                former.push((index, backend));
            }
        }
        for (index, backend) in former {
            let suspect = suspects
                .get(&index, 0)
                .map_err(failed("read the former", map::SUSPECTS))?;
            self.suspects
                .set(index, suspect, 0)
                .map_err(failed("write", map::SUSPECTS))?;
            self.backends
                .set(index, backend, 0)
                .map_err(failed("write", map::BACKENDS))?;
        }
        let mut keys = BTreeSet::new();
        for entry in services.iter() {
            let (key, words) = entry.map_err(failed("read the former", map::SERVICES))?;
            let service = service(words);
            let words = tables
                .get(&service.table, 0)
                .map_err(failed("read the former", map::TABLES))?;
            let cursor = cursors
                .get(&service.table, 0)
                .map_err(failed("read the former", map::CURSORS))?;
            self.cursors
                .set(service.table, cursor, 0)
                .map_err(failed("write", map::CURSORS))?;
            self.tables
                .set(service.table, table(key, &words), 0)
                .map_err(failed("write", map::TABLES))?;
            self.services
                .insert(key, service, 0)
                .map_err(failed("write", map::SERVICES))?;
            keys.insert(key);
        }
        // Left by an earlier try, after which an agent of the version before has run once more.
        let here: Result<Vec<ServiceKey>, _> = self.services.keys().collect();
        for key in here.map_err(failed("read", map::SERVICES))? {
            if !keys.contains(&key) {
                self.services
                    .remove(&key)
                    .map_err(failed("remove from", map::SERVICES))?;
            }
        }
        Ok(true)
    }
}

fn service([table, half, count, generation, balance, _]: ServiceWords) -> Service {
    Service {
        table,
        half,
        count,
        generation,
        balance,
        ..Service::default()
    }
}

/// Both halves: the idle one is of the same endpoint, if it was ever written.
fn table(key: ServiceKey, words: &TableWords) -> Table {
    let half = |at: usize| {
        let mut slots = [0; SLOTS as usize];
        slots.copy_from_slice(&words[at * HALF + 2..(at + 1) * HALF]);
        Half {
            generation: words[at * HALF],
            owner: key,
            slots,
        }
    };
    Table {
        halves: [half(0), half(1)],
    }
}

fn backend(index: u32, [address, port_and_weight, generation, _]: BackendWords) -> Backend {
    let [p0, p1, w0, w1] = port_and_weight.to_ne_bytes();
    let port = Be16::from_raw(u16::from_ne_bytes([p0, p1]));
    let free = port.raw() == 0;
    let mapped = Ipv4Addr::from(Be32::from_raw(address).host()).to_ipv6_mapped();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(mapped.octets().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let id = BackendId { index, generation };
    Backend {
        address: if free { [0; 4] } else { words },
        port,
        weight: u16::from_ne_bytes([w0, w1]),
        generation,
        counted_at: if free { 0 } else { id.to_bits() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_keeps_its_id_and_counts_its_own_flows() {
        let address = u32::from_ne_bytes([127, 0, 0, 2]);
        let port = u16::from_ne_bytes(80_u16.to_be_bytes());
        let [p0, p1] = port.to_ne_bytes();
        let [w0, w1] = 5_u16.to_ne_bytes();
        let read = backend(7, [address, u32::from_ne_bytes([p0, p1, w0, w1]), 3, 0]);
        let id = BackendId {
            index: 7,
            generation: 3,
        };
        let expect = Backend {
            address: [0, 0, 0xffff_u32.to_be(), address],
            port: Be16::from_host(80),
            weight: 5,
            generation: 3,
            counted_at: id.to_bits(),
        };
        assert_eq!(read, expect);
        assert!(read.is_v4());
        // A free index keeps its generation alone.
        let free = Backend {
            generation: 3,
            ..Backend::default()
        };
        assert_eq!(backend(7, [0, 0, 3, 0]), free);
    }

    #[test]
    fn a_table_keeps_both_halves() {
        let key = ServiceKey::new(
            Be32::from_host(1),
            lb_common::ANY_PORT,
            lb_common::PROTO_TCP,
            lb_common::HOST_VIEW,
        );
        let mut words: TableWords = [0; 2 * HALF];
        (words[0], words[2], words[HALF], words[HALF + 2]) = (4, 8, 5, 9);
        (words[HALF - 1], words[2 * HALF - 1]) = (10, 11);
        let table = table(key, &words);
        let seen = table.halves.map(|half| {
            let last = half.slots[SLOTS as usize - 1];
            (half.generation, half.owner == key, half.slots[0], last)
        });
        assert_eq!(seen, [(4, true, 8, 10), (5, true, 9, 11)]);
    }
}
