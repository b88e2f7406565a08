//! The snapshot as a pure function of everything that is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::SystemTime,
};

use super::Drain;
use crate::{
    catalog::{Catalog, Instance, Problem, SourceState},
    discover,
    discover::consul::VIRTUAL_ADDRESS,
    health::Verdicts,
    options::{self, CheckKind, Resolved},
    snapshot::{Backend, Probe, ProbeState, Service, ServiceName, Snapshot, Source},
    vip::Vips,
};

/// What the sources say, understood: made once per change of a source, since it is the costly half.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) catalog: Catalog,
    resolved: BTreeMap<String, Resolved>,
    sources: BTreeMap<String, Source>,
    /// Whether every source has answered.
    pub(super) answered: bool,
    /// Every service and part, with the virtual address that its registration wishes for.
    pub(super) names: BTreeMap<ServiceName, Option<Ipv4Addr>>,
    problems: Vec<Problem>,
}

/// Everything else that a snapshot is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// The virtual addresses given out.
    pub vips: &'f Vips,
    /// What our own probes say.
    pub verdicts: &'f Verdicts,
    /// What operators took out.
    pub drains: &'f BTreeSet<Drain>,
    /// Problems that other stages found.
    pub problems: &'f [Problem],
    /// When the sources said what they say: since then backends that were never probed wait.
    pub since: SystemTime,
}

/// The snapshot of these facts.
pub fn assemble(sources: &BTreeMap<String, SourceState>, facts: &Facts<'_>) -> Snapshot {
    compose(&understand(sources), facts)
}

impl Known {
    /// The sources, as the snapshot shows them.
    pub(super) fn sources(&self) -> &BTreeMap<String, Source> {
        &self.sources
    }

    /// Takes over when the sources answered last; everything else they say is known already.
    pub(super) fn refresh(&mut self, sources: &BTreeMap<String, SourceState>) {
        self.sources = shown(sources);
    }
}

pub(super) fn understand(sources: &BTreeMap<String, SourceState>) -> Known {
    let catalogs = sources.values().filter_map(|it| it.catalog.as_deref());
    let catalog = discover::merge(catalogs);
    let mut known = Known {
        answered: sources.values().all(|it| it.catalog.is_some()),
        sources: shown(sources),
        ..Known::default()
    };
    for (name, instances) in &catalog.services {
        let resolved = options::resolve(name, instances);
        let wish = wished_vip(name, instances, &mut known.problems);
        known.names.insert(ServiceName::whole(&**name), wish);
        for tag in &resolved.domain_tags {
            known.names.insert(ServiceName::part(&**name, tag), None);
        }
        known.problems.extend(resolved.problems.iter().cloned());
        known.resolved.insert(name.to_string(), resolved);
    }
    known.problems.extend(catalog.problems.iter().cloned());
    known.catalog = catalog;
    known
}

pub(super) fn compose(known: &Known, facts: &Facts<'_>) -> Snapshot {
    let mut services = BTreeMap::new();
    for name in known.names.keys() {
        let resolved = &known.resolved[&name.service];
        let instances = known.catalog.services[&*name.service].iter();
        let members = instances.filter(|it| match &name.tag {
            None => true,
            Some(tag) => it.tags.contains(tag),
        });
        let service = Service {
            vip: facts.vips.by_name.get(name).copied(),
            options: resolved.options.clone(),
            // An alias stands for the whole service.
            aliases: match &name.tag {
                None => resolved.aliases.clone(),
                Some(_) => BTreeSet::new(),
            },
            backends: members
                .map(|it| (it.key.clone(), backend(&name.service, it, resolved, facts)))
                .collect(),
        };
        services.insert(name.clone(), service);
    }
    let mut problems = known.problems.clone();
    problems.extend_from_slice(&facts.vips.problems);
    problems.extend_from_slice(facts.problems);
    problems.sort();
    problems.dedup();
    Snapshot {
        answered: known.answered,
        complete: known.answered && facts.verdicts.settled,
        services,
        problems,
        sources: known.sources.clone(),
    }
}

fn backend(service: &str, instance: &Instance, resolved: &Resolved, facts: &Facts<'_>) -> Backend {
    let check = &resolved.options.check;
    let stated = resolved.weights.get(&instance.key).copied();
    let drain = Drain {
        service: service.to_owned(),
        instance: instance.key.clone(),
    };
    Backend {
        address: instance.address,
        tags: instance.tags.clone(),
        weight: stated.unwrap_or(instance.weight),
        source: instance.health,
        checks: instance.checks.clone(),
        probe: facts
            .verdicts
            .of(instance.address, check)
            .cloned()
            .unwrap_or_else(|| unprobed(check, facts.since)),
        draining: facts.drains.contains(&drain),
    }
}

fn unprobed(check: &CheckKind, since: SystemTime) -> Probe {
    Probe {
        state: match check {
            CheckKind::Off => ProbeState::Off,
            CheckKind::Tcp | CheckKind::Http(_) => ProbeState::Starting,
        },
        since,
        error: None,
        took: None,
    }
}

fn shown(sources: &BTreeMap<String, SourceState>) -> BTreeMap<String, Source> {
    let show = |state: &SourceState| Source {
        updated: state.updated,
        error: state.error.clone(),
    };
    let shown = sources.iter();
    shown
        .map(|(name, state)| (name.clone(), show(state)))
        .collect()
}

/// The virtual address that the newest registration with such a wish asks for.
fn wished_vip(
    service: &str,
    instances: &[Arc<Instance>],
    problems: &mut Vec<Problem>,
) -> Option<Ipv4Addr> {
    let stated = |it: &&Arc<Instance>| it.meta.contains_key(VIRTUAL_ADDRESS);
    let newest = instances
        .iter()
        .filter(stated)
        .max_by_key(|it| (it.registered, &it.key))?;
    let text = &newest.meta[VIRTUAL_ADDRESS];
    let wish = text.parse().ok();
    if wish.is_none() {
        let message =
            format!("its virtual address `{text}` is not an IPv4 address and has no effect");
        problems.push(Problem::new(format!("service {service}"), message));
    }
    wish
}
