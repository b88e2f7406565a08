//! A snapshot and figures for the tests of this stage and of the command line.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::compose::Material;
use crate::{
    catalog::{Check, InstanceKey, Problem, SourceHealth},
    options::{CheckKind, Options},
    snapshot::{Backend, Probe, ProbeState, Service, ServiceName, Snapshot, Source},
    stats::{BackendStats, MapFill, ServiceStats, Stats},
};

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(crate) fn material<'a>(
    snapshot: Option<&'a Snapshot>,
    stats: Option<&'a Stats>,
) -> Material<'a> {
    Material {
        host: "dock-1",
        now: now(),
        started: now() - Duration::from_secs(3600),
        waiting_for: Vec::new(),
        snapshot,
        stats,
        hosts: BTreeMap::from([(
            "www_hello".to_owned(),
            vec![
                "http://www.hello.localhost/".to_owned(),
                "www.hello".to_owned(),
            ],
        )]),
        components: Vec::new(),
    }
}

/// `www_hello` with one good, one failing and one drained instance; `db` with a critical one; `www` and
/// its part `world.dev`.
pub(crate) fn snapshot() -> Snapshot {
    let options = Options {
        check: CheckKind::Http("/".to_owned()),
        ..Options::default()
    };
    let mut b = backend("10.0.0.2:80");
    b.probe.state = ProbeState::Down;
    b.probe.error = Some("connection refused".to_owned());
    b.probe.took = None;
    let mut c = backend("10.0.0.3:80");
    c.draining = true;
    let hello = Service {
        vip: Some(Ipv4Addr::new(198, 18, 12, 7)),
        options,
        aliases: BTreeSet::new(),
        backends: [
            (key("file", "a"), backend("10.0.0.1:80")),
            (key("file", "b"), b),
            (key("file", "c"), c),
        ]
        .into(),
    };
    let mut db = backend("10.0.1.1:5432");
    db.source = SourceHealth::Critical;
    db.checks = vec![Check {
        name: "db alive".to_owned(),
        health: SourceHealth::Critical,
        output: "no answer\nfrom pg_isready".to_owned(),
    }];
    let db = Service {
        vip: None,
        options: Options {
            ports: [5432].into(),
            ..Options::default()
        },
        aliases: BTreeSet::new(),
        backends: [(key("n1", "db-1"), db)].into(),
    };
    let www = Service {
        vip: Some(Ipv4Addr::new(198, 18, 0, 9)),
        options: Options::default(),
        aliases: BTreeSet::new(),
        backends: [(key("n1", "www-1"), backend("10.0.2.1:80"))].into(),
    };
    Snapshot {
        answered: true,
        complete: true,
        services: [
            (ServiceName::whole("www_hello"), hello.into()),
            (ServiceName::whole("db"), db.into()),
            (ServiceName::part("www", "world.dev"), www.clone().into()),
            (ServiceName::whole("www"), www.into()),
        ]
        .into(),
        problems: vec![Problem::new(
            "service db",
            "has no VIP: the pool 198.18.0.0/30 is full; widen it",
        )],
        sources: [
            ("consul".to_owned(), source(192, Some("no leader"))),
            ("file".to_owned(), source(5, None)),
        ]
        .into(),
    }
}

pub(crate) fn stats() -> Stats {
    let active = |active, leaving| BackendStats {
        active,
        suspect: false,
        leaving,
    };
    let hello = ServiceStats {
        flows: 1204,
        refused: 3,
        failed: 1,
        active: 6,
        backends: [
            (key("file", "a"), active(4, false)),
            (key("file", "gone"), active(2, true)),
        ]
        .into(),
    };
    Stats {
        services: [(ServiceName::whole("www_hello"), hello)].into(),
        maps: [
            ("SERVICES", fill(4, 4096)),
            ("BACKENDS", fill(2000, 16_384)),
        ]
        .into(),
        programs: [("connect4", true), ("sock_ops", true)].into(),
    }
}

pub(crate) fn key(node: &str, id: &str) -> InstanceKey {
    InstanceKey {
        node: node.to_owned(),
        id: id.to_owned(),
    }
}

pub(crate) fn backend(address: &str) -> Backend {
    Backend {
        address: address.parse::<SocketAddr>().unwrap(),
        reach: Default::default(),
        local: true,
        tags: Arc::default(),
        weight: 1,
        source: SourceHealth::Passing,
        checks: Vec::new(),
        probe: Probe {
            state: ProbeState::Up,
            since: now() - Duration::from_secs(41),
            error: None,
            took: Some(Duration::from_micros(350)),
        },
        draining: false,
        leaving: false,
    }
}

fn source(age_seconds: u64, error: Option<&str>) -> Source {
    Source {
        updated: Some(now() - Duration::from_secs(age_seconds)),
        error: error.map(str::to_owned),
    }
}

fn fill(entries: u64, capacity: u64) -> MapFill {
    MapFill { entries, capacity }
}
