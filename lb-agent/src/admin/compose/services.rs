//! The services of a report: what the snapshot, the data plane, the packet path and the front know of each.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use lb_front::{ServiceTraffic, TerminationCount};
use serde_json::Value;

use super::{
    super::report::{
        Backend, Ejection, Flows, Http, Leaving, OnFront, Probe, Service, ServiceState, SourceLevel,
    },
    Material, unix,
};
use crate::{
    catalog::InstanceKey,
    options::{Balance, CheckKind, Options},
    packet,
    removal::{self, Whose},
    snapshot::{self, ServiceName, Snapshot, State},
    stats::{BackendStats, ServiceStats, percentile},
};

/// When the flows to an instance are cut.
fn cut(removal: &removal::Status, service: &ServiceName, key: &InstanceKey) -> Option<SystemTime> {
    // As nearly always.
    if removal.cuts.is_empty() {
        return None;
    }
    let whose = Whose::Instance(service.clone(), key.clone());
    removal.cuts.get(&whose).copied()
}

pub(super) fn services(snapshot: &Snapshot, material: &Material<'_>) -> Vec<Service> {
    let front = material.front.into_iter();
    let seen = front.clone().flat_map(|front| &front.backends);
    let seen: BTreeMap<_, _> = seen.map(|it| (it.address, it)).collect();
    let requests = requests(front.clone().flat_map(|front| &front.terminations));
    let services = front.flat_map(|front| &front.services);
    let ejections = services.flat_map(|service| {
        let ejected = service.ejected.iter();
        ejected.map(|it| ((service.service.as_str(), it.address), it))
    });
    let ejections: BTreeMap<_, _> = ejections.collect();
    let one = |(name, value): (&ServiceName, &Arc<snapshot::Service>)| {
        // A data plane that answers, but does not name the service, has counted nothing for it yet.
        let stats = material
            .stats
            .map(|stats| stats.services.get(name).cloned().unwrap_or_default());
        let label = snapshot.label(name);
        let called = (name, &*label);
        let mut service = service(called, value, material, stats.as_ref());
        service.http = material
            .front
            .map(|_| requests.get(service.label.as_str()).copied())
            .map(Option::unwrap_or_default);
        service.packets = material
            .packet
            .and_then(|it| it.services.get(name))
            .copied();
        for (backend, known) in service.backends.iter_mut().zip(value.backends.values()) {
            backend.packets = material.packet.and_then(|it| {
                let mut sent = None;
                for address in known.addresses() {
                    if let Some(traffic) = it.backends.get(&address) {
                        *sent.get_or_insert_with(packet::Traffic::default) += *traffic;
                    }
                }
                sent
            });
            backend.front = seen.get(&backend.address).map(|stats| OnFront {
                in_flight: stats.in_flight,
                connections: stats.open,
                failures: stats.failures,
                retries: stats.retries,
                requests: stats.requests,
                errors: stats.errors,
                received: stats.received,
                sent: stats.sent,
                p50_microseconds: request_time(stats, 50),
                p99_microseconds: request_time(stats, 99),
                ejected: ejections
                    .get(&(service.label.as_str(), backend.address))
                    .map(|it| Ejection {
                        workers: usize::try_from(it.workers).unwrap_or(usize::MAX),
                        until_unix: it.until,
                        why: it.why.clone(),
                    }),
            });
        }
        service
    };
    snapshot.services.iter().map(one).collect()
}

/// In microseconds; so many percent of the requests to a backend took no longer.
fn request_time(stats: &lb_front::BackendStats, percent: u64) -> Option<u64> {
    let bounds = ServiceTraffic::BOUNDS.into_iter();
    percentile(&stats.buckets, bounds, percent)
}

/// The requests of each service, by its label.
fn requests<'f>(counts: impl Iterator<Item = &'f TerminationCount>) -> BTreeMap<&'f str, Http> {
    let mut all: BTreeMap<&str, Http> = BTreeMap::new();
    for ended in counts {
        let http = all.entry(&ended.service).or_default();
        http.requests += ended.count;
        if ended.is_error() {
            http.errors += ended.count;
        }
    }
    all
}

