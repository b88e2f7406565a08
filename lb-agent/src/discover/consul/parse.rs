//! Consul's answers as our values. Pure: bytes come in, instances and problems go out.
//!
//! Everything in an answer was chosen by whoever may register a service. An entry that cannot be used is
//! left out and named; it never costs another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use super::VIRTUAL_ADDRESS;
use crate::{
    catalog::{CHECK_OUTPUT_LIMIT, Check, Instance, InstanceKey, Problem, Reach, SourceHealth},
    discover::server_address,
};

/// What Consul says of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The usable entries, ordered by key: Consul's order means nothing.
    pub(super) instances: Arc<[Arc<Instance>]>,
    /// The others that should have been usable.
    pub(super) problems: Vec<Problem>,
    /// How many entries there were, usable or not, without the mesh's own.
    pub(super) registered: usize,
}

/// Reads `/v1/catalog/services`: names and tags, of which the names count. Tags are taken from the
/// instances, since here they come as a union in no stable order.
pub(super) fn names(body: &[u8]) -> Result<BTreeSet<String>, serde_json::Error> {
    let services: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(body)?;
    Ok(services.into_keys().collect())
}

/// Reads `/v1/health/service/<service>`.
pub(super) fn listing(service: &str, body: &[u8]) -> Result<Listing, serde_json::Error> {
    let entries: Vec<Value> = serde_json::from_slice(body)?;
    let mut listing = Listing::default();
    let mut instances = Vec::new();
    for (n, entry) in entries.into_iter().enumerate() {
        let entry: Entry = match Entry::deserialize(entry) {
            Ok(entry) => entry,
            Err(error) => {
                listing.registered += 1;
                listing.problems.push(Problem::new(
                    format!("service {service}"),
                    format!(
                        "entry {n} of Consul's answer cannot be read ({error}); register it again"
                    ),
                ));
                continue;
            }
        };
        // Proxies and gateways of Consul's mesh are not what clients ask for, and neither is a kind that
        // this version has not heard of.
        if !matches!(entry.service.kind.as_deref(), None | Some("" | "typical")) {
            continue;
        }
        listing.registered += 1;
        let (instance, problem) = instance(entry);
        instances.extend(instance);
        listing.problems.extend(problem);
    }
    instances.sort_by(|a, b| a.key.cmp(&b.key));
    instances.dedup_by(|a, b| a.key == b.key);
    listing.instances = instances.into_iter().map(Arc::new).collect();
    listing.problems.sort();
    Ok(listing)
}

