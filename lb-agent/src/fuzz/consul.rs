//! Consul's JSON as bytes, and what must be true of whatever is made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{named, registrar::container, usable};
use crate::{
    catalog::{Instance, Problem, SourceHealth},
    discover::consul::{self, Warning},
    docker::Containers,
    registrar::{self, Addressing, Settings, meta},
    snapshot::ServiceName,
    vip,
};

/// Words in a line, then the answer for one service: `node=`, the Consul node of this host; `host=`, who this host is
/// to the registrar; `foreign`, where another datacenter answers, in which nothing is of this host; `include`, where instances with a
/// warning take flows.
pub fn consul_listing(data: &[u8]) {
    let (words, body) = lines(data);
    let words = String::from_utf8_lossy(words);
    let word = |key| words.split(' ').find_map(|word| word.strip_prefix(key));
    let foreign = words.split(' ').any(|word| word == "foreign");
    let of_host = |key| word(key).filter(|_| !foreign);
    let (node, host) = (of_host("node="), of_host("host="));
    let includes = words.split(' ').any(|word| word == "include");
    let warning = if includes {
        Warning::Include
    } else {
        Warning::Exclude
    };
    let plain = consul::fuzz::listing(body, None, None, foreign, Warning::Exclude);
    let listing = consul::fuzz::listing(body, node, host, foreign, warning);
    let (Some(plain), Some(listing)) = (&plain, &listing) else {
        assert!(plain.is_none() && listing.is_none());
        return;
    };
    assert!(consul::fuzz::listing(cut(body), node, host, foreign, warning).is_none());
    let sorted = plain.instances.is_sorted_by(|a, b| a.key < b.key);
    assert!(sorted, "not in the order of their keys, or twice");
    plain.instances.iter().for_each(|it| usable(it));
    for (name, instance) in &plain.named {
        assert!(!name.is_empty() && instance.address.port() != 0);
    }
    plain.problems.iter().for_each(named);
    assert_eq!(plain.problems, listing.problems);

    // Who reads decides what is local and what a warning means, and nothing else.
    let all = |it: &consul::fuzz::Listing| -> Vec<Arc<Instance>> {
        let named = it.named.iter().map(|(_, instance)| instance);
        it.instances.iter().chain(named).cloned().collect()
    };
    let (plain, listing) = (all(plain), all(listing));
    assert_eq!(plain.len(), listing.len());
    for (plain, read) in plain.iter().zip(&listing) {
        assert!(!plain.local, "of nobody's node and nobody's registrar");
        let of_node = node == Some(&*plain.key.node);
        assert!(read.local || !of_node);
        assert!(!read.local || of_node || host.is_some());
        let health = match plain.health {
            SourceHealth::Warning if includes => SourceHealth::Passing,
            health => health,
        };
        let expected = Instance {
            local: read.local,
            health,
            ..Instance::clone(plain)
        };
        assert_eq!(**read, expected);
    }
}

/// Consul's list of services.
pub fn consul_names(data: &[u8]) {
    let Some(problems) = consul::fuzz::names(data) else {
        return;
    };
    assert!(consul::fuzz::names(cut(data)).is_none());
    problems.iter().for_each(named);
}

