//! Until when flows to backends that were taken out may live. Pure: snapshots and times in, decisions out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    catalog::InstanceKey,
    options::Options,
    snapshot::{self, ServiceName, Snapshot, State, changes},
    sockets::Target,
};

/// Flows that are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Whose backend it is or was; `None` if nobody here remembers.
    pub service: Option<ServiceName>,
    /// Which instances had its address.
    pub instances: Vec<InstanceKey>,
    /// When it was taken out.
    pub since: Instant,
    /// How long flows may go on after that. What leaves the catalog takes its options with it, so this is the last
    /// value known.
    pub drain: Duration,
    /// Whether the catalog still has it: then it may come back, and what is known of it is kept.
    registered: bool,
    /// When its flows are ended next; `None` once none is left.
    next: Option<Instant>,
    /// How often that failed in a row.
    failures: u32,
}

impl Pending {
    /// When its flows end.
    pub fn deadline(&self) -> Instant {
        self.since + self.drain
    }

    fn belongs_to(&mut self, instance: &InstanceKey) {
        if !self.instances.contains(instance) {
            // Mostly the only one.
            self.instances.reserve_exact(1);
            self.instances.push(instance.clone());
        }
    }

    /// Whether its flows are still to end.
    pub fn is_open(&self) -> bool {
        self.next.is_some()
    }
}

/// Everything that is taken out.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    pending: BTreeMap<Target, Pending>,
}

