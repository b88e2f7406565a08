//! A host as people know it: some services are well, some are not.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime},
};

use lb_agent::{
    catalog::{Check, InstanceKey, Problem, SourceHealth},
    order::Mode,
    snapshot::{Backend, ProbeState, Service, ServiceName, Snapshot, Source},
    stats::{BackendStats, Handshakes, ServiceStats, Stats},
};
use lb_front::{FrontStats, Reason, ServiceTraffic, TerminationCount};

use crate::values::service;

pub(super) fn host() -> Snapshot {
    let mut down = backend("10.0.0.13:80");
    down.probe.state = ProbeState::Down;
    down.probe.error = Some("connection refused".to_owned());
    down.probe.took = None;
    let mut critical = backend("10.0.3.5:5432");
    let output = "HTTP GET http://10.0.3.5:8008/health: 503 Service Unavailable Output: replication is 412 s behind";
    check(&mut critical, SourceHealth::Critical, "Replication", output);
    let mut drained = backend("10.0.1.23:8080");
    drained.order.mode = Mode::Drain;
    let hello = [
        ("web-1", backend("10.0.0.11:80")),
        ("web-2", backend("10.0.0.12:80")),
        ("web-3", down),
    ];
    let shop = [
        ("shop-1", backend("10.0.1.21:8080")),
        ("shop-2", backend("10.0.1.22:8080")),
        ("shop-3", drained),
    ];
    let one = |id: &'static str, address: &str| [(id, backend(address))];
    let services = [
        (ServiceName::whole("www_hello"), made(12, &hello)),
        (ServiceName::whole("shop_api"), made(44, &shop)),
        (
            ServiceName::whole("postgres"),
            made(9, &[("postgres-1", critical)]),
        ),
        (
            ServiceName::whole("redis"),
            made(71, &one("redis-1", "10.0.2.2:6379")),
        ),
        (
            ServiceName::part("www", "world.dev"),
            made(5, &one("www-1", "10.0.2.1:80")),
        ),
        (ServiceName::whole("mail"), made(90, &[])),
    ];
    let source = |age, error: Option<&str>| Source {
        updated: Some(SystemTime::now() - Duration::from_secs(age)),
        error: error.map(str::to_owned),
    };
    Snapshot {
        number: 1,
        answered: true,
        stopgap: false,
        complete: true,
        services: services
            .into_iter()
            .map(|(name, service)| (name, service.into()))
            .collect(),
        problems: vec![Problem::new(
            "name shop.example",
            "claimed by service redis and by service shop_api; shop_api answers; take the alias from one of the two",
        )],
        sources: [
            ("consul".to_owned(), source(192, Some("no leader"))),
            ("file".to_owned(), source(2, None)),
        ]
        .into(),
    }
}

fn made(last: u8, backends: &[(&'static str, Backend)]) -> Service {
    let mut made = service(Some(Ipv4Addr::new(198, 18, 12, last)));
    let named = backends.iter();
    made.backends = named
        .map(|(id, backend)| (InstanceKey::new("dock-1", *id), backend.clone()))
        .collect();
    made
}

fn backend(address: &str) -> Backend {
    let mut all = service(None).backends.into_values();
    let mut backend = all.next().unwrap();
    backend.address = address.parse().unwrap();
    backend.probe.since = SystemTime::now() - Duration::from_secs(7400);
    check(
        &mut backend,
        SourceHealth::Passing,
        "HTTP on port 80",
        "HTTP GET /: 200 OK",
    );
    backend
}

fn check(backend: &mut Backend, health: SourceHealth, name: &str, output: &str) {
    backend.source = health;
    backend.checks = vec![Check {
        name: name.to_owned(),
        health,
        output: output.to_owned(),
    }];
}

/// Counts that rise with time, at a pace of each service's own.
pub(super) fn counting() -> impl Fn() -> Stats + Send + 'static {
    let start = Instant::now();
    move || {
        let seconds = start.elapsed().as_secs_f64();
        let services = [
            count("www_hello", &["web-1", "web-2"], 90.0, seconds),
            count("shop_api", &["shop-1", "shop-2", "shop-3"], 340.0, seconds),
            count("redis", &["redis-1"], 25.0, seconds),
        ];
        Stats {
            services: services.into(),
            programs: ["connect4", "connect6", "sock_ops"]
                .map(|hook| (hook, true))
                .into(),
            ..Stats::default()
        }
    }
}

fn count(name: &str, ids: &[&str], pace: f64, seconds: f64) -> (ServiceName, ServiceStats) {
    // A wave on a steady flow, so that graphs have a shape.
    let waved = seconds + 0.7 * (seconds * 1.6).sin();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small count that is not negative"
    )]
    let flows = (40_000.0 + pace * waved.max(0.0)) as u64;
    let mut all = ServiceStats {
        flows,
        active: flows % 17 + 20,
        failed: flows / 9_000,
        ..ServiceStats::default()
    };
    let each = flows / ids.len() as u64;
    for id in ids {
        let mut handshakes = Handshakes::default();
        handshakes.buckets[1] = each * 97 / 100;
        handshakes.buckets[4] = each - handshakes.buckets[1];
        handshakes.micros = each * 130;
        all.handshakes += handshakes;
        let backend = BackendStats {
            active: all.active / ids.len() as u64,
            handshakes,
            ..BackendStats::default()
        };
        all.backends
            .insert(InstanceKey::new("dock-1", *id), backend);
    }
    (ServiceName::whole(name), all)
}

/// What the front counted for `www_hello`.
pub(super) fn front(requests: u64) -> FrontStats {
    let request = |class: &str, count| TerminationCount {
        service: "www_hello".to_owned(),
        class: class.to_owned(),
        reason: Reason::Ok,
        count,
    };
    let mut buckets = vec![0; ServiceTraffic::BOUNDS.len() + 1];
    (buckets[1], buckets[5]) = (requests * 98 / 100, requests * 2 / 100);
    FrontStats {
        terminations: vec![request("2xx", requests), request("5xx", requests / 400)],
        traffic: vec![ServiceTraffic {
            service: "www_hello".to_owned(),
            buckets,
            received: requests * 420,
            sent: requests * 6_100,
            ..ServiceTraffic::default()
        }],
        ..FrontStats::default()
    }
}
