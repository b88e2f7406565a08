//! The snapshot as a pure function of everything that is known, made anew only where something changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

use super::{
    known::{Known, Understood, understand},
    ramps::Percents,
};
use crate::{
    catalog::{Instance, Problem, SourceState},
    cow_map::CowMap,
    health::Verdicts,
    options::CheckKind,
    order::Orders,
    snapshot::{Backend, FULL, Probe, ProbeState, Service, ServiceName, Snapshot, differences},
    vip::Vips,
};

/// Everything that a snapshot is made of, beside what the sources say.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The virtual addresses given out.
    pub vips: Arc<Vips>,
    /// What our own probes say.
    pub verdicts: Arc<Verdicts>,
    /// What operators ordered.
    pub orders: Arc<Orders>,
    /// The containers of this host that are ending or gone, by their full ids.
    pub departed: Arc<BTreeSet<String>>,
    /// The backends under slow start.
    pub ramps: Arc<Percents>,
    /// Problems that other stages found.
    pub problems: Vec<Problem>,
    /// When the sources said what they say: since then backends that were never probed wait.
    pub since: SystemTime,
}

/// The snapshot before this one, and what has changed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last<'l> {
    pub(super) snapshot: &'l Snapshot,
    /// What it was made of.
    pub(super) facts: &'l Facts,
    /// The services that the sources changed since.
    pub(super) changed: &'l BTreeSet<Arc<str>>,
}

/// The snapshot of these facts.
pub fn assemble(sources: &BTreeMap<String, SourceState>, facts: &Facts) -> Snapshot {
    compose(&understand(sources), facts, None)
}

/// The snapshot of what is `known` and of `facts`. Everything that did not change shares its allocation with the
/// last one, and costs nothing but that.
pub(super) fn compose(known: &Known, facts: &Facts, last: Option<Last<'_>>) -> Snapshot {
    let mut services = last.map_or_else(CowMap::new, |last| last.snapshot.services.clone());
    let stale = match last {
        Some(last) => stale(known, facts, last),
        None => known.services().keys().cloned().collect(),
    };
    for service in &stale {
        let mut old = take(&mut services, service);
        let Some(understood) = known.services().get(service) else {
            continue;
        };
        for name in understood.names(service) {
            let before = old.remove(&name);
            let made = make(&name, understood, facts, before.as_deref());
            services.insert(name, Arc::new(made));
        }
    }
    let mut problems = known.problems();
    problems.extend_from_slice(&facts.vips.problems);
    problems.extend_from_slice(&facts.problems);
    problems.sort();
    problems.dedup();
    Snapshot {
        number: 0,
        answered: known.answered(),
        stopgap: known.stopgap(),
        complete: known.answered() && facts.verdicts.settled,
        services,
        problems,
        sources: known.sources().clone(),
    }
}

/// The services that differ from the last snapshot's.
fn stale(known: &Known, facts: &Facts, last: Last<'_>) -> BTreeSet<Arc<str>> {
    let mut stale = last.changed.clone();
    let before = last.facts;
    if !Arc::ptr_eq(&before.vips, &facts.vips) {
        let (old, new) = (&before.vips.by_name, &facts.vips.by_name);
        let moved = differences(old, new, |one, other| one == other);
        stale.extend(moved.map(|(name, ..)| name.service.clone()));
    }
    let service = |name: &str| Some(known.services().get_key_value(name)?.0.clone());
    if !Arc::ptr_eq(&before.orders, &facts.orders) {
        let differ = differences(&before.orders, &facts.orders, |one, other| one == other);
        stale.extend(differ.filter_map(|(name, ..)| service(name)));
    }
    if !Arc::ptr_eq(&before.ramps, &facts.ramps) {
        let differ = differences(&before.ramps, &facts.ramps, |one, other| one == other);
        stale.extend(differ.map(|(name, ..)| name.clone()));
    }
    let judged = facts.verdicts.changed_since(&before.verdicts);
    let judged: BTreeSet<SocketAddr> = judged.map(|(address, _)| *address).collect();
    let departed = before.departed.symmetric_difference(&facts.departed);
    let departed: BTreeSet<&String> = departed.collect();
    if !judged.is_empty() || !departed.is_empty() {
        for (name, understood) in known.services() {
            let asked = understood.is_probed() && !judged.is_empty();
            let concerns = |it: &Instance| {
                asked && judged.contains(&it.address)
                    || local_container(it).is_some_and(|id| departed.contains(id))
            };
            // Most services are neither probed nor in a container of this host: those are not looked through.
            let may = asked || understood.in_local_containers() && !departed.is_empty();
            if may && understood.instances().iter().any(|it| concerns(it)) {
                stale.insert(name.clone());
            }
        }
    }
    stale
}