impl Deadlines {
    /// Goes over from the snapshot `before` to the one `after`, which must be complete.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot, now: Instant) {
        let mut alive = BTreeSet::new();
        for (name, old, new) in changes(&before.services, &after.services) {
            let (old, new) = (old.map(|it| &**it), new.map(|it| &**it));
            if let Some(old) = old {
                self.left(name, old, new, now);
            }
            if let Some(new) = new {
                self.drained(name, new, now);
                alive.extend(takes_flows(new));
            }
        }
        // Last: whatever another service or instance does with an address, one that takes flows there counts.
        for target in alive {
            self.pending.remove(&target);
        }
        self.forget_done();
    }

    /// Notes the flows that were there before this agent. Those to what `snapshot`, which must be complete, does
    /// not have went to a backend that left while nobody looked: their time begins now. Not where nobody has their VIP
    /// any more and the backend serves on: then it may be the VIP that left, for another one of the same service.
    pub fn adopt(&mut self, snapshot: &Snapshot, flows: &BTreeSet<Target>, now: Instant) {
        let mut alive = BTreeSet::new();
        let mut owners = BTreeMap::new();
        let mut serving = BTreeSet::new();
        for (name, service) in &snapshot.services {
            alive.extend(takes_flows(service));
            serving.extend(serving_at(service));
            owners.extend(service.vip.map(|vip| (vip, (name, service.options.drain))));
        }
        for target in flows.difference(&alive) {
            let owner = owners.get(&target.vip);
            if owner.is_none() && serving.contains(&target.address) {
                continue;
            }
            let drain = owner.map_or(Options::default().drain, |(_, drain)| *drain);
            self.pending.entry(*target).or_insert_with(|| Pending {
                service: owner.map(|(name, _)| (*name).clone()),
                ..Pending::new(now, drain)
            });
        }
    }

    /// Backends that `old` had and `new` has not.
    fn left(
        &mut self,
        name: &ServiceName,
        old: &snapshot::Service,
        new: Option<&snapshot::Service>,
        now: Instant,
    ) {
        let Some(vip) = old.vip else {
            return;
        };
        let stay: BTreeSet<_> = new
            .into_iter()
            .flat_map(|new| new.backends.values())
            .flat_map(snapshot::Backend::addresses)
            .collect();
        let backends = old.backends.iter();
        for (key, address) in backends.flat_map(|(key, it)| it.addresses().map(move |at| (key, at)))
        {
            if stay.contains(&address) {
                continue;
            }
            let pending = self.pending.entry(Target { vip, address });
            let pending = pending.or_insert_with(|| Pending {
                service: Some(name.clone()),
                ..Pending::new(now, old.options.drain)
            });
            pending.belongs_to(key);
            pending.registered = false;
        }
    }

    /// Backends that a service still has, but not for new flows.
    fn drained(&mut self, name: &ServiceName, service: &snapshot::Service, now: Instant) {
        let Some(vip) = service.vip else {
            return;
        };
        let out = service.backends.iter();
        let out = out.filter(|(_, backend)| taken_out(backend.state()));
        for (key, address) in out.flat_map(|(key, it)| it.addresses().map(move |at| (key, at))) {
            let pending = self.pending.entry(Target { vip, address });
            let pending = pending.or_insert_with(|| Pending::new(now, service.options.drain));
            pending.service = Some(name.clone());
            pending.belongs_to(key);
            pending.registered = true;
            if pending.drain != service.options.drain {
                pending.drain = service.options.drain;
                if pending.next.is_some() && pending.failures == 0 {
                    pending.next = Some(pending.deadline().max(now));
                }
            }
        }
    }

    /// What is taken out, those whose flows have ended included as long as the catalog has them.
    pub fn pending(&self) -> &BTreeMap<Target, Pending> {
        &self.pending
    }

    /// When there is something to do next.
    pub fn next(&self) -> Option<Instant> {
        self.pending.values().filter_map(|it| it.next).min()
    }

    /// Whose flows are to be ended now.
    pub fn due(&self, now: Instant) -> BTreeSet<Target> {
        let due = |it: &Pending| it.next.is_some_and(|next| next <= now);
        let all = self.pending.iter();
        all.filter(|(_, it)| due(it))
            .map(|(target, _)| *target)
            .collect()
    }

    /// Notes that the flows to `target` were looked for and that `ended` of them were ended.
    pub fn ended(&mut self, target: &Target, ended: u64, now: Instant) {
        if let Some(pending) = self.pending.get_mut(target) {
            pending.failures = 0;
            // A connect that read the old table may still have been on its way.
            let settled = ended == 0 && now >= pending.deadline() + STRAGGLERS;
            pending.next = (!settled).then(|| now + AGAIN);
        }
        self.forget_done();
    }

    /// Notes that a flow to `target` could not be ended.
    pub fn failed(&mut self, target: &Target, now: Instant) {
        if let Some(pending) = self.pending.get_mut(target) {
            let wait = AGAIN * (1 << pending.failures.min(6));
            pending.failures = pending.failures.saturating_add(1);
            pending.next = Some(now + wait);
        }
    }

    /// Notes that the flows to `target` cannot be ended, ever.
    pub fn given_up(&mut self, target: &Target) {
        if let Some(pending) = self.pending.get_mut(target) {
            pending.next = None;
        }
        self.forget_done();
    }

    fn forget_done(&mut self) {
        self.pending.retain(|_, it| it.registered || it.is_open());
    }
}

impl Pending {
    fn new(since: Instant, drain: Duration) -> Self {
        Self {
            service: None,
            instances: Vec::new(),
            since,
            drain,
            registered: false,
            next: Some(since + drain),
            failures: 0,
        }
    }
}

/// Whether somebody wished that it serves no more. One that only fails keeps its flows: it may recover.
fn taken_out(state: State) -> bool {
    match state {
        State::Maintenance | State::Draining | State::Leaving => true,
        State::Usable
        | State::Starting
        | State::L4Down
        | State::ConsulWarning
        | State::ConsulCritical => false,
    }
}

fn takes_flows(service: &snapshot::Service) -> impl Iterator<Item = Target> {
    let vip = service.vip;
    serving_at(service).filter_map(move |address| vip.map(|vip| Target { vip, address }))
}

/// Where the backends are that may keep their flows.
fn serving_at(service: &snapshot::Service) -> impl Iterator<Item = SocketAddr> {
    let backends = service.backends.values();
    backends
        .filter(|it| !taken_out(it.state()))
        .flat_map(snapshot::Backend::addresses)
}

/// Between two times that the flows of one backend are looked for.
const AGAIN: Duration = Duration::from_secs(1);

/// How long after the deadline flows may still appear: the maps may name a backend a moment longer than the snapshot.
const STRAGGLERS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
