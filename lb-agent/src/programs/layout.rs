//! What each pinned map must be. aya opens a pin without a look at it, and a value of another size than the
//! program thinks would be read over the end of a buffer.

use std::{fs, path::Path};

use aya::maps::{MapInfo, MapType};
use lb_common::{
    Active, Affinity, AffinityKey, Backend, Client, Counters, Cursor, Latency, Peer, PeerKey,
    Record, Service, ServiceKey, Suspect, Table, map,
};

use super::Error;
use crate::{
    installed::Room,
    maps::previous::{BackendWords, CounterWords, ServiceWords, TableWords},
};

/// One map as the programs know it.
pub(super) struct Layout {
    pub(super) name: &'static str,
    /// Whether its pin lies outside the map version.
    pub(super) outlives_version: bool,
    kind: MapType,
    key: usize,
    value: usize,
    /// Entries of a new one; 0 where the object says how many.
    pub(super) capacity: u32,
}

/// Every map, for so many virtual endpoints and backends.
pub(super) fn of(services: u32, backends: u32) -> [Layout; 15] {
    // Index 0 is never given out.
    let (services, backends) = (services.saturating_add(1), backends.saturating_add(1));
    let layout = |name, kind, key, value, capacity| Layout {
        name,
        outlives_version: false,
        kind,
        key,
        value,
        capacity,
    };
    let array = |name, value, capacity| layout(name, MapType::Array, 4, value, capacity);
    [
        layout(
            map::SERVICES,
            MapType::Hash,
            size_of::<ServiceKey>(),
            size_of::<Service>(),
            services,
        ),
        array(map::TABLES, size_of::<Table>(), services),
        array(map::CURSORS, size_of::<Cursor>(), services),
        layout(
            map::COUNTERS,
            MapType::PerCpuArray,
            4,
            size_of::<Counters>(),
            services,
        ),
        array(map::BACKENDS, size_of::<Backend>(), backends),
        array(map::SUSPECTS, size_of::<Suspect>(), backends),
        array(map::LATENCIES, size_of::<Latency>(), backends),
        layout(map::CLIENTS, MapType::Hash, 8, size_of::<Client>(), 0),
        layout(
            map::AFFINITY,
            MapType::LruHash,
            size_of::<AffinityKey>(),
            size_of::<Affinity>(),
            0,
        ),
        layout(
            map::DATAGRAMS,
            MapType::LruHash,
            size_of::<AffinityKey>(),
            size_of::<Affinity>(),
            0,
        ),
        layout(
            map::PEERS,
            MapType::LruHash,
            size_of::<PeerKey>(),
            size_of::<Peer>(),
            0,
        ),
        layout(map::EVENTS, MapType::RingBuf, 0, 0, 0),
        layout(map::TRACES, MapType::RingBuf, 0, 0, 0),
        Layout {
            outlives_version: true,
            ..array(map::ACTIVE, size_of::<Active>(), backends)
        },
        Layout {
            outlives_version: true,
            ..layout(map::RECORDS, MapType::SkStorage, 4, size_of::<Record>(), 0)
        },
    ]
}

/// The maps of the version before, as far as they are read.
pub(super) fn previous() -> [Layout; 6] {
    let layout = |name, kind, key, value| Layout {
        name,
        outlives_version: false,
        kind,
        key,
        value,
        capacity: 0,
    };
    let array = |name, value| layout(name, MapType::Array, 4, value);
    [
        layout(
            map::SERVICES,
            MapType::Hash,
            size_of::<ServiceKey>(),
            size_of::<ServiceWords>(),
        ),
        array(map::TABLES, size_of::<TableWords>()),
        array(map::CURSORS, size_of::<Cursor>()),
        layout(
            map::COUNTERS,
            MapType::PerCpuArray,
            4,
            size_of::<CounterWords>(),
        ),
        array(map::BACKENDS, size_of::<BackendWords>()),
        array(map::SUSPECTS, size_of::<Suspect>()),
    ]
}

impl Layout {
    /// The entries that it has to have where others have `room`.
    pub(super) fn room_of(&self, room: Room) -> u32 {
        match self.name {
            map::SERVICES | map::TABLES | map::CURSORS | map::COUNTERS => room.services,
            map::BACKENDS | map::SUSPECTS | map::LATENCIES => room.backends,
            _ => self.capacity,
        }
    }

    /// The entries of the map pinned at `path`, if there is one.
    pub(super) fn pinned(&self, path: &Path) -> Result<Option<u32>, Error> {
        if !fs::exists(path).map_err(Error::pin("look for", path))? {
            return Ok(None);
        }
        let info = MapInfo::from_pin(path).map_err(|source| Error::Examine {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let same = info.map_type().is_ok_and(|kind| kind == self.kind)
            && info.key_size() as usize == self.key
            && info.value_size() as usize == self.value;
        if same {
            Ok(Some(info.max_entries()))
        } else {
            Err(Error::Layout {
                path: path.to_owned(),
            })
        }
    }
}