/// Takes a service and its parts out of `services`.
fn take(
    services: &mut CowMap<ServiceName, Arc<Service>>,
    service: &Arc<str>,
) -> BTreeMap<ServiceName, Arc<Service>> {
    let whole = ServiceName::whole(service.clone());
    let names = services.tail(Bound::Included(&whole)).map(|(name, _)| name);
    let names = names.take_while(|name| name.service == *service);
    let names: Vec<ServiceName> = names.cloned().collect();
    names
        .into_iter()
        .filter_map(|name| {
            let service = services.remove(&name)?;
            Some((name, service))
        })
        .collect()
}

fn make(
    name: &ServiceName,
    understood: &Understood,
    facts: &Facts,
    before: Option<&Service>,
) -> Service {
    let members = understood.instances().iter().filter(|it| match &name.tag {
        None => true,
        Some(tag) => it.tags.contains(&**tag),
    });
    let backend = |it: &Instance| {
        let before = before.and_then(|service| service.backends.get(&it.key));
        (
            it.key.clone(),
            backend(&name.service, it, understood, facts, before),
        )
    };
    let resolved = understood.resolved();
    Service {
        vip: facts.vips.by_name.get(name).copied(),
        options: resolved.options.clone(),
        // An alias stands for the whole service.
        aliases: match &name.tag {
            None => resolved.aliases.clone(),
            Some(_) => BTreeSet::new(),
        },
        backends: members.map(|it| backend(it)).collect(),
    }
}

fn backend(
    service: &str,
    instance: &Instance,
    understood: &Understood,
    facts: &Facts,
    before: Option<&Backend>,
) -> Backend {
    let resolved = understood.resolved();
    let check = resolved.options.check_of(&instance.tags);
    let stated = resolved.weights.get(&instance.key).copied();
    let ordered = facts.orders.get(service);
    let ordered = ordered.and_then(|instances| instances.get(&instance.key));
    let container = instance.container.as_deref();
    let verdict = facts.verdicts.on(instance.address, check, container);
    let known = before.and_then(|it| it.container.clone());
    Backend {
        address: instance.address,
        reach: instance.reach.clone(),
        local: instance.local,
        container: known
            .filter(|it| container == Some(it))
            .or_else(|| container.map(Arc::from)),
        tags: instance.tags.clone(),
        weight: stated.unwrap_or(instance.weight),
        canary: resolved.canaries.contains(&instance.key),
        source: instance.health,
        checks: instance.checks.clone(),
        probe: verdict.cloned().unwrap_or_else(|| {
            let probe = unprobed(check, facts.since);
            // It has waited since it was first heard of, not since its neighbour changed.
            let waits =
                before.filter(|it| it.address == instance.address && it.probe.state == probe.state);
            waits.map_or(probe, |it| it.probe.clone())
        }),
        order: ordered.copied().unwrap_or_default(),
        leaving: local_container(instance).is_some_and(|id| facts.departed.contains(id)),
        ramp: facts
            .ramps
            .get(service)
            .and_then(|ramps| ramps.get(&instance.key))
            .copied()
            .unwrap_or(FULL),
    }
}

/// The container of this host that an instance runs in.
pub(super) fn local_container(instance: &Instance) -> Option<&String> {
    instance.container.as_ref().filter(|_| instance.local)
}

fn unprobed(check: &CheckKind, since: SystemTime) -> Probe {
    Probe {
        state: match check {
            CheckKind::Off => ProbeState::Off,
            CheckKind::Tcp
            | CheckKind::Http(_)
            | CheckKind::HttpAfter(..)
            | CheckKind::Http2(_) => ProbeState::Starting,
        },
        since,
        error: None,
        took: None,
    }
}
