//! A container's words as bytes, and what must be true of whatever the registrar makes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::readable;
use crate::{
    docker::{
        Container, Containers, Endpoint, Health, NetworkMode, Port, Protocol, Published, State,
    },
    registrar::{
        Addressing, Reading, Registration, Settings, meta, preview, preview_json, registrations,
    },
};

/// A line is `KEY=text`, a variable; `label:KEY=text`; `port:80` or `udp:53`, exposed; `published:192.0.2.1:8080`, where
/// port 80 is; `network:name` at an address that follows from its place; `tag:template`, a tag of every service; or one
/// of `name:`, `image:` and `shares:`, the container whose network it is on.
pub fn registrar(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (container, tags) = container(&text);
    let containers = Containers::from([(container.id.clone(), Arc::new(container))]);
    let Some(container) = containers.values().next() else {
        return;
    };
    for addressing in [Addressing::Internal, Addressing::Published] {
        let settings = Settings {
            addressing,
            host_address: Some([192, 0, 2, 1].into()),
            tagged: [("wan".to_owned(), [203, 0, 113, 9].into())].into(),
            tags: tags.iter().filter_map(|tag| tag.parse().ok()).collect(),
            ttl: Some(std::time::Duration::from_secs(30)),
            ..Settings::new("host")
        };
        let reading = registrations(container, &containers, &settings);
        acceptable(&reading);
        // Names hide nothing from people.
        let shown = preview(&containers, &settings);
        assert!(!shown.chars().any(|it| it.is_control() && it != '\n'));
        let json = preview_json(&containers, &settings, &[]);
        let json: Option<serde_json::Value> =
            json.ok().and_then(|json| serde_json::from_str(&json).ok());
        let registers = json.as_ref().map(|it| &it["containers"][0]["registers"]);
        let registers = registers.and_then(|it| it.as_array());
        assert_eq!(registers.map(Vec::len), Some(reading.registrations.len()));
    }
}

/// The container that the lines of `text` describe, and the tags of every service.
pub(super) fn container(text: &str) -> (Container, Vec<&str>) {
    let mut container = Container {
        id: "0123456789abcdef".repeat(4),
        name: "box".to_owned(),
        image: "team/web:1".to_owned(),
        created: 1,
        environment: Vec::new(),
        labels: BTreeMap::new(),
        exposed: BTreeSet::new(),
        published: Vec::new(),
        network: NetworkMode::Networks,
        networks: BTreeMap::new(),
        state: State::Running,
        process: None,
        health: Some(Health::Starting),
        runtime: String::new(),
    };
    let mut tags = Vec::new();
    for line in text.lines() {
        let (word, rest) = line.split_once(':').unwrap_or(("", line));
        let port = |protocol| Some((rest.parse().ok().filter(|it| *it != 0)?, protocol));
        let exposed = match word {
            "port" => port(Protocol::Tcp),
            "udp" => port(Protocol::Udp),
            "sctp" => port(Protocol::Sctp),
            _ => None,
        };
        container
            .exposed
            .extend(exposed.map(|(number, protocol)| Port { number, protocol }));
        match word {
            "port" | "udp" | "sctp" => {}
            "name" => rest.clone_into(&mut container.name),
            "image" => rest.clone_into(&mut container.image),
            "shares" => container.network = NetworkMode::Container(rest.to_owned()),
            "tag" => tags.push(rest),
            "network" => {
                let last = u8::try_from(container.networks.len()).unwrap_or(u8::MAX);
                let ipv4 = Some([10, 0, 0, last].into());
                let endpoint = Endpoint { ipv4, ipv6: None };
                container.networks.insert(rest.to_owned(), endpoint);
            }
            "published" => container.published.extend(published(rest)),
            _ => {
                let label = line.strip_prefix("label:");
                let (key, text) = match label.unwrap_or(line).split_once('=') {
                    Some((key, text)) => (key.to_owned(), text.to_owned()),
                    None => continue,
                };
                match label {
                    Some(_) => drop(container.labels.insert(key, text)),
                    None => container.environment.push((key, text)),
                }
            }
        }
    }
    (container, tags)
}

fn published(text: &str) -> Option<Published> {
    let address: std::net::SocketAddr = text.parse().ok()?;
    (address.port() != 0).then_some(Published {
        port: Port {
            number: 80,
            protocol: Protocol::Tcp,
        },
        host_address: address.ip(),
        host_port: address.port(),
    })
}

/// Consul takes all of it, and people can read what is told.
pub(super) fn acceptable(reading: &Reading) {
    reading.problems.iter().for_each(readable);
    let mut ids = BTreeSet::new();
    for registration in &reading.registrations {
        assert!(ids.insert(&registration.id), "an id twice");
        in_path(&registration.id);
        in_path(&registration.name);
        within_limits(registration);
    }
}

/// It can be part of a path, which Consul cleans.
fn in_path(text: &str) {
    let whole = |part: &str| !matches!(part, "" | "." | "..");
    let plain = !text.contains(char::is_control) && text.len() <= 512;
    assert!(plain && text.split('/').all(whole), "{text:?}");
}

fn within_limits(registration: &Registration) {
    let Registration {
        meta: pairs,
        tags,
        weight,
        checks,
        address,
        ..
    } = registration;
    assert!(pairs.len() <= meta::PAIRS);
    for (key, text) in pairs {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        assert!((1..=meta::KEY_LIMIT).contains(&key.len()) && key.bytes().all(plain));
        assert!(text.len() <= meta::VALUE_LIMIT && !key.starts_with("consul-"));
    }
    // Whoever removes services looks for this one.
    assert_eq!(pairs.get(meta::REGISTRAR).map(String::as_str), Some("host"));
    let networks = pairs.get(meta::NETWORKS).map(|it| meta::parse_networks(it));
    for (network, at) in networks.into_iter().flatten() {
        assert_eq!(registration.reach.networks.get(&network), Some(&at));
    }
    let distinct: BTreeSet<&String> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len(), "a tag twice");
    assert!(!distinct.iter().any(|it| it.is_empty()));
    assert_ne!(*weight, Some(0));
    assert!(address.port() != 0 && !address.ip().is_unspecified());
    let distinct: BTreeSet<&String> = checks.iter().map(|it| &it.id).collect();
    assert_eq!(distinct.len(), checks.len(), "a check twice");
}
