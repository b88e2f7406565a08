//! Until when flows to backends that were taken out may live. Pure: snapshots and times in, decisions out.

mod limit;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    catalog::InstanceKey,
    options::Options,
    snapshot::{self, ServiceName, Snapshot, State, changes},
    sockets::Target,
};

use limit::Limit;
pub use limit::Now;

/// Flows that are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Whose backend it is or was; `None` if nobody here remembers.
    pub service: Option<ServiceName>,
    /// Which instances had its address.
    pub instances: Vec<InstanceKey>,
    /// From when `lb_drain` counts: when it was taken out, or when that time took the place of an operator's own.
    since: Instant,
    /// Until when flows may go on. What leaves the catalog takes its options with it, so this is the last value known.
    limit: Limit,
    /// That, on the clock of this process.
    deadline: Instant,
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
        self.deadline
    }

    /// Has flows end by `limit`.
    fn limit_to(&mut self, limit: Limit, now: Now) {
        if self.limit == limit {
            return;
        }
        // Whatever held before, none of the time of `lb_drain` is used up.
        if self.limit.after.is_none() {
            self.since = now.instant;
        }
        self.limit = limit;
        self.deadline = limit.ends(self.since, now);
        if self.next.is_none() {
            return;
        }
        if self.deadline > now.instant {
            // What failed before failed for a deadline that holds no more.
            self.failures = 0;
            self.next = Some(self.deadline);
        } else if self.failures == 0 {
            self.next = Some(now.instant);
        }
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

/// Each of these addresses with whose it is and the latest of their limits: flows cannot be told apart by who had
/// registered their address.
fn by_address<'s>(
    backends: impl Iterator<Item = (&'s InstanceKey, &'s snapshot::Backend, SocketAddr)>,
    options: &Options,
) -> BTreeMap<SocketAddr, (Limit, Vec<&'s InstanceKey>)> {
    let mut all: BTreeMap<SocketAddr, (Limit, Vec<_>)> = BTreeMap::new();
    for (key, backend, address) in backends {
        let own = Limit::of(backend, options);
        let (limit, keys) = all.entry(address).or_insert((own, Vec::new()));
        *limit = limit.later(own);
        keys.push(key);
    }
    all
}

/// Everything that is taken out.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    pending: BTreeMap<Target, Pending>,
    /// Which services may have had a VIP before the one that they have now: their flows through it go on. Mostly none.
    former: BTreeMap<Ipv4Addr, BTreeSet<ServiceName>>,
}

