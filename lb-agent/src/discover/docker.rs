//! The `docker` source: the containers of this host's engine as services, without any Consul.
//!
//! What a container asks for is read by the registrar's grammar, so that the same labels mean the same with and without
//! Consul. The stage owns its last catalog only; the engine is followed by [`crate::docker`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use tokio::{select, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    catalog::{
        CHECK_OUTPUT_LIMIT, Catalog, Check, Instance, InstanceKey, Problem, SourceHealth,
        SourceState,
    },
    docker::{Container, Containers, Engine, Health, NetworkMode, Protocol, State},
    registrar::{Addressing, CheckKind, Registration, Settings, registrations},
};

/// How containers become services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The networks whose addresses are preferred, best first.
    pub networks: Vec<String>,
    /// Which address the host is to use.
    pub addressing: Addressing,
}

/// Sends the catalog of the engine's containers whenever they change, until `stop`.
pub async fn run(
    config: Config,
    mut engine: watch::Receiver<Engine>,
    out: watch::Sender<SourceState>,
    stop: CancellationToken,
) {
    let mut known = None;
    loop {
        let now = engine.borrow_and_update().clone();
        // The engine tells its name and its troubles in the same value.
        let changed = !same(known.as_ref(), now.containers.as_ref());
        known.clone_from(&now.containers);
        out.send_if_modified(|state| take_in(state, &now, &config, changed));
        select! {
            changed = engine.changed() => if changed.is_err() {
                stop.cancelled().await;
                return;
            },
            () = stop.cancelled() => return,
        }
    }
}

fn same(before: Option<&Arc<Containers>>, now: Option<&Arc<Containers>>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        (None, None) => true,
        _ => false,
    }
}

/// Updates the state; says whether it is another one now.
fn take_in(state: &mut SourceState, engine: &Engine, config: &Config, changed: bool) -> bool {
    let turned = state.error != engine.error;
    if turned {
        match &engine.error {
            Some(error) => warn!(%error, "containers not read; the last good ones stay"),
            None => info!("containers can be read again"),
        }
    }
    state.error.clone_from(&engine.error);
    state.updated = engine.updated;
    let Some(containers) = engine.containers.as_deref().filter(|_| changed) else {
        return turned;
    };
    let host = engine.name.as_deref().unwrap_or("docker");
    let before = state.catalog.as_deref();
    let now = catalog(containers, host, host_address(), config, before);
    if before == Some(&now) {
        return turned;
    }
    let (services, problems) = (now.services.len(), now.problems.len());
    info!(services, problems, "services of containers read");
    state.catalog = Some(Arc::new(now));
    true
}