/// What is wrong with a service's name, if anything. Such a service has a VIP like any other.
pub(super) fn name_problem(service: &str) -> Option<Problem> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
    // Names answer with `_` as `.`, too.
    let dotted = service.replace('_', ".");
    let safe = dotted.len() <= 253
        && dotted.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(letters)
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    (!safe).then(|| {
        Problem::new(
            format!("service {service}"),
            "the name cannot be a host name, so that the service is reached by its VIP only; register it \
             under a name of letters, digits, `-`, `_` and `.`",
        )
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    checks: Option<Vec<RawCheck>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    address: Option<String>,
    tagged_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    kind: Option<String>,
    #[serde(rename = "ID")]
    id: String,
    address: Option<String>,
    tagged_addresses: Option<BTreeMap<String, TaggedAddress>>,
    port: Option<i64>,
    tags: Option<BTreeSet<String>>,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
    create_index: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaggedAddress {
    address: Option<String>,
    port: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: Option<i64>,
    warning: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawCheck {
    #[serde(rename = "CheckID")]
    check_id: Option<String>,
    name: Option<String>,
    status: Option<String>,
    output: Option<String>,
    notes: Option<String>,
}

fn instance(entry: Entry) -> (Option<Instance>, Option<Problem>) {
    let Entry {
        node,
        service,
        checks,
    } = entry;
    let key = InstanceKey {
        node: node.node.clone(),
        id: service.id.clone(),
    };
    let address = match address(&node, &service) {
        Ok(address) => address,
        Err(wrong) => return (None, Some(Problem::new(format!("instance {key}"), wrong))),
    };
    let mut meta = service.meta.unwrap_or_default();
    let mut problem = None;
    let tagged = service.tagged_addresses.unwrap_or_default();
    if let Some(wish) = tagged.get("virtual").and_then(|t| t.address.as_ref()) {
        if wish.parse::<Ipv4Addr>().is_ok() {
            meta.insert(VIRTUAL_ADDRESS.to_owned(), wish.clone());
        } else {
            problem = Some(Problem::new(
                format!("instance {key}"),
                format!(
                    "its tagged address `virtual`, `{wish}`, is no IPv4 address and was passed over; \
                     register one from the VIP pool or none"
                ),
            ));
        }
    }
    let mut checks = checks.unwrap_or_default();
    checks.sort_by(|a, b| a.check_id.cmp(&b.check_id));
    let checks: Vec<_> = checks.into_iter().map(check).collect();
    let health = checks
        .iter()
        .map(|check| check.health)
        .max()
        .unwrap_or(SourceHealth::Passing);
    let weight = match (service.weights, health) {
        (None, _) => None,
        (Some(weights), SourceHealth::Warning) => weights.warning,
        (Some(weights), _) => weights.passing,
    };
    let instance = Instance {
        key,
        address,
        reach: Reach::default(),
        local: false,
        container: None,
        tags: service.tags.unwrap_or_default().into(),
        meta: meta.into(),
        weight: u16::try_from(weight.unwrap_or(1).max(0)).unwrap_or(u16::MAX),
        health,
        checks,
        registered: service.create_index.unwrap_or(0),
    };
    (Some(instance), problem)
}

/// Where the instance listens: the service's own address, else its node's; the IPv4 one where Consul knows
/// several.
fn address(node: &Node, service: &Service) -> Result<SocketAddr, String> {
    let own = service
        .address
        .as_deref()
        .filter(|address| !address.is_empty());
    let text = own.or(node.address.as_deref()).unwrap_or_default();
    let tagged = service.tagged_addresses.as_ref();
    let lan = tagged.and_then(|tagged| tagged.get("lan_ipv4"));
    let lan_text = match own {
        Some(_) => lan.and_then(|lan| lan.address.as_deref()),
        None => lan
            .and_then(|lan| lan.address.as_deref())
            .or_else(|| Some(node.tagged_addresses.as_ref()?.get("lan_ipv4")?.as_str())),
    };
    let first: Option<IpAddr> = text.parse().ok();
    let ip = match (
        first,
        lan_text.and_then(|text| text.parse::<Ipv4Addr>().ok()),
    ) {
        (Some(IpAddr::V4(ip)), _) => IpAddr::V4(ip),
        (_, Some(ip)) => IpAddr::V4(ip),
        (Some(ip), None) => ip,
        (None, None) if text.is_empty() => {
            return Err("has no address and was left out; register it with one".to_owned());
        }
        (None, None) => {
            return Err(format!(
                "its address `{text}` is a host name and it was left out; register it with an IP address"
            ));
        }
    };
    let ip = server_address(ip).ok_or_else(|| {
        format!(
            "its address {ip} cannot be a server's and it was left out; register it with the address it \
             listens on"
        )
    })?;
    let port = [service.port, lan.and_then(|lan| lan.port)]
        .into_iter()
        .flatten()
        .filter(|port| *port != 0)
        .map(u16::try_from)
        .next();
    match port {
        Some(Ok(port)) => Ok(SocketAddr::new(ip, port)),
        Some(Err(_)) => Err(
            "its port is not between 1 and 65535 and it was left out; correct the registration"
                .to_owned(),
        ),
        None => Err("has no port and was left out; register it with one".to_owned()),
    }
}

fn check(raw: RawCheck) -> Check {
    let id = raw.check_id.unwrap_or_default();
    let maintenance = id == "_node_maintenance" || id.starts_with("_service_maintenance:");
    let health = match raw.status.as_deref() {
        _ if maintenance => SourceHealth::Maintenance,
        Some("passing") => SourceHealth::Passing,
        Some("warning") => SourceHealth::Warning,
        // An unknown word is no reason to send traffic.
        _ => SourceHealth::Critical,
    };
    // The reason of a maintenance stands in the notes.
    let output = if maintenance { raw.notes } else { raw.output };
    let mut output = output.unwrap_or_default();
    output.truncate(output.floor_char_boundary(CHECK_OUTPUT_LIMIT));
    let name = raw.name.filter(|name| !name.is_empty()).unwrap_or(id);
    Check {
        name,
        health,
        output,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
