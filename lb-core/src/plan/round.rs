//! One way through what may differ: which step is next, once the one before it is done.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use lb_common::{BackendId, FAMILY_ANY, ServiceKey, flag};

use super::{Step, unknown};
use crate::{
    catalog::Problem,
    desired::{Desired, Endpoint, Share},
    installed::{Installed, InstalledBackend, InstalledService},
};

/// Where the maps may hold something else than they should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// By address.
    pub backends: BTreeSet<SocketAddr>,
    /// By endpoint.
    pub services: BTreeSet<ServiceKey>,
}

impl Todo {
    /// With the views that `desired` no more has of services that are looked at, for as long as it is not complete: one
    /// that an earlier agent had is known to nobody else.
    pub fn with_former_views(mut self, installed: &Installed, desired: &Desired) -> Self {
        let former = installed.services.keys().filter(|key| {
            self.services.contains(&unknown::of_host(**key)) && !desired.services.contains_key(key)
        });
        let former: Vec<_> = former.copied().collect();
        self.services.extend(former);
        self
    }

    /// Everywhere.
    pub fn all(installed: &Installed, desired: &Desired) -> Self {
        let services = desired.services.keys().chain(installed.services.keys());
        Self {
            backends: desired.backends.keys().copied().collect(),
            services: services.copied().collect(),
        }
    }

    /// Here and where `other` says.
    pub fn extend(&mut self, mut other: Self) {
        self.backends.append(&mut other.backends);
        self.services.append(&mut other.services);
    }

    /// Nowhere.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.services.is_empty()
    }
}

/// One way through a [`Todo`]: the steps, each decided when the one before it is done.
#[derive(Debug)]
pub struct Round {
    todo: Todo,
    /// Endpoints that nobody wants, found on the way.
    gone: Vec<ServiceKey>,
    /// What could not be done, to be tried again.
    left: Todo,
    /// Why not.
    problems: Vec<Problem>,
}

impl Round {
    /// The way through `todo`.
    pub fn new(todo: Todo) -> Self {
        Self {
            todo,
            gone: Vec::new(),
            left: Todo::default(),
            problems: Vec::new(),
        }
    }

    /// The next step, if `installed` is what the maps hold after the last one; of its lists of free indexes only the
    /// order may change here.
    pub fn next(
        &mut self,
        installed: &mut Installed,
        desired: &Desired,
        active: impl Fn(u32) -> u64,
        now: Instant,
    ) -> Option<Step> {
        while let Some(address) = self.todo.backends.pop_first() {
            match put_backend(installed, desired, address, &active, now) {
                Ok(None) => {}
                Ok(Some(step)) => {
                    // What it refers to: its own turn comes when that is there.
                    if !matches!(&step, Step::PutBackend { address: put, .. } if *put == address) {
                        self.todo.backends.insert(address);
                    }
                    return Some(step);
                }
                Err(problem) => {
                    self.left.backends.insert(address);
                    self.problems.push(problem);
                }
            }
        }
        // From the last one: whoever may be looked up first is there before what a program goes on from, so that no client
        // meets what is meant for others.
        while let Some(mut key) = self.todo.services.pop_last() {
            let any = ServiceKey {
                family: FAMILY_ANY,
                ..key
            };
            // One for IPv6 sockets that its twin leads to already comes after that where the twin is to lead other views
            // away from it.
            let alone = |it: &InstalledService| it.flags & (flag::V6 | flag::VIEWS) == flag::V6;
            let leads = |it: &Endpoint| it.flags & flag::VIEWS != 0;
            if key != any
                && installed.services.get(&any).is_some_and(alone)
                && desired.services.get(&any).is_some_and(leads)
                && self.todo.services.remove(&any)
            {
                self.todo.services.insert(key);
                key = any;
            }
            let Some(endpoint) = desired.services.get(&key) else {
                self.gone.push(key);
                continue;
            };
            let known = |address| installed.backends.contains_key(address);
            if !endpoint.slots.iter().all(known) {
                self.left.services.insert(key);
            }
            match put_service(installed, desired, key, endpoint, now) {
                Ok(None) => {}
                Ok(step) => return step,
                Err(problem) => {
                    self.left.services.insert(key);
                    self.problems.push(problem);
                }
            }
        }
        while let Some(key) = self.gone.pop() {
            let Some(old) = installed.services.get(&key) else {
                continue;
            };
            // What nobody knows stays: services that a source may have, and views of clients that may be there.
            let known = desired.complete
                && !(desired.unlocated && desired.services.contains_key(&unknown::of_host(key)));
            if known {
                return Some(Step::RemoveService { key });
            }
            if let Some(step) = unknown::superseded(installed, old, desired, key) {
                return Some(step);
            }
        }
        None
    }

