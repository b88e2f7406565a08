//! What the maps should hold, as a pure function of the snapshot.

mod asked;
mod explain;
mod reach;
mod slots;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use lb_common::{Balance, ServiceKey, flag};

use self::asked::Asked;
pub use self::explain::{By, Explained, Explanation, Way, explain};
#[cfg(test)]
pub(crate) use self::slots::by_hash;
pub use self::{asked::fit, reach::from_host};
use crate::{
    catalog::Problem,
    plan::Todo,
    snapshot::{Service, ServiceName, Snapshot, changes},
    views::Views,
    vip::Pools,
};

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// One entry for each virtual endpoint.
    pub services: BTreeMap<ServiceKey, Endpoint>,
    /// Every address in use by an endpoint, or by an instance that is not usable at the moment but keeps its
    /// id.
    pub backends: BTreeMap<SocketAddr, Share>,
    /// Whether an endpoint that is not here may be removed: every source has answered.
    pub complete: bool,
    /// Whether it is not known yet where clients stand: an earlier agent's views are not gone for that.
    pub unlocated: bool,
}

/// How an address takes part in least-connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Its weight.
    pub weight: u16,
    /// The address of the same instance that its flows are counted at.
    pub counted_at: SocketAddr,
}

impl Share {
    /// Before all others.
    const LEAST: Self = Self {
        weight: 0,
        counted_at: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    };
}

/// One virtual endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose it is.
    pub name: ServiceName,
    /// How its backend is chosen.
    pub balance: Balance,
    /// For how many seconds a client keeps its backend; 0 means not at all.
    pub affinity_seconds: u32,
    /// [`lb_common::flag`]s.
    pub flags: u32,
    /// Whether all its backends have been probed often enough to be judged.
    pub proven: bool,
    /// Every address of its service's backends that somebody sees, usable or not, in order.
    pub named: Arc<[SocketAddr]>,
    /// The sequence of backends that fills its slots; empty when none is usable.
    pub slots: Vec<SocketAddr>,
}

impl Desired {
    /// What the maps should hold for `snapshot`, and what of it they cannot. No backend may lie in one of the `pools`: a VIP
    /// behind a VIP would never be reached, since hooks do not run twice.
    pub fn new(snapshot: &Snapshot, pools: Pools) -> (Self, Vec<Problem>) {
        let mut wanted = Wanted::new(pools);
        wanted.follow(&Snapshot::default(), snapshot);
        let problems = wanted.problems().cloned().collect();
        (wanted.desired, problems)
    }
}

/// [`Desired`], kept from one snapshot to the next: each costs what has changed.
#[derive(Debug)]
pub struct Wanted {
    desired: Desired,
    pools: Pools,
    /// Where clients stand.
    views: Arc<Views>,
    /// How many services want an address with such a share: the highest counts.
    shares: BTreeMap<(SocketAddr, Share), usize>,
    /// What the maps cannot hold, by service.
    problems: BTreeMap<ServiceName, Vec<Problem>>,
    /// Services of which each decision is to be told.
    traced: BTreeSet<ServiceName>,
}

impl Wanted {
    /// Nothing yet. No backend may lie in one of the `pools`.
    pub fn new(pools: Pools) -> Self {
        let desired = Desired {
            unlocated: true,
            ..Desired::default()
        };
        Self {
            desired,
            pools,
            views: Arc::default(),
            shares: BTreeMap::new(),
            problems: BTreeMap::new(),
            traced: BTreeSet::new(),
        }
    }

    /// What the maps should hold.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What of it they cannot.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Goes over from the snapshot `before` to the one `after`. Returns everything that may be another now.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot) -> Todo {
        let changed = changes(&before.services, &after.services);
        let pairs =
            changed.map(|(name, old, new)| (name, old.map(|it| &**it), new.map(|it| &**it)));
        let todo = self.go_over(pairs, &Arc::clone(&self.views));
        self.desired.complete = after.complete;
        todo
    }

    /// Goes over to other `views` of the same `snapshot`.
    pub fn look(&mut self, snapshot: &Snapshot, views: &Arc<Views>) -> Todo {
        let first = std::mem::take(&mut self.desired.unlocated);
        if self.views == *views && !first {
            return Todo::default();
        }
        let all = snapshot.services.iter();
        self.go_over(
            all.map(|(name, it)| (name, Some(&**it), Some(&**it))),
            views,
        )
    }

    /// Wants each decision for a service told, or no more. Returns what that changes.
    pub fn trace(&mut self, name: &ServiceName, wanted: bool) -> Todo {
        if wanted {
            self.traced.insert(name.clone());
        } else {
            self.traced.remove(name);
        }
        let mut todo = Todo::default();
        for (key, endpoint) in &mut self.desired.services {
            if endpoint.name == *name {
                endpoint.flags = traced(endpoint.flags, wanted);
                todo.services.insert(*key);
            }
        }
        todo
    }

    fn go_over<'s>(
        &mut self,
        changed: impl Iterator<Item = (&'s ServiceName, Option<&'s Service>, Option<&'s Service>)>,
        views: &Arc<Views>,
    ) -> Todo {
        let mut todo = Todo::default();
        let mut come = Vec::new();
        for (name, old, new) in changed {
            let ask = |service, views| Asked::new(name, service, views, self.pools);
            if let Some(asked) = old.and_then(|service| ask(service, &self.views)) {
                self.forget(name, asked, &mut todo);
            }
            let asked = new.and_then(|service| Asked::new(name, service, views, self.pools));
            come.extend(asked.map(|asked| (name, asked)));
        }
        // After all have left: a VIP that one service hands to another stays.
        for (name, asked) in come {
            self.note(name, asked, &mut todo);
        }
        for &address in &todo.backends {
            match self.highest(address) {
                Some(share) => drop(self.desired.backends.insert(address, share)),
                None => drop(self.desired.backends.remove(&address)),
            }
        }
        self.views = Arc::clone(views);
        todo
    }

    fn forget(&mut self, name: &ServiceName, asked: Asked, todo: &mut Todo) {
        self.problems.remove(name);
        for key in asked.endpoints.into_keys() {
            self.desired.services.remove(&key);
            todo.services.insert(key);
        }
        for (address, share) in asked.backends {
            if let Entry::Occupied(mut times) = self.shares.entry((address, share)) {
                *times.get_mut() -= 1;
                if *times.get() == 0 {
                    times.remove();
                }
            }
            todo.backends.insert(address);
        }
    }

    fn note(&mut self, name: &ServiceName, asked: Asked, todo: &mut Todo) {
        if !asked.problems.is_empty() {
            self.problems.insert(name.clone(), asked.problems);
        }
        let wanted = self.traced.contains(name);
        for (key, mut endpoint) in asked.endpoints {
            endpoint.flags = traced(endpoint.flags, wanted);
            self.desired.services.insert(key, endpoint);
            todo.services.insert(key);
        }
        for (address, share) in asked.backends {
            *self.shares.entry((address, share)).or_default() += 1;
            todo.backends.insert(address);
        }
    }

    /// The highest share that a service wants for `address`, if one does.
    fn highest(&self, address: SocketAddr) -> Option<Share> {
        let shares = self.shares.range((address, Share::LEAST)..);
        let shares = shares.map_while(|(&(at, share), _)| (at == address).then_some(share));
        shares.last()
    }
}

fn traced(flags: u32, wanted: bool) -> u32 {
    if wanted {
        flags | flag::TRACE
    } else {
        flags & !flag::TRACE
    }
}

#[cfg(test)]
mod tests;
