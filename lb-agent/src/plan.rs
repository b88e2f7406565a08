//! The ordered steps that turn what the maps hold into what they should hold. Pure.
//!
//! A backend is written before a table names it, a table before its service names it, and a backend is
//! freed after no table and no flow names it: after every single step, each lookup gives a right answer.

use std::{net::SocketAddrV4, time::Instant};

use lb_common::{Backend, BackendId, Be16, Be32, Half, SLOTS, Service, ServiceKey};

use crate::{
    catalog::Problem,
    desired::{Desired, Endpoint},
    installed::{Installed, InstalledBackend, InstalledService},
};

/// One write to the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A backend: new, or with another weight.
    PutBackend {
        /// Where flows go.
        address: SocketAddrV4,
        /// Its id.
        id: BackendId,
        /// Its weight.
        weight: u16,
        /// Whether the index had another meaning before: its suspicion is cleared.
        fresh: bool,
    },
    /// A new set of slots in the idle half, then the service that names it.
    PutService {
        /// The endpoint.
        key: ServiceKey,
        /// What the maps then hold for it.
        service: InstalledService,
        /// Whether the table had another meaning before: its figures are cleared.
        fresh: bool,
    },
    /// An endpoint that is gone.
    RemoveService {
        /// The endpoint.
        key: ServiceKey,
    },
    /// A backend that nothing names any more.
    FreeBackend {
        /// Its address.
        address: SocketAddrV4,
    },
}

/// The steps that bring `installed` to `desired`; `active` answers the open flows of a backend index. What
/// does not fit is left out, reported, and tried again with the next plan.
pub fn plan(
    installed: &Installed,
    desired: &Desired,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> (Vec<Step>, Vec<Problem>) {
    let mut next = installed.clone();
    let mut problems = Vec::new();
    let mut steps = put_backends(&mut next, desired, &active, now, &mut problems);
    steps.extend(put_services(&mut next, desired, now, &mut problems));
    if desired.complete {
        steps.extend(remove(&mut next, desired, active, now));
    }
    (steps, problems)
}

fn put_backends(
    next: &mut Installed,
    desired: &Desired,
    active: &impl Fn(u32) -> u64,
    now: Instant,
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (&address, &weight) in &desired.backends {
        let step = match next.backends.get(&address) {
            Some(backend) if backend.weight == weight => continue,
            Some(backend) => Step::PutBackend {
                address,
                id: backend.id,
                weight,
                fresh: false,
            },
            None => {
                // An earlier version of the maps may have left flows behind that still count there.
                let Some(index) = next.free_backends.take_if(now, |index| active(index) == 0)
                else {
                    problems.push(Problem::new(
                        format!("backend {address}"),
                        "the map of backends is full; raise limits.backends, which takes effect once the pins are removed",
                    ));
                    continue;
                };
                next.free_backends.untake(index);
                let generation = next
                    .generations
                    .get(&index)
                    .map_or(1, |last| last.wrapping_add(1).max(1));
                Step::PutBackend {
                    address,
                    id: BackendId { index, generation },
                    weight,
                    fresh: true,
                }
            }
        };
        next.apply(&step, now);
        steps.push(step);
    }
    steps
}

fn put_services(
    next: &mut Installed,
    desired: &Desired,
    now: Instant,
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (&key, endpoint) in &desired.services {
        let slots: Vec<u32> = endpoint
            .slots
            .iter()
            .filter_map(|address| next.backends.get(address))
            .map(|b| b.id.index)
            .collect();
        let Endpoint {
            name,
            balance,
            proven,
            ..
        } = endpoint;
        let step = match next.services.get(&key) {
            Some(old) if old.slots == slots && old.balance == *balance => continue,
            // Nobody has said yet that its backends are gone or bad: unknown is not empty.
            Some(old) if !desired.complete && shrinks(old, &slots, *proven) => continue,
            Some(old) => {
                let service = InstalledService {
                    table: old.table,
                    half: old.half ^ 1,
                    generation: old.generation.wrapping_add(1).max(1),
                    balance: *balance,
                    slots,
                };
                Step::PutService {
                    key,
                    service,
                    fresh: false,
                }
            }
            None => {
                let Some(table) = next.free_tables.take(now) else {
                    problems.push(Problem::new(
                        format!("service {name}"),
                        "the map of services is full; raise limits.services, which takes effect once the pins are removed",
                    ));
                    continue;
                };
                next.free_tables.untake(table);
                let service = InstalledService {
                    table,
                    half: 0,
                    generation: 1,
                    balance: *balance,
                    slots,
                };
                Step::PutService {
                    key,
                    service,
                    fresh: true,
                }
            }
        };
        next.apply(&step, now);
        steps.push(step);
    }
    steps
}

/// Whether `slots` would take backends away that were there, without anybody's word against them: none is
/// left, or not all have been probed yet.
fn shrinks(old: &InstalledService, slots: &[u32], proven: bool) -> bool {
    let emptied = slots.is_empty() && !old.slots.is_empty();
    emptied || (!proven && old.slots.iter().any(|index| !slots.contains(index)))
}

fn remove(
    next: &mut Installed,
    desired: &Desired,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let gone: Vec<_> = next
        .services
        .keys()
        .filter(|key| !desired.services.contains_key(key))
        .copied()
        .collect();
    for key in gone {
        let step = Step::RemoveService { key };
        next.apply(&step, now);
        steps.push(step);
    }
    let gone = next.freeable(
        |address| desired.backends.contains_key(address),
        active,
        now,
    );
    for address in gone {
        let step = Step::FreeBackend { address };
        next.apply(&step, now);
        steps.push(step);
    }
    steps
}

impl Installed {
    /// Notes a step that the kernel has taken.
    pub fn apply(&mut self, step: &Step, now: Instant) {
        match step {
            Step::PutBackend {
                address,
                id,
                weight,
                ..
            } => {
                self.place(
                    *address,
                    InstalledBackend {
                        id: *id,
                        weight: *weight,
                    },
                    now,
                );
            }
            Step::PutService { key, service, .. } => {
                self.free_tables.claim(service.table);
                // The new one first: what both name never counts as unreferenced.
                self.refer(&service.slots);
                if let Some(old) = self.services.insert(*key, service.clone()) {
                    self.unrefer(&old.slots, now);
                }
            }
            Step::RemoveService { key } => {
                if let Some(service) = self.services.remove(key) {
                    self.unrefer(&service.slots, now);
                    self.free_tables.give_back(service.table, now);
                }
            }
            Step::FreeBackend { address } => self.displace(address, now),
        }
    }
}

impl InstalledService {
    /// The value of `SERVICES` that publishes it.
    pub fn value(&self) -> Service {
        Service {
            table: self.table,
            half: self.half,
            count: u32::try_from(self.slots.len()).unwrap_or(SLOTS),
            generation: self.generation,
            balance: self.balance as u32,
            spare: 0,
        }
    }

    /// The half of its table that the value names, for the endpoint of `vip`.
    pub fn half(&self, vip: Be32) -> Half {
        let mut half = Half {
            generation: self.generation,
            vip,
            slots: [0; SLOTS as usize],
        };
        for (slot, &index) in half.slots.iter_mut().zip(self.slots.iter().cycle()) {
            *slot = index;
        }
        half
    }
}

/// The value of `BACKENDS` for a backend.
pub fn backend_value(address: SocketAddrV4, id: BackendId, weight: u16) -> Backend {
    Backend {
        address: Be32::from_host((*address.ip()).into()),
        port: Be16::from_host(address.port()),
        weight: weight.max(1),
        generation: id.generation,
        spare: 0,
    }
}

#[cfg(test)]
mod tests;
