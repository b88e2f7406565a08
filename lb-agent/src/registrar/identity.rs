//! Who this host is, and where it can be reached: from the configuration, the Consul agent and the engine. Pure.

use std::net::IpAddr;

use super::{
    config::Config,
    settings::{Addressing, Settings},
};
use crate::{
    catalog::Problem,
    discover::consul::agent::Identity,
    docker::{Container, Containers, NetworkMode},
    options::cut,
};

/// The settings with everything found out, and what is doubtful about that. `node` is `None` where the token may
/// not read it.
///
/// The name of the Consul agent's node identifies the host only if the engine agrees: of two hosts that talked to one
/// agent, each would otherwise take the other's services for dangling ones.
///
/// # Errors
/// What to do, as long as nothing gives this host a name that ids can begin with.
pub(super) fn identify(
    config: &Config,
    node: Option<&Identity>,
    engine: &str,
    containers: &Containers,
) -> Result<(Settings, Vec<Problem>), Problem> {
    let mut problems = Vec::new();
    let known = config
        .host
        .as_deref()
        .or(Some(engine))
        .filter(|it| !it.is_empty());
    let is_local = |node: &Identity| known.is_none_or(|host| same_host(host, &node.node));
    let of_node = node.filter(|node| is_local(node)).map(|it| &*it.node);
    // Whoever configured a name was told then what is wrong with it.
    let found = match &config.host {
        Some(host) => vec![&**host],
        None => of_node.into_iter().chain(known).collect(),
    };
    let told = found.first().filter(|name| !is_host_name(name)).map(|name| {
        Problem::new(
            "registrar",
            format!(
                "ids cannot begin with `{}`, as Consul or the engine calls this host; set [registrar] host, and                  {HOST_REMEDY}",
                cut(name)
            ),
        )
    });
    let host = found.iter().find(|name| is_host_name(name));
    let Some(host) = host.map(|it| (*it).to_owned()) else {
        return Err(told.unwrap_or_else(|| Problem::new("registrar", NAMELESS)));
    };
    problems.extend(told);
    if let Some(node) = node.filter(|node| !is_local(node)) {
        problems.push(Problem::new(
            "registrar",
            format!(
                "the Consul agent belongs to node {}, and this host is {host}: its services are \
                 registered there and vanish with that agent; ask the agent of this host, or set \
                 [registrar] host to {} if it is that one",
                node.node, node.node
            ),
        ));
    }
    let of_agent = || {
        let node = node.filter(|node| is_local(node))?;
        node.address.filter(|&ip| !is_container(ip, containers))
    };
    let found = config.settings.published_address().or_else(of_agent);
    let is_bound = |it: &Container| {
        let everywhere = it
            .published
            .iter()
            .any(|it| it.host_address.is_unspecified());
        everywhere || it.network == NetworkMode::Host
    };
    if config.settings.addressing == Addressing::Published
        && let Some(address) = found.filter(IpAddr::is_loopback)
        && containers.values().any(|it| is_bound(it))
    {
        problems.push(Problem::new(
            "registrar",
            format!(
                "published ports are registered at {address}, which containers and other hosts cannot reach: it is the \
                 address of the Consul agent, or [registrar] ip; set [registrar] ip to an address of this host that they \
                 reach, or internal to true"
            ),
        ));
    }
    let settings = Settings {
        host_address: config.settings.host_address.or_else(of_agent),
        host,
        ..config.settings.clone()
    };
    Ok((settings, problems))
}

/// Whether ids can begin with `name`, and a value of Meta hold it.
pub(crate) fn is_host_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    (1..=253).contains(&name.len()) && name.chars().all(plain)
}

/// What to write for one.
pub(crate) const HOST_REMEDY: &str = "write a host name of letters, digits, `-`, `_` and `.`";
const NAMELESS: &str = "neither Consul nor the engine says who this host is; set [registrar] host, or give a token \
                        with agent_prefix \"\" read";

