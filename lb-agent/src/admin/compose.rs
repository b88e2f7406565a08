//! Makes the report from what the stages know. Pure: the clock's reading comes in as a value.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_front::{FrontStats, ServiceTraffic, TerminationCount};
use serde_json::Value;

use super::{
    components,
    report::{
        API, Backend, Cut, DataPlane, Ejection, Flows, Http, Leaving, MapFill, OnFront, PacketPath,
        Probe, Report, Service, ServiceState, Source, SourceLevel,
    },
};
use crate::{
    catalog::InstanceKey,
    options::{Balance, CheckKind, Options},
    packet,
    removal::{self, Whose},
    snapshot::{self, ServiceName, Snapshot, State},
    sockets::Target,
    stats::{BackendStats, ServiceStats, Stats, percentile},
    vip::Pools,
};

/// Everything that a report is made of.
pub(crate) struct Material<'a> {
    pub(crate) host: &'a str,
    pub(crate) now: SystemTime,
    pub(crate) started: SystemTime,
    /// Why the agent is not ready; empty when it is.
    pub(crate) waiting_for: Vec<String>,
    /// `None` until discovery has answered.
    pub(crate) snapshot: Option<&'a Snapshot>,
    /// `None` when the data plane did not answer.
    pub(crate) stats: Option<&'a Stats>,
    /// Whose flows will be cut.
    pub(crate) removal: &'a removal::Status,
    /// The front's own figures; `None` while there is none.
    pub(crate) front: Option<&'a FrontStats>,
    /// The packet path; `None` where there is none.
    pub(crate) packet: Option<&'a packet::Seen>,
    /// Host names by service label.
    pub(crate) hosts: BTreeMap<String, Vec<String>>,
    /// Where VIPs and their twins are.
    pub(crate) pools: Pools,
    /// Lines of other stages.
    pub(crate) components: Vec<super::report::Component>,
}

/// The report of this moment.
pub(crate) fn compose(mut material: Material<'_>) -> Report {
    let snapshot = material.snapshot;
    let others = std::mem::take(&mut material.components);
    let mut report = Report {
        api: API,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: material.host.to_owned(),
        now_unix: unix(material.now),
        started_unix: unix(material.started),
        ready: material.waiting_for.is_empty(),
        waiting_for: std::mem::take(&mut material.waiting_for),
        snapshot: snapshot.map(|it| it.number),
        complete: snapshot.is_some_and(|snapshot| snapshot.complete),
        components: Vec::new(),
        problems: snapshot.map_or_else(Vec::new, |snapshot| snapshot.problems.clone()),
        sources: snapshot.map_or_else(BTreeMap::new, sources),
        services: snapshot
            .filter(|snapshot| snapshot.is_known())
            .map(|snapshot| services(snapshot, &material)),
        data_plane: material.stats.map(data_plane),
        packet: material.packet.map(packet_path),
        cuts: cuts(&material),
    };
    report.components = components::of(&report);
    let sight = material.removal.sight.as_ref();
    report
        .components
        .extend(sight.map(|sight| components::drains(&report, sight.limits())));
    report.components.extend(others);
    report
}

/// The age at `now_unix` of something that is as old as `then_unix`.
pub(crate) fn age(now_unix: u64, then_unix: u64) -> Duration {
    Duration::from_secs(now_unix.saturating_sub(then_unix))
}

pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn cuts(material: &Material<'_>) -> Vec<Cut> {
    let cuts = material.removal.cuts.iter();
    cuts.map(|(whose, at)| match whose {
        Whose::Instance(service, key) => {
            let figures = material.stats.map(|stats| {
                let backends = stats.services.get(service).map(|it| &it.backends);
                backends.and_then(|it| it.get(key)).copied()
            });
            Cut {
                service: service.to_string(),
                key: Some(key.clone()),
                address: None,
                at_unix: unix(*at),
                // A data plane that answers, but does not name the backend, has freed it: no flow was left.
                active: figures.map(|it| it.unwrap_or_default().active),
            }
        }
        Whose::Address(service, Target { vip, address }) => Cut {
            service: service
                .as_ref()
                .map_or(vip.to_string(), ToString::to_string),
            key: None,
            address: Some(*address),
            at_unix: unix(*at),
            active: None,
        },
    })
    .collect()
}

/// When the flows to an instance are cut.
fn cut(removal: &removal::Status, service: &ServiceName, key: &InstanceKey) -> Option<SystemTime> {
    // As nearly always.
    if removal.cuts.is_empty() {
        return None;
    }
    let whose = Whose::Instance(service.clone(), key.clone());
    removal.cuts.get(&whose).copied()
}

fn sources(snapshot: &Snapshot) -> BTreeMap<String, Source> {
    let source = |source: &snapshot::Source| Source {
        updated_unix: source.updated.map(unix),
        error: source.error.clone(),
    };
    let named = snapshot.sources.iter();
    named.map(|(name, s)| (name.clone(), source(s))).collect()
}

fn data_plane(stats: &Stats) -> DataPlane {
    let fill = |fill: &crate::stats::MapFill| MapFill {
        entries: fill.entries,
        capacity: fill.capacity,
    };
    DataPlane {
        programs: stats
            .programs
            .iter()
            .map(|(hook, attached)| ((*hook).to_owned(), *attached))
            .collect(),
        maps: stats
            .maps
            .iter()
            .map(|(name, map)| ((*name).to_owned(), fill(map)))
            .collect(),
        unknown: stats.unknown,
        clients: stats.clients,
        views: stats.views,
    }
}

fn packet_path(seen: &packet::Seen) -> PacketPath {
    let fates = |fates: &BTreeMap<&'static str, u64>| {
        let all = fates.iter();
        all.map(|(fate, count)| ((*fate).to_owned(), *count))
            .collect()
    };
    PacketPath {
        error: seen.error.clone(),
        devices: seen.devices.clone(),
        fates: seen.fates.as_ref().map(fates),
        strays: seen
            .strays
            .iter()
            .map(|(name, strays)| (name.label(), *strays))
            .collect(),
        ended_flows: seen.ended_flows,
        maps: seen
            .maps
            .iter()
            .map(|(map, &(entries, capacity))| ((*map).to_owned(), MapFill { entries, capacity }))
            .collect(),
    }
}

fn services(snapshot: &Snapshot, material: &Material<'_>) -> Vec<Service> {
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
        let hosts = material.hosts.get(&name.label());
        let mut service = service(name, value, material, stats.as_ref(), hosts.cloned());
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
    name: &ServiceName,
    value: &snapshot::Service,
    material: &Material<'_>,
    stats: Option<&ServiceStats>,
    hosts: Option<Vec<String>>,
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
        label: name.label(),
        service: name.service.to_string(),
        tag: name.tag.as_ref().map(ToString::to_string),
        state: state(&backends),
        vip: value.vip,
        vip6: value.vip.and_then(|vip| material.pools.twin(vip)),
        ports: value.options.ports.clone(),
        balance: balance(value.options.balance).to_owned(),
        check: check(&value.options.check),
        hosts: hosts.unwrap_or_default(),
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

pub(super) fn balance(balance: Balance) -> &'static str {
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
        CheckKind::Http(path) | CheckKind::HttpAfter(_, path) => format!("http {path}"),
        CheckKind::Off => "off".to_owned(),
    }
}

#[cfg(test)]
mod tests;
