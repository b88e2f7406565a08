//! What the maps hold, as far as this agent knows: read back from them at the start, then changed by each
//! step that the kernel has taken, never before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use lb_common::packet::{Endpoint, EndpointKey, Settings, Target, endpoint_flag};

use crate::{Desired, Limits, Member, Place, Wanted, free_list::FreeList, plan::Step};

/// What the maps hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Virtual endpoints.
    pub(crate) endpoints: BTreeMap<EndpointKey, Placed>,
    /// Backends, each at its index.
    pub(crate) targets: BTreeMap<SocketAddr, Home>,
    /// The same by index.
    addresses: BTreeMap<u32, SocketAddr>,
    /// How many live tables name an index, if any do.
    references: BTreeMap<u32, usize>,
    /// Indexes with a backend that no table names, and since when: programs that began before may still read one that does.
    unreferenced: BTreeMap<u32, Instant>,
    /// Indexes of services and of backends that are not in use.
    pub(crate) free_services: FreeList,
    pub(crate) free_targets: FreeList,
    /// The last generation of each backend index that was ever used.
    pub(crate) generations: BTreeMap<u32, u32>,
    /// The last publication's [`Endpoint::generation`].
    pub(crate) published: u32,
    pub(crate) vips: BTreeSet<Ipv4Addr>,
    pub(crate) hosts: BTreeSet<IpAddr>,
    pub(crate) settings: Settings,
    /// Where backends were in the last plan that was carried out whole and had room for all. As long as they are there, who is
    /// named as before needs nothing.
    settled_places: Option<BTreeMap<SocketAddr, Place>>,
}

/// A virtual endpoint in the maps.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) endpoint: Endpoint,
    /// A digest of the live table.
    pub(crate) digest: u64,
    /// The indexes that the live table names.
    pub(crate) named: BTreeSet<u32>,
    /// What the live table was made of, once it is known.
    pub(crate) members: Option<Arc<[Member]>>,
}

impl Placed {
    /// Whether it was made of the same members, and has the same flags.
    pub(crate) fn is_of(&self, wanted: &Wanted) -> bool {
        let members = self.members.as_ref();
        self.endpoint.flags & !endpoint_flag::EMPTY == wanted.flags()
            && members.is_some_and(|it| Arc::ptr_eq(it, &wanted.members) || *it == wanted.members)
    }
}

/// A backend in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) index: u32,
    pub(crate) target: Target,
}

/// What was found in the maps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) endpoints: BTreeMap<EndpointKey, Placed>,
    pub(crate) targets: BTreeMap<SocketAddr, Home>,
    /// Of every index that was ever used.
    pub(crate) generations: BTreeMap<u32, u32>,
    pub(crate) vips: BTreeSet<Ipv4Addr>,
    pub(crate) hosts: BTreeSet<IpAddr>,
    pub(crate) settings: Settings,
}

impl Book {
    /// The book of new maps.
    pub(crate) fn empty(limits: Limits) -> Self {
        Self {
            free_services: (1..=limits.services).collect(),
            free_targets: (1..=limits.backends).collect(),
            ..Self::default()
        }
    }

    /// The book of maps that an earlier agent wrote.
    pub(crate) fn found(found: Found, limits: Limits, now: Instant) -> Self {
        let mut book = Self {
            generations: found.generations,
            vips: found.vips,
            hosts: found.hosts,
            settings: found.settings,
            ..Self::default()
        };
        for (address, home) in found.targets {
            book.unreferenced.insert(home.index, now);
            book.addresses.insert(home.index, address);
            book.targets.insert(address, home);
        }
        for (key, placed) in found.endpoints {
            book.published = book.published.max(placed.endpoint.generation);
            book.refer(&placed.named);
            book.endpoints.insert(key, placed);
        }
        let used: BTreeSet<u32> = book.targets.values().map(|home| home.index).collect();
        // A table may name an index although no backend is there: it is not free for all that.
        let free = (1..=limits.backends)
            .filter(|index| !used.contains(index) && !book.references.contains_key(index));
        book.free_targets = FreeList::found(free, &book.generations, now);
        let used: BTreeSet<u32> = book
            .endpoints
            .values()
            .map(|it| it.endpoint.service)
            .collect();
        let free = (1..=limits.services).filter(|index| !used.contains(index));
        // Nothing in the maps tells which ones were used.
        let all = (1..=limits.services).map(|index| (index, 0)).collect();
        book.free_services = FreeList::found(free, &all, now);
        book
    }