/// Whether two names mean one host: one may lack the domain.
fn same_host(one: &str, other: &str) -> bool {
    let first = |name: &str| {
        name.split('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    let whole = one.contains('.') && other.contains('.');
    match whole {
        true => one.eq_ignore_ascii_case(other),
        false => first(one) == first(other),
    }
}

/// A Consul agent that runs in a container knows that container's address, not the host's.
fn is_container(ip: IpAddr, containers: &Containers) -> bool {
    let endpoints = containers.values().flat_map(|it| it.networks.values());
    let mut addresses = endpoints.flat_map(|it| [it.ipv4.map(IpAddr::V4), it.ipv6.map(IpAddr::V6)]);
    addresses.any(|address| address == Some(ip))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use super::*;
    use crate::docker::{Port, Protocol, Published, State};

    fn node(name: &str) -> Identity {
        Identity {
            node: name.to_owned(),
            address: Some([192, 0, 2, 7].into()),
        }
    }

    fn host(configured: Option<&str>, node: Option<&Identity>, engine: &str) -> (Settings, usize) {
        let config = Config {
            host: configured.map(str::to_owned),
            ..Config::default()
        };
        let (settings, problems) = identify(&config, node, engine, &Containers::new()).unwrap();
        (settings, problems.len())
    }

    #[test]
    fn the_node_names_the_host_if_the_engine_agrees() {
        for (configured, agent, engine, expect, problems) in [
            (Some("me"), Some("me"), "x", "me", 0),
            (Some("me"), Some("node"), "node", "me", 1),
            (None, Some("node"), "node", "node", 0),
            (
                None,
                Some("node.example.org"),
                "NODE",
                "node.example.org",
                0,
            ),
            (None, Some("node.a"), "node.b", "node.b", 1),
            (None, Some("consul-1"), "engine", "engine", 1),
            (None, Some("node"), "", "node", 0),
            (None, None, "engine", "engine", 0),
        ] {
            let agent = agent.map(node);
            let (settings, told) = host(configured, agent.as_ref(), engine);
            assert_eq!(
                (&*settings.host, told),
                (expect, problems),
                "{configured:?} {engine}"
            );
        }
        let nameless = identify(&Config::default(), None, "", &Containers::new());
        assert!(
            nameless
                .unwrap_err()
                .message
                .contains("set [registrar] host")
        );
    }

    #[test]
    fn a_name_that_makes_no_ids_is_told_and_the_next_one_is_taken() {
        let identified = |node: &Identity, engine: &str| {
            identify(&Config::default(), Some(node), engine, &Containers::new())
        };
        let (settings, problems) = identified(&node("node.b c"), "node").unwrap();
        assert_eq!((&*settings.host, problems.len()), ("node", 1));
        assert!(problems[0].message.contains("`node.b c`"), "{problems:?}");
        // What is not needed is not told.
        let (settings, problems) = identified(&node("node"), "node.b c").unwrap();
        assert_eq!((&*settings.host, problems.len()), ("node", 0));
        for name in ["a b", "a/b", "..\u{7}", &"x".repeat(300)] {
            let problem = identified(&node(name), name).unwrap_err();
            assert!(
                problem.message.contains("ids cannot begin with"),
                "{problem}"
            );
            assert!(problem.message.len() < 400);
        }
    }

    #[test]
    fn the_agents_address_is_the_hosts_only_if_it_runs_there() {
        let local = host(None, Some(&node("a")), "a").0;
        assert_eq!(local.host_address, Some([192, 0, 2, 7].into()));
        let remote = host(None, Some(&node("b")), "a").0;
        assert_eq!(remote.host_address, None);
    }

    #[test]
    fn a_loopback_address_is_told_where_a_port_would_be_registered_there() {
        let agent = Identity {
            address: Some([127, 0, 0, 1].into()),
            ..node("a")
        };
        let container = |host_address: [u8; 4]| {
            let port = Port {
                number: 80,
                protocol: Protocol::Tcp,
            };
            let container = Container {
                id: "x".to_owned(),
                name: "x".to_owned(),
                image: "web".to_owned(),
                created: 1,
                environment: Vec::new(),
                labels: BTreeMap::new(),
                exposed: BTreeSet::new(),
                published: vec![Published {
                    port,
                    host_address: host_address.into(),
                    host_port: 8080,
                }],
                network: NetworkMode::Networks,
                networks: BTreeMap::new(),
                state: State::Running,
                process: None,
                health: None,
                runtime: String::new(),
            };
            Containers::from([("x".to_owned(), Arc::new(container))])
        };
        let told = |config: &Config, containers: &Containers| {
            let identified = identify(config, Some(&agent), "a", containers);
            let (_, problems) = identified.unwrap();
            problems.iter().map(ToString::to_string).collect::<String>()
        };
        let published = Config::default();
        let everywhere = container([0, 0, 0, 0]);
        let problem = told(&published, &everywhere);
        assert!(problem.contains("set [registrar] ip"), "{problem}");
        assert_eq!(told(&published, &container([192, 0, 2, 1])), "");
        assert_eq!(told(&published, &Containers::new()), "");
        let (mut internal, mut given) = (published.clone(), published);
        internal.settings.addressing = Addressing::Internal;
        given.settings.ip = Some([192, 0, 2, 7].into());
        assert_eq!(told(&internal, &everywhere), "");
        assert_eq!(told(&given, &everywhere), "");
    }
}
