//! From containers, networks and cookies to clients, and to what people are told. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use super::{Clients, Standing, namespaces::Fault};
use crate::{
    catalog::Problem,
    docker::{Container, Containers, NetworkMode, Networks, Process, State},
};

/// The process whose namespace a client has; `None` if it is the host's or there is none.
pub(crate) fn process(container: &Container) -> Option<Process> {
    let lives = matches!(
        container.state,
        State::Running | State::Ending | State::Paused
    );
    container
        .process
        .filter(|_| lives && container.network != NetworkMode::Host)
}

/// Who the clients are. `cookies` are those of the containers' namespaces by id, `host` is the one that no client has.
pub(super) fn clients(
    containers: &Containers,
    networks: &Networks,
    cookies: &BTreeMap<String, u64>,
    host: u64,
) -> Clients {
    let shares = |container: &Container| matches!(container.network, NetworkMode::Container(_));
    let (sharers, owners): (Vec<_>, Vec<_>) = containers
        .values()
        .filter(|container| process(container).is_some())
        .partition(|container| shares(container));
    let mut clients = Clients::default();
    // Owners first: a namespace that is shared is its owner's.
    for container in owners.into_iter().chain(sharers) {
        let cookie = cookies.get(&container.id).copied();
        if let Some(cookie) = cookie.filter(|&cookie| cookie != host) {
            let all = &mut clients.by_cookie;
            all.entry(cookie).or_insert_with(|| {
                standing(
                    container,
                    connected(container, containers, cookies),
                    networks,
                )
            });
        }
    }
    clients
}

/// The container whose networks the namespace of `container` has; `None` if its owner has ended, or has a new one since
/// its restart: the engine has taken the networks of the old one away.
fn connected<'a>(
    container: &'a Container,
    containers: &'a Containers,
    cookies: &BTreeMap<String, u64>,
) -> Option<&'a Container> {
    match &container.network {
        NetworkMode::Networks => Some(container),
        NetworkMode::Host | NetworkMode::None => None,
        NetworkMode::Container(owner) => {
            let owner = containers.get(owner)?;
            // Where its cookie is known, it is not this one.
            let unknown = process(owner).is_some() && !cookies.contains_key(&owner.id);
            unknown.then_some(owner.as_ref())
        }
    }
}

fn standing(container: &Container, connected: Option<&Container>, networks: &Networks) -> Standing {
    let endpoints = connected.map(|it| &it.networks).into_iter().flatten();
    let mut standing = Standing {
        container: container.id.clone(),
        name: container.name.clone(),
        networks: BTreeSet::new(),
        addresses: BTreeSet::new(),
        outside: false,
    };
    for (name, endpoint) in endpoints {
        standing.networks.insert(name.clone());
        standing.addresses.extend(endpoint.ipv4.map(IpAddr::from));
        standing.addresses.extend(endpoint.ipv6.map(IpAddr::from));
        // Most networks lead outside. One that is not listed yet is taken for such.
        standing.outside |= networks.get(name).is_none_or(|network| !network.internal);
    }
    standing
}

/// What people are told of the containers whose namespaces are not known: one problem for each reason.
pub(super) fn problems<'a>(
    faults: impl IntoIterator<Item = (&'a str, Fault)>,
    proc: &Path,
) -> Vec<Problem> {
    let mut by_fault: Vec<(Fault, Vec<&str>)> = Vec::new();
    for (name, fault) in faults {
        match by_fault.iter_mut().find(|(known, _)| *known == fault) {
            Some((_, names)) => names.push(name),
            None => by_fault.push((fault, vec![name])),
        }
    }
    let told = by_fault.into_iter().map(|(fault, names)| {
        let name = match &*names {
            [name] => (*name).to_owned(),
            names => format!("{} (and {} more)", names[0], names.len() - 1),
        };
        let message = match fault {
            Fault::NotThere => format!(
                "the container {name} has no process in {}; run the agent in the host's process namespace (pid: host), \
                 or mount the host's /proc and name it in [sources.docker] proc",
                proc.display()
            ),
            Fault::Denied(error) => format!(
                "the network namespace of the container {name} may not be entered ({}); give the agent SYS_ADMIN and \
                 SYS_PTRACE",
                error.desc()
            ),
            Fault::Failed(error) => format!(
                "the network namespace of the container {name} cannot be read ({})",
                error.desc()
            ),
        };
        Problem::new("clients", format!("{message}; until then its connections are taken for the host's"))
    });
    told.collect()
}

#[cfg(test)]
mod tests;
