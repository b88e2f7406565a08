//! Makes the report from what the stages know. Pure: the clock's reading comes in as a value.

mod services;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_front::FrontStats;

use super::{
    components,
    report::{API, Cut, DataPlane, MapFill, PacketPath, Report, Source},
};
use crate::{
    packet,
    removal::{self, Whose},
    snapshot::{self, Snapshot},
    sockets::Target,
    stats::Stats,
    vip::Pools,
};
pub(super) use services::balance;
use services::services;

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
        packet: material
            .packet
            .map(|it| packet_path(it, snapshot.unwrap_or(&Snapshot::default()))),
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

fn packet_path(seen: &packet::Seen, snapshot: &Snapshot) -> PacketPath {
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
            .map(|(name, strays)| (snapshot.label(name).to_string(), *strays))
            .collect(),
        ended_flows: seen.ended_flows,
        maps: seen
            .maps
            .iter()
            .map(|(map, &(entries, capacity))| ((*map).to_owned(), MapFill { entries, capacity }))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