/// Consul's list of all checks.
pub fn consul_checks(data: &[u8]) {
    let Some(count) = consul::fuzz::checks(data) else {
        return;
    };
    assert!(consul::fuzz::checks(cut(data)).is_none());
    let read = serde_json::from_slice::<Vec<Check>>(data);
    let Ok(mut checks) = read else {
        panic!("a list of checks that are none: {read:?}");
    };
    assert_eq!(checks.len(), count);
    let mut nodes: BTreeMap<String, &str> = BTreeMap::new();
    for check in &checks {
        let node = nodes
            .entry(check.node.to_lowercase())
            .or_insert(&check.node);
        // Consul has no two nodes that differ in case alone, and this would be one with two states.
        if *node != check.node {
            return;
        }
    }
    let services: BTreeSet<String> = checks
        .iter()
        .map(|check| check.service_name.to_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    // Each service is asked about, and each time a few would do.
    for service in services.into_iter().take(4) {
        let answer = answer(&service, &checks);
        assert_eq!(consul::fuzz::agree(data, &service, &answer), Some(true));
        // Whatever the order is.
        checks.reverse();
        let reversed = json!(checks).to_string();
        let agree = consul::fuzz::agree(reversed.as_bytes(), &service, &answer);
        assert_eq!(agree, Some(true));
        let turned = checks.iter_mut();
        let turned = turned.filter(|it| it.service_name.to_lowercase() == service);
        for check in turned.take(1) {
            check.status.push('!');
        }
        let turned = json!(checks).to_string();
        let agree = consul::fuzz::agree(turned.as_bytes(), &service, &answer);
        assert_eq!(agree, Some(false), "a check of {service:?} has turned");
    }
}

/// A line with what a Consul agent says its services are, and one with its checks.
pub fn consul_registered(data: &[u8]) {
    let (services, checks) = lines(data);
    let Some(held) = consul::fuzz::held(services, checks) else {
        return;
    };
    assert!(consul::fuzz::held(cut(services), checks).is_none());
    assert!(consul::fuzz::held(services, cut(checks)).is_none());
    let (container, _) = container("port:80\nnetwork:bridge\nSERVICE_CHECK_1_TCP=1");
    let containers = Containers::from([(container.id.clone(), Arc::new(container))]);
    let settings = Settings {
        addressing: Addressing::Internal,
        ..Settings::new("host")
    };
    let outcome = registrar::fuzz::lead(&held, &containers, &settings);
    outcome.problems.iter().for_each(named);
    assert!(outcome.changed.is_subset(&outcome.wished));
    assert!(outcome.removed.is_disjoint(&outcome.wished));
    for id in outcome.changed.union(&outcome.removed) {
        let mark = held.services.get(id).map(|it| it.meta.get(meta::REGISTRAR));
        let is_ours = mark.is_none_or(|mark| mark.is_some_and(|host| host == "host"));
        assert!(is_ours, "{id:?} is somebody else's");
    }
    // Each is told or registered, and what has not come is asked for.
    for id in outcome.wished.difference(&outcome.changed) {
        assert!(held.services.contains_key(id), "{id:?} is forgotten");
    }
}

/// What a Consul agent says of itself.
pub fn consul_self(data: &[u8]) {
    let (info, identity) = consul::fuzz::itself(data);
    if info.is_none() && identity.is_none() {
        return;
    }
    let (none, nobody) = consul::fuzz::itself(cut(data));
    assert!(none.is_none() && nobody.is_none());
    if let (Some(info), Some(identity)) = (&info, &identity) {
        assert_eq!(info.node, identity.node);
    }
    if let Some(info) = info {
        let version = info.version;
        assert!(version.is_at_least(0, 0, 0));
        assert!(version.is_at_least(version.major, version.minor, version.patch));
    }
}

/// The records of VIPs in Consul's key-value store.
pub fn consul_keys(data: &[u8]) {
    let prefix = vip::fuzz::PREFIX;
    let Some(keys) = consul::fuzz::keys(prefix, data) else {
        return;
    };
    assert!(consul::fuzz::keys(prefix, cut(data)).is_none());
    let Ok(pool) = vip::Pool::try_from(POOL) else {
        panic!("{POOL} is no pool");
    };
    let others = ["a", "b"].map(ServiceName::whole);
    let outcome = vip::fuzz::allocate(pool, &keys, others);
    outcome.problems.iter().for_each(named);
    let mut taken = BTreeSet::new();
    let waiting = outcome.claims.iter().map(|(address, name)| (name, address));
    for (name, address) in outcome.by_name.iter().chain(waiting) {
        assert!(pool.serves(*address) && taken.insert(address), "{address}");
        let recorded = outcome.recorded.get(address);
        let is_its_own = recorded.is_none_or(|owner| owner.as_ref() == Some(name));
        assert!(is_its_own, "{address} is not recorded for {name}");
    }
    for name in outcome.names.keys() {
        let is_told = |it: &Problem| it.subject == format!("service {name}");
        let is_served = outcome.by_name.contains_key(name)
            || outcome.claims.values().any(|it| it == name)
            || outcome.problems.iter().any(is_told);
        assert!(is_served, "{name} has no address, and nobody is told");
    }
}

/// What matters of one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    node: String,
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
    #[serde(default, rename = "ServiceID")]
    service_id: String,
    #[serde(default)]
    service_name: String,
}

/// The answer about `service` of a Consul that has these checks.
fn answer(service: &str, checks: &[Check]) -> Vec<u8> {
    let is_its = |it: &&Check| it.service_name.to_lowercase() == service;
    let nodes: BTreeSet<&str> = checks.iter().filter(is_its).map(|it| &*it.node).collect();
    let entries = nodes.into_iter().map(|node| {
        let of_node = |it: &&Check| it.node == node && (is_its(it) || it.service_name.is_empty());
        let checks: Vec<&Check> = checks.iter().filter(of_node).collect();
        json!({"Node": {"Node": node, "Address": "10.0.0.1"}, "Checks": checks,
               "Service": {"ID": "1", "Port": 1}})
    });
    let entries: Vec<_> = entries.collect();
    json!(entries).to_string().into_bytes()
}

/// The first line, and all that follows it.
fn lines(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|&byte| byte == b'\n');
    let (line, rest) = data.split_at(end.unwrap_or(data.len()));
    (line, rest.get(1..).unwrap_or_default())
}

/// An answer of which the last byte is missing that matters.
fn cut(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii_end();
    &body[..body.len().saturating_sub(1)]
}

/// So small that records crowd it.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 28);
