//! A model of the kernel's maps.

use super::*;
use crate::book::Found;

/// What the kernel's maps hold, and who may still read what they held before.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) endpoints: BTreeMap<EndpointKey, Endpoint>,
    pub(super) tables: BTreeMap<u32, Box<[u16]>>,
    pub(super) targets: BTreeMap<u32, Target>,
    pub(super) vips: BTreeSet<Ipv4Addr>,
    pub(super) hosts: BTreeSet<IpAddr>,
    pub(super) settings: Settings,
    /// Endpoints as programs may still have them: read before they were changed, at this time.
    late: Vec<(Instant, EndpointKey, Endpoint)>,
    /// Who ever served each endpoint.
    pub(super) servers: BTreeMap<EndpointKey, BTreeSet<SocketAddr>>,
    /// Who was ever behind each id.
    ids: BTreeMap<(u32, u32), SocketAddr>,
}

impl Kernel {
    pub(super) fn take(&mut self, step: &Step, now: Instant) {
        match step {
            Step::PutSettings(settings) => self.settings = *settings,
            Step::PutHost(host) => drop(self.hosts.insert(*host)),
            Step::RemoveHost(host) => drop(self.hosts.remove(host)),
            Step::PutVip(vip) => drop(self.vips.insert(*vip)),
            Step::RemoveVip(vip) => drop(self.vips.remove(vip)),
            Step::PutTarget {
                address,
                home,
                fresh,
            } => {
                let id = (home.index, home.target.generation);
                let before = self.ids.insert(id, *address);
                assert_eq!(before, (!fresh).then_some(*address), "an id came back");
                self.targets.insert(home.index, home.target);
            }
            Step::PutTable { table, slots, .. } => {
                let live = self.endpoints.values().any(|it| it.table == *table);
                assert!(!live, "a live table was written");
                self.tables.insert(*table, slots.clone());
            }
            Step::PutEndpoint { key, placed, .. } => {
                let endpoint = placed.endpoint;
                assert_eq!(endpoint.table / 2, endpoint.service, "another's table");
                if let Some(before) = self.endpoints.insert(*key, placed.endpoint) {
                    self.late.push((now, *key, before));
                }
            }
            Step::Recognise { .. } => {}
            Step::RemoveEndpoint(key) => {
                if let Some(before) = self.endpoints.remove(key) {
                    self.late.push((now, *key, before));
                }
            }
            Step::FreeTarget { home, .. } => {
                let free = Target {
                    generation: home.target.generation,
                    ..Target::default()
                };
                self.targets.insert(home.index, free);
            }
        }
    }

    /// What any program may read at `now`, whenever it began.
    pub(super) fn check(&mut self, now: Instant) {
        self.late
            .retain(|(since, ..)| now.saturating_duration_since(*since) < REST);
        let today = self.endpoints.iter();
        let late = self.late.iter().map(|(_, key, it)| (key, it));
        for (key, endpoint) in today.chain(late) {
            if endpoint.flags & endpoint_flag::EMPTY != 0 {
                continue;
            }
            let slots = &self.tables[&endpoint.table];
            assert_eq!(slots.len(), SLOTS);
            // Few tables of many equal slots: look at each index once.
            for slot in slots.iter().copied().collect::<BTreeSet<_>>() {
                assert_ne!(slot, 0, "a look-up meets none");
                let target = self.targets[&u32::from(slot)];
                assert_ne!(target.port.raw(), 0, "a look-up meets a freed backend");
                let address = crate::address::socket(target.address, target.port);
                assert!(self.servers[key].contains(&address), "of another service");
            }
        }
    }

    /// What an agent finds that starts now.
    pub(super) fn found(&self, limits: Limits, now: Instant) -> Book {
        let mut found = Found {
            vips: self.vips.clone(),
            hosts: self.hosts.clone(),
            settings: self.settings,
            ..Found::default()
        };
        for (&index, &target) in &self.targets {
            found.generations.insert(index, target.generation);
            if target.port.raw() != 0 {
                let address = crate::address::socket(target.address, target.port);
                found.targets.insert(address, Home { index, target });
            }
        }
        for (&key, &endpoint) in &self.endpoints {
            let empty = endpoint.flags & endpoint_flag::EMPTY != 0;
            let slots: &[u16] = if empty {
                &[]
            } else {
                &self.tables[&endpoint.table]
            };
            let placed = Placed {
                endpoint,
                digest: digest(slots),
                named: slots.iter().map(|&slot| slot.into()).collect(),
                members: None,
            };
            found.endpoints.insert(key, placed);
        }
        Book::found(found, limits, now)
    }
}