    /// What is left to be tried again when `refused`, the last step, could not be carried out, if that is so; and what
    /// did not fit.
    pub fn end(mut self, refused: Option<&Step>) -> (Todo, Vec<Problem>) {
        self.left.extend(self.todo);
        self.left.services.extend(self.gone);
        match refused {
            Some(Step::PutBackend { address, .. }) => {
                self.left.backends.insert(*address);
            }
            Some(Step::PutService { key, .. } | Step::RemoveService { key }) => {
                self.left.services.insert(*key);
            }
            // Whoever frees looks at all of them each time.
            Some(Step::FreeBackend { .. }) | None => {}
        }
        (self.left, self.problems)
    }
}

fn put_backend(
    installed: &mut Installed,
    desired: &Desired,
    address: SocketAddr,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> Result<Option<Step>, Problem> {
    let Some(&Share { weight, counted_at }) = desired.backends.get(&address) else {
        // Whether it is freed is a question of time and of its flows.
        return Ok(None);
    };
    if counted_at != address && !installed.backends.contains_key(&counted_at) {
        // What it refers to comes first. Alone, whatever that one is to be counted at: it is on its own way.
        let (id, fresh) = id_for(installed, counted_at, &active, now)?;
        return Ok(Some(Step::PutBackend {
            address: counted_at,
            id,
            weight,
            counted_at: id,
            fresh,
        }));
    }
    let known = installed.backends.get(&counted_at).map(|it| it.id);
    let (id, fresh) = id_for(installed, address, &active, now)?;
    let counted_at = known.unwrap_or(id);
    let wanted = InstalledBackend {
        id,
        weight,
        counted_at,
    };
    if installed.backends.get(&address) == Some(&wanted) {
        return Ok(None);
    }
    Ok(Some(Step::PutBackend {
        address,
        id,
        weight,
        counted_at,
        fresh,
    }))
}

/// The id of a backend, and whether it is a new one.
fn id_for(
    installed: &mut Installed,
    address: SocketAddr,
    active: impl Fn(u32) -> u64,
    now: Instant,
) -> Result<(BackendId, bool), Problem> {
    if let Some(backend) = installed.backends.get(&address) {
        return Ok((backend.id, false));
    }
    // An earlier version of the maps may have left flows behind that still count there.
    let free = &mut installed.free_backends;
    let Some(index) = free.take_if(now, |index| active(index) == 0) else {
        return Err(Problem::new(
            format!("backend {address}"),
            "the map of backends is full; raise limits.backends, which takes effect once the pins are removed",
        ));
    };
    free.untake(index);
    let last = installed.generations.get(&index);
    let generation = last.map_or(1, |last| last.wrapping_add(1).max(1));
    Ok((BackendId { index, generation }, true))
}

fn put_service(
    installed: &mut Installed,
    desired: &Desired,
    key: ServiceKey,
    endpoint: &Endpoint,
    now: Instant,
) -> Result<Option<Step>, Problem> {
    let named = endpoint.slots.iter();
    let mut slots: Vec<u32> = named
        .filter_map(|address| installed.backends.get(address))
        .map(|backend| backend.id.index)
        .collect();
    let (balance, mut flags) = (endpoint.balance, endpoint.flags);
    if let Some(old) = installed.services.get(&key) {
        if !desired.complete {
            match unknown::grown(installed, old, slots, endpoint) {
                Some(grown) => slots = grown,
                None => return Ok(None),
            }
        }
        flags |= unknown::leading(old, desired);
    }
    let affinity_seconds = endpoint.affinity_seconds;
    let same = |old: &InstalledService| {
        let how = (old.balance, old.flags, old.affinity_seconds);
        old.slots == slots && how == (balance, flags, affinity_seconds)
    };
    let generation = installed.next_generation();
    let (table, half, fresh) = match installed.services.get(&key) {
        Some(old) if same(old) => return Ok(None),
        Some(old) => (old.table, old.half ^ 1, false),
        None => {
            let Some(table) = installed.free_tables.take(now) else {
                return Err(Problem::new(
                    format!("service {}", endpoint.name),
                    "the map of services is full; raise limits.services, which takes effect once the pins are removed",
                ));
            };
            installed.free_tables.untake(table);
            (table, 0, true)
        }
    };
    let service = InstalledService {
        table,
        half,
        generation,
        balance,
        affinity_seconds,
        flags,
        slots,
    };
    Ok(Some(Step::PutService {
        key,
        service,
        fresh,
    }))
}
