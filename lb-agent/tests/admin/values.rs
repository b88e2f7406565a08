//! The values that the test plays.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_agent::{
    catalog::{Check, InstanceKey, Problem, SourceHealth},
    registrar::{self, Chosen, Life, Registered, Seen},
    snapshot::{Backend, Probe, ProbeState, Service, ServiceName, Snapshot, Source},
    sockets::{Flow, Flows, Origin, Process, Sight, Sockets},
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
        container: None,
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

/// Two flows of `www_hello`, of a container and of a process on the host, the older one first; none of other VIPs.
pub(crate) fn sockets() -> Sockets {
    let flow = |port: u16, start_ns, command: &str, container: Option<&str>| Flow {
        netns: 4_026_531_840,
        protocol: "tcp",
        state: "established",
        uid: 1000,
        local: ([172, 18, 0, 9], port).into(),
        origin: Origin {
            backend: Default::default(),
            start_ns,
            vip: [198, 18, 12, 7].into(),
            vip_port: 80,
            address: "10.0.0.1:80".parse().unwrap(),
        },
        age: Duration::from_secs(90 - start_ns),
        process: Some(Process {
            pid: 4711,
            command: command.to_owned(),
            container: container.map(str::to_owned),
        }),
    };
    let all = [
        flow(40_001, 10, "curl", None),
        flow(40_002, 20, "<script>", Some("c0ffee001122")),
    ];
    let tell = move |vips: Option<BTreeSet<Ipv4Addr>>| {
        let asked = |flow: &&Flow| vips.as_ref().is_none_or(|it| it.contains(&flow.origin.vip));
        Flows {
            listed: all.iter().filter(asked).cloned().collect(),
            left_out: 0,
            sight: Sight::default(),
        }
    };
    Sockets::played(tell).unwrap()
}

/// A container on two networks, and one whose words are wrong.
pub(crate) fn registered() -> registrar::Status {
    let address = |text: &str| text.parse().unwrap();
    let web = Registered {
        service: "www_hello".to_owned(),
        id: "dock-1:web:80".to_owned(),
        port: "80/tcp".to_owned(),
        address: address("172.18.0.2:80"),
        by: Chosen::Network,
        network: Some("front".to_owned()),
        networks: [
            ("back".to_owned(), address("172.19.0.2:80")),
            ("front".to_owned(), address("172.18.0.2:80")),
        ]
        .into(),
        published: Some(address("192.0.2.1:8080")),
    };
    let seen = |name: &str, registers, refused: &[&str]| Seen {
        name: name.to_owned(),
        id: "c0ffee001122".to_owned(),
        life: Life::Running,
        registers,
        left_out: vec!["port 443/tcp: SERVICE_IGNORE is set".to_owned()],
        refused: refused.iter().map(|&it| it.to_owned()).collect(),
    };
    let wrong = "SERVICE_WEIGHT=`<script>` has no effect; write a number from 1 to 65535";
    let problem = |subject: &str, message: &str| Problem::new(subject, message);
    registrar::Status {
        host: Some("dock-1".to_owned()),
        services: 1,
        left_out: 1,
        containers: Some(Arc::new([
            seen("<script>", Vec::new(), &[wrong]),
            seen("web", vec![web], &[]),
        ])),
        synced: Some(SystemTime::now()),
        error: None,
        problems: vec![
            problem("container <script>", wrong),
            problem(
                "registrar",
                "the token may not read which node this is; set [registrar] host",
            ),
        ],
    }
}