    /// The endpoints that may need something.
    pub(crate) fn changed<'d>(
        &self,
        desired: &'d Desired,
    ) -> impl Iterator<Item = (&'d EndpointKey, &'d Wanted)> {
        let settled = self.settled_places.as_ref();
        let moved = settled.map(|settled| moved(settled, &desired.places));
        desired.endpoints.iter().filter(move |(key, wanted)| {
            let mut members = wanted.members.iter();
            let as_before = moved.as_ref().is_some_and(|moved| {
                moved.is_empty() || !members.any(|it| moved.contains(&it.address))
            });
            let placed = self.endpoints.get(key);
            !(as_before && placed.is_some_and(|it| it.is_of(wanted)))
        })
    }

    /// Notes that all of a plan was carried out, or that something is left.
    pub(crate) fn settle(&mut self, desired: &Desired, whole: bool) {
        let places = whole.then_some(&desired.places);
        match (&mut self.settled_places, places) {
            (Some(settled), Some(places)) => {
                for address in moved(settled, places) {
                    match places.get(&address) {
                        Some(place) => settled.insert(address, *place),
                        None => settled.remove(&address),
                    };
                }
            }
            (settled, places) => *settled = places.cloned(),
        }
    }

    /// Backends that no table names, and since when; and those that tables of the endpoints in `left` name, whether or not others do.
    pub(crate) fn unnamed_without<'k>(
        &self,
        left: impl Iterator<Item = &'k EndpointKey>,
    ) -> BTreeMap<SocketAddr, (Home, Option<Instant>)> {
        let now = self.unreferenced.iter();
        let now = now.map(|(index, since)| (index, Some(*since)));
        let left = left.filter_map(|key| self.endpoints.get(key));
        let then = left.flat_map(|it| &it.named).map(|index| (index, None));
        let all = then.chain(now).filter_map(|(index, since)| {
            let address = *self.addresses.get(index)?;
            Some((address, (*self.targets.get(&address)?, since)))
        });
        all.collect()
    }

    /// Notes a step that the kernel has taken.
    pub(crate) fn note(&mut self, step: &Step, now: Instant) {
        match step {
            Step::PutSettings(settings) => self.settings = *settings,
            Step::PutHost(host) => drop(self.hosts.insert(*host)),
            Step::RemoveHost(host) => drop(self.hosts.remove(host)),
            Step::PutVip(vip) => drop(self.vips.insert(*vip)),
            Step::RemoveVip(vip) => drop(self.vips.remove(vip)),
            Step::PutTarget { address, home, .. } => {
                self.free_targets.claim(home.index);
                self.generations.insert(home.index, home.target.generation);
                if self.targets.insert(*address, *home).is_none() {
                    self.addresses.insert(home.index, *address);
                    self.unreferenced.insert(home.index, now);
                }
            }
            // Nobody reads it before the endpoint says so, but for programs that began when it was the live one.
            Step::PutTable { named, .. } => {
                for index in named {
                    self.unreferenced
                        .entry(*index)
                        .and_modify(|since| *since = now);
                }
            }
            Step::PutEndpoint { key, placed, .. } => {
                self.free_services.claim(placed.endpoint.service);
                self.published = placed.endpoint.generation;
                self.refer(&placed.named);
                if let Some(before) = self.endpoints.insert(*key, placed.clone()) {
                    self.unrefer(&before.named, now);
                }
            }
            Step::Recognise { key, members } => {
                if let Some(placed) = self.endpoints.get_mut(key) {
                    placed.members = Some(members.clone());
                }
            }
            Step::RemoveEndpoint(key) => {
                if let Some(before) = self.endpoints.remove(key) {
                    self.unrefer(&before.named, now);
                    self.free_services.give_back(before.endpoint.service, now);
                }
            }
            Step::FreeTarget { address, .. } => {
                if let Some(home) = self.targets.remove(address) {
                    self.addresses.remove(&home.index);
                    self.unreferenced.remove(&home.index);
                    self.free_targets.give_back(home.index, now);
                }
            }
        }
    }

    fn refer(&mut self, named: &BTreeSet<u32>) {
        for &index in named {
            *self.references.entry(index).or_default() += 1;
            self.unreferenced.remove(&index);
        }
    }

    fn unrefer(&mut self, named: &BTreeSet<u32>, now: Instant) {
        for &index in named {
            let references = self.references.entry(index).or_default();
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.references.remove(&index);
                if self.addresses.contains_key(&index) {
                    self.unreferenced.insert(index, now);
                } else {
                    // An earlier agent's table named it, and nobody was there.
                    self.free_targets.give_back(index, now);
                }
            }
        }
    }
}

/// Who is not where it was.
fn moved(
    before: &BTreeMap<SocketAddr, Place>,
    now: &BTreeMap<SocketAddr, Place>,
) -> BTreeSet<SocketAddr> {
    // Both are in the order of addresses: side by side, since looking up a thousand of them takes longer than all else.
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    let mut moved = BTreeSet::new();
    loop {
        let (was, is) = (before.peek(), now.peek());
        let Some(least) = was
            .into_iter()
            .chain(is)
            .map(|(address, _)| **address)
            .min()
        else {
            return moved;
        };
        if was != is {
            moved.insert(least);
        }
        before.next_if(|(address, _)| **address == least);
        now.next_if(|(address, _)| **address == least);
    }
}