/// Those that are not as they are by default.
fn stated(options: &Options) -> serde_json::Map<String, Value> {
    let fields = |options: &Options| match serde_json::to_value(options) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let usual = Options::default();
    // Most services ask for nothing.
    if *options == usual {
        return serde_json::Map::new();
    }
    let usual = fields(&usual);
    let mut stated = fields(options);
    let told = ["balance", "check", "ports"];
    stated.retain(|name, value| {
        // What is told in a field of its own is not told twice.
        usual.get(name) != Some(value) && !told.contains(&name.as_str())
    });
    if let Some(Value::Object(front)) = stated.get_mut("front") {
        for headers in ["request_headers", "response_headers"] {
            // They may be what the service's instances ask of the front as a proof.
            if let Some(Value::Object(fields)) = front.get_mut(headers) {
                let set = fields.values_mut().filter(|it| !it.is_null());
                set.for_each(|it| *it = Value::from("***"));
            }
        }
    }
    for value in stated.values_mut() {
        if let Some(seconds) = value.get("secs") {
            *value = seconds.clone();
        }
    }
    stated
}

fn service(
    (name, label): (&ServiceName, &str),
    value: &snapshot::Service,
    material: &Material<'_>,
    stats: Option<&ServiceStats>,
) -> Service {
    let backends = value.backends.iter();
    let backends: Vec<Backend> = backends
        .map(|(key, backend)| {
            let figures = stats.map(|stats| stats.backends.get(key).copied().unwrap_or_default());
            let cut = cut(material.removal, name, key);
            one_backend(key, backend, figures, cut)
        })
        .collect();
    let gone = stats.into_iter().flat_map(|stats| &stats.backends);
    let gone = gone.filter(|(key, _)| !value.backends.contains_key(key));
    Service {
        name: name.to_string(),
        label: label.to_owned(),
        service: name.service.to_string(),
        tag: name.tag.as_ref().map(ToString::to_string),
        state: state(&backends),
        vip: value.vip,
        vip6: value.vip.and_then(|vip| material.pools.twin(vip)),
        ports: value.options.ports.clone(),
        balance: balance(value.options.balance).to_owned(),
        check: check(&value.options.check),
        hosts: material.hosts.get(label).cloned().unwrap_or_default(),
        usable: value.usable().count(),
        flows: stats.map(|stats| Flows {
            total: stats.flows,
            refused: stats.refused.total(),
            refusals: stats.refused,
            failed: stats.failed,
            active: stats.active,
        }),
        connects: stats.map(|stats| stats.handshakes.into()),
        packets: None,
        http: None,
        options: stated(&value.options),
        leaving: gone
            .map(|(key, figures)| Leaving {
                key: key.clone(),
                active: figures.active,
            })
            .collect(),
        backends,
    }
}

fn one_backend(
    key: &InstanceKey,
    backend: &snapshot::Backend,
    figures: Option<BackendStats>,
    cut: Option<SystemTime>,
) -> Backend {
    Backend {
        key: key.clone(),
        address: backend.address,
        weight: backend.weight,
        tags: backend.tags.clone(),
        probe: Probe {
            state: backend.probe.state,
            since_unix: unix(backend.probe.since),
            error: backend.probe.error.clone(),
            took_microseconds: backend
                .probe
                .took
                .map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        },
        source: SourceLevel {
            state: backend.source,
            checks: backend.checks.clone(),
        },
        state: backend.state(),
        mode: backend.order.mode,
        cut_unix: cut.map(unix),
        suspect: figures.map(|figures| figures.suspect),
        ramp: backend.ramp,
        active: figures.map(|figures| figures.active),
        failed: figures.map(|figures| figures.failed),
        connects: figures.map(|figures| figures.handshakes.into()),
        packets: None,
        front: None,
    }
}

/// Instances that are out because somebody wished so, or that are only starting, degrade nothing.
fn state(backends: &[Backend]) -> ServiceState {
    let fails = |backend: &Backend| match backend.state {
        State::L4Down | State::ConsulWarning | State::ConsulCritical => true,
        State::Usable | State::Starting | State::Maintenance | State::Draining | State::Leaving => {
            false
        }
    };
    if !backends.iter().any(|backend| backend.state.usable()) {
        ServiceState::Refused
    } else if backends.iter().any(fails) {
        ServiceState::Degraded
    } else {
        ServiceState::Ok
    }
}

pub(in crate::admin) fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::LeastConn => "least-conn",
        Balance::RoundRobin => "round-robin",
        Balance::Random => "random",
        Balance::Maglev => "maglev",
    }
}

fn check(check: &CheckKind) -> String {
    match check {
        CheckKind::Tcp => "tcp".to_owned(),
        CheckKind::Http(path) | CheckKind::HttpAfter(_, path) | CheckKind::Http2(path) => {
            format!("http {path}")
        }
        CheckKind::Off => "off".to_owned(),
    }
}
