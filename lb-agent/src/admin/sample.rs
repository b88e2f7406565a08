//! A snapshot and figures for the tests of this stage and of the command line.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_front::{Ejected, FrontStats};

use super::compose::Material;
use crate::{
    catalog::{Check, InstanceKey, Problem, SourceHealth},
    options::{CheckKind, Options},
    order::Mode,
    removal,
    snapshot::{Backend, ProbeState, Service, ServiceName, Snapshot, Source},
    stats::{BackendStats, Handshakes, MapFill, Refusals, ServiceStats, Stats},
    vip::{Pool6, Pools},
};

static NO_REMOVAL: removal::Status = removal::Status {
    cuts: BTreeMap::new(),
    sight: None,
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
        removal: &NO_REMOVAL,
        front: None,
        packet: None,
        hosts: BTreeMap::from([(
            "www_hello".to_owned(),
            vec![
                "http://www.hello.localhost/".to_owned(),
                "www.hello".to_owned(),
            ],
        )]),
        pools: Pools {
            v6: Some(Pool6::default()),
            ..Pools::default()
        },
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
    c.order.mode = Mode::Drain;
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
        number: 1,
        answered: true,
        stopgap: false,
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
    let active = |active, leaving| {
        let mut handshakes = Handshakes::default();
        handshakes.buckets[0] = 98 * active;
        handshakes.buckets[3] = 2 * active;
        handshakes.micros = 4000 * active;
        BackendStats {
            active,
            failed: u64::from(leaving),
            handshakes,
            suspect: false,
            leaving,
        }
    };
    let (a, gone) = (active(4, false), active(2, true));
    let mut handshakes = a.handshakes;
    handshakes += gone.handshakes;
    let hello = ServiceStats {
        flows: 1204,
        refused: Refusals {
            no_backend: 2,
            no_path: 0,
            denied: 1,
        },
        failed: 1,
        active: 6,
        handshakes,
        backends: [(key("file", "a"), a), (key("file", "gone"), gone)].into(),
    };
    Stats {
        services: [(ServiceName::whole("www_hello"), hello)].into(),
        maps: [
            ("SERVICES", fill(4, 4096)),
            ("BACKENDS", fill(2000, 16_384)),
        ]
        .into(),
        programs: [("connect4", true), ("sock_ops", true)].into(),
        unknown: 17,
        ..Stats::default()
    }
}

/// Of one backend of `www_hello`, and of that of `www`, which fails.
pub(crate) fn front() -> FrontStats {
    let backend = |address: &str, failures, retries| lb_front::BackendStats {
        address: address.parse().unwrap(),
        in_flight: 1,
        open: 3,
        idle: 2,
        failures,
        retries,
        requests: 40,
        errors: failures / 2,
        buckets: vec![30, 0, 10],
        micros: 70_000,
        received: 1_000,
        sent: 9_000,
    };
    FrontStats {
        backends: vec![backend("10.0.0.1:80", 0, 2), backend("10.0.2.1:80", 9, 4)],
        terminations: [("2xx", 199), ("5xx", 1)]
            .map(|(class, count)| lb_front::TerminationCount {
                service: "www".to_owned(),
                class: class.to_owned(),
                reason: lb_front::Reason::Ok,
                count,
            })
            .into(),
        services: vec![lb_front::ServiceStats {
            service: "www".to_owned(),
            queued: 0,
            ejections: 2,
            ejected: vec![Ejected {
                address: "10.0.2.1:80".parse().unwrap(),
                workers: 2,
                until: 1_700_000_025,
                why: "connect_refused".to_owned(),
            }],
        }],
        ..FrontStats::default()
    }
}

pub(crate) fn key(node: &str, id: &str) -> InstanceKey {
    InstanceKey::new(node, id)
}

pub(crate) fn backend(address: &str) -> Backend {
    let mut backend = Backend::usable(address.parse().unwrap());
    backend.probe.since = now() - Duration::from_secs(41);
    backend.probe.took = Some(Duration::from_micros(350));
    backend
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
