//! What each pinned map must be. aya opens a pin without a look at it, and a value of another size than the
//! program thinks would be read over the end of a buffer.

use std::{fs, path::Path};

use aya::maps::{MapInfo, MapType};
use lb_common::packet::{
    Endpoint, EndpointKey, FATES, Flow, FlowKey4, FlowKey6, Hop, Maglev, Rate, Reply, ReplyKey4,
    ReplyKey6, STEPS, Settings, Target, Traffic, packet_map as map,
};

use crate::{Error, Limits};

/// One map as the programs know it.
pub(super) struct Layout {
    pub(super) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// Entries of a new one; 0 where the object says how many.
    pub(super) capacity: u32,
    /// The limit that says how many, for people.
    pub(super) limit: Option<Limit>,
}

/// What bounds the entries of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Services,
    Backends,
    Flows,
}

impl Limit {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "endpoints",
            Self::Backends => "backends",
            Self::Flows => "flows",
        }
    }
}

/// Every map, with room for so much.
pub(super) fn of(limits: Limits) -> [Layout; 18] {
    let layout = |name, kind, key, value, limit: Option<Limit>, capacity| Layout {
        name,
        kind,
        key,
        value,
        capacity,
        limit,
    };
    let services = Limit::Services;
    let backends = Limit::Backends;
    // Index 0 is never given out.
    let (of_services, of_backends) = (limits.services + 1, limits.backends + 1);
    let hash = |name, key, value, limit, capacity| {
        layout(name, MapType::Hash, key, value, limit, capacity)
    };
    let array =
        |name, value, limit, capacity| layout(name, MapType::Array, 4, value, limit, capacity);
    let each_cpu = |name, value, limit, capacity| {
        layout(name, MapType::PerCpuArray, 4, value, limit, capacity)
    };
    // An LRU hash evicts before it is full: which entry is the oldest is only roughly known to the kernel.
    let evicting = limits.flows.saturating_add(limits.flows.div_ceil(2));
    let flows = |name, kind, key, value| {
        let capacity = if kind == MapType::LruHash {
            evicting
        } else {
            limits.flows
        };
        layout(name, kind, key, value, Some(Limit::Flows), capacity)
    };
    [
        hash(
            map::ENDPOINTS,
            size_of::<EndpointKey>(),
            size_of::<Endpoint>(),
            Some(services),
            of_services,
        ),
        // Two tables for each, of which one is live.
        array(
            map::MAGLEVS,
            size_of::<Maglev>(),
            Some(services),
            of_services * 2,
        ),
        each_cpu(
            map::SERVICE_TRAFFIC,
            size_of::<Traffic>(),
            Some(services),
            of_services,
        ),
        array(
            map::TARGETS,
            size_of::<Target>(),
            Some(backends),
            of_backends,
        ),
        array(map::HOPS, size_of::<Hop>(), Some(backends), of_backends),
        each_cpu(
            map::TARGET_TRAFFIC,
            size_of::<Traffic>(),
            Some(backends),
            of_backends,
        ),
        hash(map::CARDS, 4, 4, None, 0),
        hash(map::VIPS, 4, 4, None, 0),
        hash(map::HOSTS, 16, 4, None, 0),
        flows(
            map::FLOWS4,
            MapType::LruHash,
            size_of::<FlowKey4>(),
            size_of::<Flow>(),
        ),
        flows(
            map::FLOWS6,
            MapType::LruHash,
            size_of::<FlowKey6>(),
            size_of::<Flow>(),
        ),
        flows(
            map::REPLIES4,
            MapType::Hash,
            size_of::<ReplyKey4>(),
            size_of::<Reply>(),
        ),
        flows(
            map::REPLIES6,
            MapType::Hash,
            size_of::<ReplyKey6>(),
            size_of::<Reply>(),
        ),
        array(map::SETTINGS, size_of::<Settings>(), None, 1),
        each_cpu(map::RATES, size_of::<Rate>(), None, 1),
        each_cpu(map::FATES, size_of::<u64>(), None, FATES),
        layout(map::STEPS, MapType::ProgramArray, 4, 4, None, STEPS),
        layout(map::SAMPLES, MapType::RingBuf, 0, 0, None, 0),
    ]
}

impl Layout {
    /// What a map with so many entries has room for, in the terms of its limit.
    pub(super) fn room(&self, entries: u32) -> u32 {
        match (self.limit, self.name) {
            (Some(Limit::Flows), map::FLOWS4 | map::FLOWS6) => {
                u32::try_from(u64::from(entries) * 2 / 3).unwrap_or(entries)
            }
            (Some(Limit::Flows) | None, _) => entries,
            (_, map::MAGLEVS) => (entries / 2).saturating_sub(1),
            _ => entries.saturating_sub(1),
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
            && info.value_size() as usize == self.value
            // Of these the programs know the number.
            && (self.limit.is_some() || self.capacity == 0 || info.max_entries() == self.capacity);
        if same {
            Ok(Some(info.max_entries()))
        } else {
            Err(Error::Layout {
                path: path.to_owned(),
            })
        }
    }
}
