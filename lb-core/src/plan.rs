//! The ordered steps that turn what the maps hold into what they should hold. Pure.
//!
//! A backend is written before a table names it, a table before its service names it, and a backend is
//! freed after no table and no flow names it: after every single step, each lookup gives a right answer.

#[cfg(test)]
mod hot;
mod round;
mod unknown;
mod value;

use std::{net::SocketAddr, time::Instant};

use lb_common::{BackendId, ServiceKey};

use crate::{
    catalog::Problem,
    desired::Desired,
    installed::{Installed, InstalledBackend, InstalledService},
};

pub use round::{Round, Todo};
pub use value::backend_value;

/// One write to the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A backend: new, or with another weight.
    PutBackend {
        /// Where flows go.
        address: SocketAddr,
        /// Its id.
        id: BackendId,
        /// Its weight.
        weight: u16,
        /// The id that its flows are counted at.
        counted_at: BackendId,
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
        address: SocketAddr,
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
    let mut round = Round::new(Todo::all(installed, desired));
    let mut steps = Vec::new();
    while let Some(step) = round.next(&mut next, desired, &active, now) {
        next.apply(&step, now);
        steps.push(step);
    }
    for step in free(&next, desired, active, now) {
        next.apply(&step, now);
        steps.push(step);
    }
    (steps, round.end(None).1)
}

/// The steps that free what `desired` does not name and nobody uses any more.
pub fn free(
    installed: &Installed,
    desired: &Desired,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> Vec<Step> {
    if !desired.complete {
        return Vec::new();
    }
    let keep = |address: &SocketAddr| desired.backends.contains_key(address);
    let gone = installed.freeable(keep, active, now).into_iter();
    gone.map(|address| Step::FreeBackend { address }).collect()
}

impl Installed {
    /// The generation of the table that is published next.
    fn next_generation(&self) -> u32 {
        self.published.wrapping_add(1).max(1)
    }

    /// Notes a step that the kernel has taken.
    pub fn apply(&mut self, step: &Step, now: Instant) {
        match step {
            Step::PutBackend {
                address,
                id,
                weight,
                counted_at,
                ..
            } => {
                let backend = InstalledBackend {
                    id: *id,
                    weight: *weight,
                    counted_at: *counted_at,
                };
                self.place(*address, backend, now);
            }
            Step::PutService { key, service, .. } => {
                self.published = service.generation;
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

#[cfg(test)]
mod tests;