/// The services of `containers`. What is as in `before` keeps its allocation. `host` is the engine's name, and
/// `address` an address of this host that a container can reach.
pub fn catalog(
    containers: &Containers,
    host: &str,
    address: Option<IpAddr>,
    config: &Config,
    before: Option<&Catalog>,
) -> Catalog {
    let settings = Settings {
        addressing: config.addressing,
        host_address: Some(address.unwrap_or(LOOPBACK)),
        networks: preference(&config.networks, containers),
        ..Settings::new(host)
    };
    let mut services: BTreeMap<String, Vec<Arc<Instance>>> = BTreeMap::new();
    let mut problems = Vec::new();
    for container in containers.values() {
        let Some(health) = health(container) else {
            continue;
        };
        let reading = registrations(container, containers, &settings);
        problems.extend(reading.problems);
        for registration in reading.registrations {
            let name = registration.name.clone();
            match instance(
                registration,
                container,
                containers,
                &settings,
                health.clone(),
            ) {
                Ok(instance) => services.entry(name).or_default().push(Arc::new(instance)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    let services = services.into_iter().map(|(name, mut instances)| {
        instances.sort_by(|a, b| a.key.cmp(&b.key));
        keep(name, instances, before)
    });
    let services = services.collect();
    problems.sort();
    problems.dedup();
    Catalog { services, problems }
}

/// Every network of a container is this host's: where nobody prefers one, the first by name is as good as another.
fn preference(preferred: &[String], containers: &Containers) -> Vec<String> {
    let all = containers.values().flat_map(|it| it.networks.keys());
    let others: std::collections::BTreeSet<&String> = all.collect();
    preferred.iter().chain(others).cloned().collect()
}

/// What a container's state means; `None` when nobody is there, or soon will not be.
fn health(container: &Container) -> Option<(SourceHealth, Vec<Check>)> {
    let check = |health, output: &str| Check {
        name: "HEALTHCHECK".to_owned(),
        health,
        output: cut(output).to_owned(),
    };
    match container.state {
        State::Running => {}
        State::Paused => return Some((SourceHealth::Maintenance, Vec::new())),
        State::Created | State::Ending | State::Exited(_) => return None,
    }
    Some(match &container.health {
        None => (SourceHealth::Passing, Vec::new()),
        Some(Health::Healthy) => {
            let check = check(SourceHealth::Passing, "");
            (SourceHealth::Passing, vec![check])
        }
        Some(Health::Starting) => {
            let check = check(SourceHealth::Critical, "starting");
            (SourceHealth::Critical, vec![check])
        }
        Some(Health::Unhealthy(output)) => {
            let check = check(SourceHealth::Critical, output);
            (SourceHealth::Critical, vec![check])
        }
    })
}

fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(CHECK_OUTPUT_LIMIT.min(text.len()));
    &text[..end]
}

fn instance(
    registration: Registration,
    container: &Container,
    containers: &Containers,
    settings: &Settings,
    (health, checks): (SourceHealth, Vec<Check>),
) -> Result<Instance, Problem> {
    let mut reach = registration.reach;
    let mut address = registration.address;
    if on_the_host(container, containers) && reach.published == Some(address) {
        // For the host itself, whatever becomes of its other addresses.
        address.set_ip(LOOPBACK);
    }
    // In a container's own namespace loopback is the container.
    reach.published = reach.published.filter(|it| !it.ip().is_loopback());
    let subject = format!("container {}", container.name);
    let Some(ip) = super::server_address(address.ip()) else {
        let message = format!("{address} is no address of a server; correct SERVICE_IP");
        return Err(Problem::new(subject, message));
    };
    let mut meta = registration.meta;
    // Our marks are for those who read Consul.
    meta.retain(|key, _| !key.starts_with("lb-"));
    // Consul asks the TCP port beside a UDP port; we ask where the instance is.
    let is_tcp = registration.port.protocol == Protocol::Tcp;
    let probes = registration.checks.iter().filter(|_| is_tcp);
    if let Some(probe) = probes.filter_map(|it| probe(&it.kind)).next() {
        meta.entry("lb_check".to_owned()).or_insert(probe);
    }
    Ok(Instance {
        key: InstanceKey::new(settings.host.clone(), registration.id),
        address: SocketAddr::new(ip, address.port()),
        reach: reach.shared(),
        local: true,
        container: Some(registration.container),
        tags: Arc::new(registration.tags.into_iter().collect()),
        meta: Arc::new(meta),
        weight: registration.weight.unwrap_or(1),
        health,
        checks,
        registered: container.created,
    })
}

/// The check of a container that our own probe can make in Consul's place.
fn probe(kind: &CheckKind) -> Option<String> {
    let CheckKind::Http { url, method: None } = kind else {
        return None;
    };
    let rest = url.strip_prefix("http://")?;
    let path = rest.find('/').map_or("/", |slash| &rest[slash..]);
    Some(format!("http {path}"))
}

fn on_the_host(container: &Container, containers: &Containers) -> bool {
    match &container.network {
        NetworkMode::Host => true,
        NetworkMode::Container(id) => {
            let owner = containers.get(id);
            owner.is_some_and(|owner| owner.network == NetworkMode::Host)
        }
        NetworkMode::Networks | NetworkMode::None => false,
    }
}

/// The same allocation for what is the same.
fn keep(
    name: String,
    mut instances: Vec<Arc<Instance>>,
    before: Option<&Catalog>,
) -> (Arc<str>, Arc<[Arc<Instance>]>) {
    let known = before.and_then(|catalog| catalog.services.get_key_value(name.as_str()));
    let Some((known_name, known)) = known else {
        return (name.into(), instances.into());
    };
    if **known == *instances {
        return (known_name.clone(), known.clone());
    }
    for instance in &mut instances {
        if let Some(same) = known.iter().find(|it| *it == instance) {
            instance.clone_from(same);
        }
    }
    (known_name.clone(), instances.into())
}

/// The address that this host would speak from. Nothing is sent: connecting a UDP socket only chooses a route.
fn host_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SOMEWHERE).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A network for documents (RFC 5737): on the way to it is the default route.
const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

#[cfg(test)]
mod tests;
