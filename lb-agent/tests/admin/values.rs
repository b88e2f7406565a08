//! The values that the test plays.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use lb_agent::{
    catalog::{Check, InstanceKey, SourceHealth},
    snapshot::{Backend, Probe, ProbeState, Service, ServiceName, Snapshot, Source},
    stats::{BackendStats, ServiceStats, Stats},
};

pub(crate) fn snapshot() -> Snapshot {
    let hello = service(Some(Ipv4Addr::new(198, 18, 12, 7)));
    let mut evil = service(None);
    for backend in evil.backends.values_mut() {
        backend.source = SourceHealth::Critical;
        backend.checks = vec![Check {
            name: "x".to_owned(),
            health: SourceHealth::Critical,
            output: "<b>no</b>".to_owned(),
        }];
    }
    Snapshot {
        number: 1,
        answered: true,
        stopgap: false,
        complete: true,
        services: [
            (ServiceName::whole("www_hello"), hello.into()),
            (ServiceName::whole("<script>alert(1)</script>"), evil.into()),
        ]
        .into(),
        problems: Vec::new(),
        sources: [(
            "file".to_owned(),
            Source {
                updated: Some(SystemTime::now()),
                error: None,
            },
        )]
        .into(),
    }
}

pub(crate) fn service(vip: Option<Ipv4Addr>) -> Service {
    let backend = Backend {
        address: "10.0.0.1:80".parse().unwrap(),
        reach: Default::default(),
        local: true,
        tags: Default::default(),
        weight: 1,
        canary: false,
        source: SourceHealth::Passing,
        checks: Vec::new(),
        probe: Probe {
            state: ProbeState::Up,
            since: SystemTime::now(),
            error: None,
            took: Some(Duration::from_micros(200)),
        },
        order: Default::default(),
        leaving: false,
        ramp: 100,
    };
    Service {
        vip,
        options: Default::default(),
        aliases: Default::default(),
        backends: [(key("a"), backend)].into(),
    }
}

pub(crate) fn figures() -> Stats {
    let active = BackendStats {
        active: 3,
        ..BackendStats::default()
    };
    let hello = ServiceStats {
        flows: 12,
        active: 3,
        backends: [(key("a"), active)].into(),
        ..ServiceStats::default()
    };
    Stats {
        services: [(ServiceName::whole("www_hello"), hello)].into(),
        programs: [("connect4", true)].into(),
        ..Stats::default()
    }
}

pub(crate) fn key(id: &str) -> InstanceKey {
    InstanceKey::new("file", id)
}
