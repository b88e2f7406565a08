//! Consul's answers as our values. Pure: bytes come in, instances and problems go out.
//!
//! Everything in an answer was chosen by whoever may register a service. An entry that cannot be used is
//! left out and named; it never costs another one.

mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    VIRTUAL_ADDRESS, Warning,
    checks::{State, Told},
    marks,
};
use crate::{
    catalog::{CHECK_OUTPUT_LIMIT, Check, Instance, InstanceKey, Problem, SourceHealth},
    discover::server_address,
    options::{dotted, is_dns_name},
};

pub(super) use place::reachable;
use place::{Place, place};

/// What Consul says of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The usable entries, ordered by key: Consul's order means nothing.
    pub(super) instances: Vec<Arc<Instance>>,
    /// Those whose address is a host name, in the same order.
    pub(super) named: Vec<Named>,
    /// The others that should have been usable.
    pub(super) problems: Vec<Problem>,
    /// How many entries there were, usable or not, without the mesh's own.
    pub(super) registered: usize,
    /// How many entries there were, of any kind: what an empty answer is told by.
    pub(super) entries: usize,
    /// Whether an instance has no check of its own, so that no list of checks tells when it goes.
    pub(super) unchecked: bool,
    /// The states of all checks, to be compared with the list of them.
    pub(super) checks: Told,
}

/// An instance that is usable once its host name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) host: Arc<str>,
    /// Its address has the right port, and no IP address yet.
    pub(super) instance: Arc<Instance>,
}

/// What decides how entries are read, beside what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standpoint {
    /// The name of the Consul node of this host, where it is known.
    pub(super) node: Option<String>,
    /// Who this host is to the registrar.
    pub(super) host: Option<String>,
    /// Whether another datacenter is asked about. Consul puts the address there that leads to it in the first place.
    pub(super) foreign: bool,
    pub(super) warning: Warning,
}

/// Reads `/v1/catalog/services`: names and tags, of which the names count. Tags are taken from the
/// instances, since here they come as a union in no stable order.
pub(super) fn names(body: &[u8]) -> Result<BTreeSet<String>, serde_json::Error> {
    let services: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(body)?;
    Ok(services.into_keys().collect())
}