impl Deadlines {
    /// Goes over from the snapshot `before` to the one `after`, which must be complete.
    pub fn follow(&mut self, before: &Snapshot, after: &Snapshot, now: Now) {
        let mut alive = BTreeSet::new();
        for (name, old, new) in changes(&before.services, &after.services) {
            let (old, new) = (old.map(|it| &**it), new.map(|it| &**it));
            let vip = new.and_then(|it| it.vip);
            if let Some(old) = old {
                if let Some(moved) = old.vip.filter(|it| Some(*it) != vip) {
                    self.former.entry(moved).or_default().insert(name.clone());
                }
                self.left(name, old, (after, new), now);
            }
            self.former.retain(|former, names| {
                if new.is_none() || vip == Some(*former) {
                    names.remove(name);
                }
                !names.is_empty()
            });
            if let Some(new) = new {
                self.drained(name, new, after, now);
                for vip in self.vips(name, vip) {
                    alive.extend(serving_at(new).map(|address| Target { vip, address }));
                }
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
    pub fn adopt(&mut self, snapshot: &Snapshot, flows: &BTreeSet<Target>, now: Now) {
        let mut alive = BTreeSet::new();
        let mut owners = BTreeMap::new();
        let mut serving: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, service) in &snapshot.services {
            alive.extend(takes_flows(service));
            for address in serving_at(service) {
                serving.entry(address).or_default().push(name);
            }
            owners.extend(service.vip.map(|vip| (vip, (name, service.options.drain))));
        }
        for target in flows.difference(&alive) {
            let owner = owners.get(&target.vip);
            if let (None, Some(names)) = (owner, serving.get(&target.address)) {
                let former = self.former.entry(target.vip).or_default();
                former.extend(names.iter().copied().cloned());
                continue;
            }
            let drain = owner.map_or(Options::default().drain, |(_, drain)| *drain);
            self.pending.entry(*target).or_insert_with(|| Pending {
                service: owner.map(|(name, _)| (*name).clone()),
                ..Pending::new(Limit::after(drain), now)
            });
        }
    }

    /// The VIPs that flows of a service go through, which has this one now.
    fn vips(&self, name: &ServiceName, vip: Option<Ipv4Addr>) -> BTreeSet<Ipv4Addr> {
        let former = self.former.iter();
        let former = former.filter(|(_, names)| names.contains(name));
        former.map(|(vip, _)| *vip).chain(vip).collect()
    }

    /// Whether the flows to `target` may be those of another service than `name`: one of them has the VIP, the other had it.
    fn is_shared(&self, name: &ServiceName, target: &Target, after: &Snapshot) -> bool {
        let Some(former) = self.former.get(&target.vip) else {
            return false;
        };
        after.services.iter().any(|(other, service)| {
            other != name
                && (service.vip == Some(target.vip) || former.contains(other))
                && serving_at(service).any(|address| address == target.address)
        })
    }

    /// Backends that `old` had and `new`, a service of the snapshot `after`, has not.
    fn left(
        &mut self,
        name: &ServiceName,
        old: &snapshot::Service,
        (after, new): (&Snapshot, Option<&snapshot::Service>),
        now: Now,
    ) {
        let mut vips = self.vips(name, old.vip);
        // Whoever was busy has not seen every snapshot: it may have served there at the new one, too.
        vips.extend(new.and_then(|it| it.vip));
        let stay: BTreeSet<_> = new
            .into_iter()
            .flat_map(|new| new.backends.values())
            .flat_map(snapshot::Backend::addresses)
            .collect();
        let backends = old.backends.iter();
        let all = backends.flat_map(|(key, it)| it.addresses().map(move |at| (key, it, at)));
        let gone = all.filter(|(_, _, address)| !stay.contains(address));
        for (address, (limit, keys)) in by_address(gone, &old.options) {
            for &vip in &vips {
                let target = Target { vip, address };
                if self.is_shared(name, &target, after) {
                    continue;
                }
                let pending = self.pending.entry(target);
                let pending = pending.or_insert_with(|| Pending {
                    service: Some(name.clone()),
                    ..Pending::new(limit, now)
                });
                for key in &keys {
                    pending.belongs_to(key);
                }
                pending.registered = false;
            }
        }
    }

    /// Backends that a service of the snapshot `after` still has, but not for new flows.
    fn drained(
        &mut self,
        name: &ServiceName,
        service: &snapshot::Service,
        after: &Snapshot,
        now: Now,
    ) {
        let vips = self.vips(name, service.vip);
        let out = service.backends.iter();
        let out = out.filter(|(_, backend)| taken_out(backend.state()));
        let out = out.flat_map(|(key, it)| it.addresses().map(move |at| (key, it, at)));
        for (address, (limit, keys)) in by_address(out, &service.options) {
            for &vip in &vips {
                let target = Target { vip, address };
                if self.is_shared(name, &target, after) {
                    continue;
                }
                let pending = self.pending.entry(target);
                let pending = pending.or_insert_with(|| Pending::new(limit, now));
                pending.service = Some(name.clone());
                for key in &keys {
                    pending.belongs_to(key);
                }
                pending.registered = true;
                pending.limit_to(limit, now);
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
    fn new(limit: Limit, now: Now) -> Self {
        let since = now.instant;
        let deadline = limit.ends(since, now);
        Self {
            service: None,
            instances: Vec::new(),
            since,
            limit,
            deadline,
            registered: false,
            next: Some(deadline),
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
