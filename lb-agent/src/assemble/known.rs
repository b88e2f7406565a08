//! What the sources say, understood: the costly half of a snapshot, made anew only for services that changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use super::compose::local_container;
use crate::{
    catalog::{Catalog, Instance, Problem, SourceState},
    discover,
    discover::consul::VIRTUAL_ADDRESS,
    options::{self, CheckKind, Resolved},
    snapshot::{ServiceName, Source, changes},
    vip::Names,
};

/// What the sources say, understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    catalog: Arc<Catalog>,
    services: BTreeMap<Arc<str>, Arc<Understood>>,
    sources: BTreeMap<String, Source>,
    answered: bool,
    stopgap: bool,
    names: Arc<Names>,
    /// The services with something wrong.
    troubled: BTreeSet<Arc<str>>,
}

/// One service, understood.
#[derive(Debug)]
pub(super) struct Understood {
    instances: Arc<[Arc<Instance>]>,
    resolved: Resolved,
    /// The virtual address that its registration wishes for.
    wish: Option<Ipv4Addr>,
    problems: Vec<Problem>,
    in_local_containers: bool,
}

/// What `sources` say, understood.
pub(super) fn understand(sources: &BTreeMap<String, SourceState>) -> Known {
    let mut known = Known::default();
    known.learn(sources);
    known
}

impl Known {
    /// Takes in what the sources say now. Returns the services that are not as they were.
    pub(super) fn learn(&mut self, sources: &BTreeMap<String, SourceState>) -> Vec<Arc<str>> {
        let catalogs = sources.values().filter_map(|it| it.catalog.as_ref());
        let catalog = discover::merge(catalogs, &self.catalog);
        let mut changed = Vec::new();
        let mut renamed = false;
        for (name, _, instances) in changes(&self.catalog.services, &catalog.services) {
            changed.push(name.clone());
            self.troubled.remove(name);
            let Some(instances) = instances else {
                self.services.remove(name);
                renamed = true;
                continue;
            };
            let service = Arc::new(Understood::new(name, instances));
            if !service.problems.is_empty() {
                self.troubled.insert(name.clone());
            }
            let before = self.services.insert(name.clone(), service.clone());
            renamed |= before.is_none_or(|before| !before.is_named_like(&service));
        }
        self.catalog = catalog;
        if renamed {
            let named = self.services.iter();
            let named = named.flat_map(|(name, it)| it.names(name).map(|name| it.wished(name)));
            self.names = Arc::new(named.collect());
        }
        let heard = sources.values().all(|it| it.catalog.is_some());
        self.stopgap = heard && sources.values().any(|it| it.kept);
        self.answered = heard && !self.stopgap;
        self.refresh(sources);
        changed
    }

    /// Takes over when the sources answered last; everything else they say is known already.
    pub(super) fn refresh(&mut self, sources: &BTreeMap<String, SourceState>) {
        let show = |state: &SourceState| Source {
            updated: state.updated,
            error: state.error.clone(),
        };
        let shown = sources.iter();
        self.sources = shown
            .map(|(name, state)| (name.clone(), show(state)))
            .collect();
    }

    /// Everything that all sources together name.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The services of the catalog.
    pub(super) fn services(&self) -> &BTreeMap<Arc<str>, Arc<Understood>> {
        &self.services
    }

    /// The sources, as the snapshot shows them.
    pub(super) fn sources(&self) -> &BTreeMap<String, Source> {
        &self.sources
    }

    /// Whether every source has answered.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// Whether those that have not told what was kept of an earlier answer.
    pub(super) fn stopgap(&self) -> bool {
        self.stopgap
    }

    /// Every service and part, with the virtual address that its registration wishes for.
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// What is wrong with what the sources say.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let troubled = self.troubled.iter();
        let troubled = troubled.filter_map(|name| self.services.get(name));
        let theirs = troubled.flat_map(|service| &service.problems);
        theirs.chain(&self.catalog.problems).cloned().collect()
    }
}

impl Understood {
    fn new(name: &str, instances: &Arc<[Arc<Instance>]>) -> Self {
        let resolved = options::resolve(name, instances);
        let mut problems: Vec<Problem> = resolved.problems.iter().cloned().collect();
        Self {
            wish: wished_vip(name, instances, &mut problems),
            in_local_containers: instances.iter().any(|it| local_container(it).is_some()),
            instances: instances.clone(),
            resolved,
            problems,
        }
    }

    /// The service of this `name` and its parts.
    pub(super) fn names(&self, name: &Arc<str>) -> impl Iterator<Item = ServiceName> {
        let part = |tag: &String| ServiceName::part(name.clone(), &**tag);
        let parts = self.resolved.domain_tags.iter().map(part);
        std::iter::once(ServiceName::whole(name.clone())).chain(parts)
    }

    fn wished(&self, name: ServiceName) -> (ServiceName, Option<Ipv4Addr>) {
        let wish = self.wish.filter(|_| name.tag.is_none());
        (name, wish)
    }

    fn is_named_like(&self, other: &Self) -> bool {
        self.wish == other.wish && self.resolved.domain_tags == other.resolved.domain_tags
    }

    pub(super) fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    pub(super) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    pub(super) fn is_probed(&self) -> bool {
        self.resolved.options.check != CheckKind::Off
    }

    /// Whether an instance runs in a container of this host.
    pub(super) fn in_local_containers(&self) -> bool {
        self.in_local_containers
    }
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