/// Reads `/v1/health/service/<service>`.
pub(super) fn listing(
    service: &str,
    body: &[u8],
    standpoint: &Standpoint,
) -> Result<Listing, serde_json::Error> {
    let entries: Vec<&RawValue> = serde_json::from_slice(body)?;
    let mut listing = Listing {
        entries: entries.len(),
        ..Listing::default()
    };
    for (n, entry) in entries.into_iter().enumerate() {
        let entry: Entry = match serde_json::from_str(entry.get()) {
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
        listing
            .checks
            .add(service, &entry.node.node, entry.states());
        // Proxies and gateways of Consul's mesh are not what clients ask for, and neither is a kind that
        // this version has not heard of.
        if !matches!(entry.service.kind.as_deref(), None | Some("" | "typical")) {
            continue;
        }
        listing.registered += 1;
        let name = entry.service.service.as_deref();
        // Consul itself takes upper and lower case for the same.
        if let Some(other) = name.filter(|it| it.to_lowercase() != service.to_lowercase()) {
            listing.problems.push(Problem::new(
                format!("service {service}"),
                format!(
                    "entry {n} of Consul's answer is about another service, `{other}`, and it was left out; see \
                     what stands between the agent and Consul"
                ),
            ));
            continue;
        }
        listing.take(entry, standpoint);
    }
    listing.instances.sort_by(|a, b| a.key.cmp(&b.key));
    listing.instances.dedup_by(|a, b| a.key == b.key);
    listing
        .named
        .sort_by(|a, b| a.instance.key.cmp(&b.instance.key));
    listing
        .named
        .dedup_by(|a, b| a.instance.key == b.instance.key);
    listing.problems.sort();
    Ok(listing)
}

/// What is wrong with a service's name, if anything. Such a service has a VIP like any other.
pub(super) fn name_problem(service: &str) -> Option<Problem> {
    // Names answer with `_` as `.`, too.
    let safe = is_dns_name(&dotted(service));
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
    service: Option<String>,
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
    #[serde(rename = "ServiceID")]
    service_id: Option<String>,
    service_name: Option<String>,
    name: Option<String>,
    status: Option<String>,
    output: Option<String>,
    notes: Option<String>,
}

impl Entry {
    /// The states of its checks, each with the service it belongs to.
    fn states(&self) -> impl Iterator<Item = (&str, State<'_>)> {
        let checks = self.checks.iter().flatten();
        checks.map(|check| {
            let state = State {
                node: &self.node.node,
                check_id: check.check_id.as_deref().unwrap_or_default(),
                service_id: check.service_id.as_deref().unwrap_or_default(),
                status: check.status.as_deref().unwrap_or_default(),
            };
            (check.service_name.as_deref().unwrap_or_default(), state)
        })
    }
}

impl Listing {
    fn take(&mut self, entry: Entry, standpoint: &Standpoint) {
        let Entry {
            node,
            service,
            checks,
        } = entry;
        let key = InstanceKey::new(node.node.clone(), service.id.clone());
        let mut wrong = |text| {
            self.problems
                .push(Problem::new(format!("instance {key}"), text));
        };
        let place = match place(&node, &service, standpoint.foreign) {
            Ok(place) => place,
            Err(text) => return wrong(text),
        };
        let mut meta = service.meta.unwrap_or_default();
        let marks = marks::take(&mut meta, &mut wrong);
        let tagged = service.tagged_addresses.unwrap_or_default();
        if let Some(wish) = tagged.get("virtual").and_then(|t| t.address.as_ref()) {
            if wish.parse::<Ipv4Addr>().is_ok() {
                meta.insert(VIRTUAL_ADDRESS.to_owned(), wish.clone());
            } else {
                wrong(format!(
                    "its tagged address `virtual`, `{wish}`, is no IPv4 address and was passed over; \
                     register one from the VIP pool or none"
                ));
            }
        }
        let mut checks = checks.unwrap_or_default();
        let of_service =
            |check: &RawCheck| check.service_id.as_ref().is_some_and(|id| !id.is_empty());
        self.unchecked |= !checks.iter().any(of_service);
        checks.sort_by(|a, b| a.check_id.cmp(&b.check_id));
        let checks: Vec<_> = checks.into_iter().map(check).collect();
        let (health, weight) = usable(&checks, service.weights.as_ref(), standpoint.warning);
        let local = standpoint.node.as_deref() == Some(&*key.node)
            || marks.registrar.is_some() && marks.registrar == standpoint.host;
        let mut reach = marks.reach;
        // That of another datacenter leads elsewhere from here.
        reach.host = Some(&node)
            .filter(|_| !standpoint.foreign)
            .and_then(|node| server_address(node.address.as_deref()?.parse().ok()?))
            .filter(|host| !matches!(place, Place::At(address) if address.ip() == *host));
        let (address, host) = match place {
            Place::At(address) => (address, None),
            Place::Named(host, port) => {
                let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                (SocketAddr::new(nowhere, port), Some(host))
            }
        };
        let instance = Arc::new(Instance {
            key,
            address,
            reach: reach.shared(),
            local,
            container: marks.container,
            tags: service.tags.unwrap_or_default().into(),
            meta: meta.into(),
            weight,
            health,
            checks,
            registered: service.create_index.unwrap_or(0),
        });
        match host {
            None => self.instances.push(instance),
            Some(host) => self.named.push(Named {
                host: host.into(),
                instance,
            }),
        }
    }
}

/// The verdict of all checks, and the weight that goes with it.
fn usable(checks: &[Check], weights: Option<&Weights>, policy: Warning) -> (SourceHealth, u16) {
    let worst = checks.iter().map(|check| check.health).max();
    let worst = worst.unwrap_or(SourceHealth::Passing);
    let weight = match worst {
        SourceHealth::Warning => weights.and_then(|weights| weights.warning),
        _ => weights.and_then(|weights| weights.passing),
    };
    let weight = u16::try_from(weight.unwrap_or(1).max(0)).unwrap_or(u16::MAX);
    match (worst, policy) {
        // The checks still say that it warns. A weight of 0 keeps new flows away by itself.
        (SourceHealth::Warning, Warning::Include) => (SourceHealth::Passing, weight),
        _ => (worst, weight),
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
    // The reason of a maintenance stands in the notes, and so does that of a check that never runs.
    let output = raw.output.filter(|said| !maintenance && !said.is_empty());
    let mut output = output.or(raw.notes).unwrap_or_default();
    output.truncate(output.floor_char_boundary(CHECK_OUTPUT_LIMIT));
    let name = raw.name.filter(|name| !name.is_empty()).unwrap_or(id);
    Check {
        name,
        health,
        output,
    }
}

#[cfg(test)]
mod tests;
