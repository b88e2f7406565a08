//! What the front's figures look like.

use std::collections::BTreeSet;

use lb_front::{BackendStats, Ejected, Reason, RequestCount, TerminationCount};
use prometheus_client::{encoding::text, registry::Registry};

use lb_agent::{admin::Mark, packet};
use lb_front::{FrontStats, ServiceStats, ServiceTraffic};
use tokio::sync::watch;

use super::{front_figures, front_line, packet_line};

fn backend(port: u16, open: u64, idle: u64) -> BackendStats {
    BackendStats {
        address: ([10, 0, 0, 1], port).into(),
        in_flight: 3,
        open,
        idle,
        failures: 0,
        retries: 0,
        requests: 0,
        errors: 0,
        buckets: Vec::new(),
        micros: 0,
        received: 0,
        sent: 0,
    }
}

/// A service with requests that wait, and an ejected backend.
fn waiting() -> ServiceStats {
    ServiceStats {
        service: "web".to_owned(),
        queued: 8,
        ejections: 9,
        ejected: vec![Ejected {
            address: ([10, 0, 0, 1], 81).into(),
            workers: 2,
            until: 1_700_000_000,
            why: "connect_refused".to_owned(),
        }],
    }
}

#[test]
fn the_line_of_the_front_names_who_is_ejected() {
    let mut stats = FrontStats {
        pid: 1,
        workers: 2,
        ..FrontStats::default()
    };
    let usual = "process 1, 2 workers, 0 connections open, 0 requests";
    let line = front_line(Some(&stats));
    assert_eq!((line.mark, line.detail.as_str()), (Mark::Ok, usual));
    stats.services = vec![waiting()];
    let line = front_line(Some(&stats));
    let ejected = "8 waiting for a place; ejected: 10.0.0.1:81 of web (connect_refused)";
    assert_eq!(line.mark, Mark::Warning);
    assert_eq!(line.detail, format!("{usual}, {ejected}"));
    stats.services.push(waiting());
    let line = front_line(Some(&stats));
    assert!(line.detail.ends_with(" and 1 more"), "{}", line.detail);
}

#[test]
fn no_two_samples_of_the_front_have_one_name_and_the_same_labels() {
    let ways = [
        ("", "5xx", Reason::NoRoute, 1),
        ("", "4xx", Reason::BadRequest, 2),
        ("_gone", "2xx", Reason::Ok, 4),
        ("web", "2xx", Reason::Ok, 8),
        ("web", "2xx", Reason::ClientAbort, 16),
        ("web", "none", Reason::ClientAbort, 32),
        ("web", "5xx", Reason::NoBackend, 64),
        ("web", "5xx", Reason::Ok, 128),
    ];
    let terminations = ways.map(|(service, class, reason, count)| TerminationCount {
        service: service.to_owned(),
        class: class.to_owned(),
        reason,
        count,
    });
    let ways = [
        ("", "4xx", "GET", 2),
        ("", "5xx", "other", 1),
        ("_gone", "2xx", "GET", 4),
        ("web", "2xx", "GET", 24),
        ("web", "5xx", "PUT", 192),
        ("web", "none", "GET", 32),
    ];
    let requests = ways.map(|(service, class, method, count)| RequestCount {
        service: service.to_owned(),
        class: class.to_owned(),
        method: method.to_owned(),
        version: "1.1".to_owned(),
        count,
    });
    let mut buckets = vec![0; ServiceTraffic::BOUNDS.len() + 1];
    (buckets[0], buckets[13]) = (2, 1);
    let traffic = ServiceTraffic {
        service: "web".to_owned(),
        buckets,
        micros: 11_500_000,
        received: 6,
        sent: 8,
    };
    let stats = FrontStats {
        open: 3,
        connects: 5,
        reused: 6,
        failures: 8,
        retries: 7,
        backends: vec![backend(81, 4, 1), backend(82, 2, 2)],
        services: vec![waiting()],
        requests: requests.into(),
        terminations: terminations.into(),
        traffic: vec![traffic],
        log_lost: 11,
        rejected: [("http_2".to_owned(), 9)].into(),
        ..FrontStats::default()
    };
    let mut registry = Registry::with_prefix("lb");
    let figures = front_figures(watch::Sender::new(Some(stats)).subscribe());
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names = samples.iter().map(|line| line.rsplit_once(' ').unwrap().0);
    let names: BTreeSet<_> = names.collect();
    assert_eq!(names.len(), samples.len(), "{text}");
    let (times, samples): (Vec<_>, Vec<_>) = samples
        .into_iter()
        .partition(|line| line.contains("duration"));
    assert_eq!(times.len(), ServiceTraffic::BOUNDS.len() + 3);
    for time in [
        r#"lb_http_request_duration_seconds_bucket{le="0.001",service="web"} 2"#,
        r#"lb_http_request_duration_seconds_bucket{le="10.0",service="web"} 2"#,
        r#"lb_http_request_duration_seconds_bucket{le="+Inf",service="web"} 3"#,
        r#"lb_http_request_duration_seconds_sum{service="web"} 11.5"#,
        r#"lb_http_request_duration_seconds_count{service="web"} 3"#,
    ] {
        assert!(times.contains(&time), "{times:?}");
    }
    assert_eq!(
        samples,
        [
            r#"lb_http_requests_total{service="_unmatched",code="4xx",method="GET",version="1.1"} 2.0"#,
            r#"lb_http_requests_total{service="_unmatched",code="5xx",method="other",version="1.1"} 1.0"#,
            r#"lb_http_requests_total{service="_gone",code="2xx",method="GET",version="1.1"} 4.0"#,
            r#"lb_http_requests_total{service="web",code="2xx",method="GET",version="1.1"} 24.0"#,
            r#"lb_http_requests_total{service="web",code="5xx",method="PUT",version="1.1"} 192.0"#,
            r#"lb_http_requests_total{service="web",code="none",method="GET",version="1.1"} 32.0"#,
            r#"lb_http_terminations_total{service="_gone",reason="ok"} 4.0"#,
            r#"lb_http_terminations_total{service="_unmatched",reason="bad_request"} 2.0"#,
            r#"lb_http_terminations_total{service="_unmatched",reason="no_route"} 1.0"#,
            r#"lb_http_terminations_total{service="web",reason="client_abort"} 48.0"#,
            r#"lb_http_terminations_total{service="web",reason="no_backend"} 64.0"#,
            r#"lb_http_terminations_total{service="web",reason="ok"} 136.0"#,
            r#"lb_http_received_bytes_total{service="web"} 6.0"#,
            r#"lb_http_sent_bytes_total{service="web"} 8.0"#,
            "lb_http_log_lost_lines_total 11.0",
            r#"lb_http_rejected_total{reason="http_2"} 9.0"#,
            "lb_http_failures_total 8.0",
            "lb_http_retries_total 7.0",
            "lb_http_client_connections 3.0",
            "lb_http_backend_connections_opened_total 5.0",
            "lb_http_backend_connections_reused_total 6.0",
            r#"lb_http_backend_connections{state="busy"} 3.0"#,
            r#"lb_http_backend_connections{state="idle"} 3.0"#,
            "lb_http_backend_requests 6.0",
            r#"lb_http_queued_requests{service="web"} 8.0"#,
            r#"lb_http_ejected_backends{service="web"} 1.0"#,
            r#"lb_http_ejections_total{service="web"} 9.0"#,
        ]
    );
}

#[test]
fn the_line_of_the_packet_path_says_how_its_devices_are_served() {
    let device = |name: &str, role: &str, hooks: &[(&str, Option<bool>)]| packet::Device {
        name: name.to_owned(),
        role: role.to_owned(),
        hooks: hooks
            .iter()
            .map(|(how, in_place)| packet::Hook {
                program: format!("on_{how}"),
                how: (*how).to_owned(),
                in_place: *in_place,
            })
            .collect(),
        fallback: None,
        error: None,
    };
    let line = |seen: &packet::Seen| {
        let line = packet_line(seen);
        (line.mark, line.detail)
    };
    let ok = |detail: &str| (Mark::Ok, detail.to_owned());
    let mut seen = packet::Seen::default();
    assert_eq!(line(&seen), ok("none of its devices is there"));
    let card = device(
        "eth0",
        "card",
        &[("native", Some(true)), ("tcx", Some(true))],
    );
    let client = device("tap0", "client", &[("tcx", Some(true)), ("tcx", None)]);
    seen.devices = vec![card.clone(), client.clone(), client.clone()];
    seen.maps = [("FLOWS4", (1, 9)), ("TARGETS", (1, 100))].into();
    let all = "card eth0: native, tcx; 2 devices of clients: tcx; fullest map FLOWS4 at 11 %";
    assert_eq!(line(&seen), ok(all));

    seen.maps = [("FLOWS4", (90, 100))].into();
    assert_eq!(line(&seen).0, Mark::Warning);
    seen.maps.clear();
    let fallback = packet::Device {
        fallback: Some("its driver does not run XDP: not supported".to_owned()),
        ..device("eth1", "card", &[("generic", Some(true))])
    };
    let missing = packet::Device {
        error: Some("there is no such device yet".to_owned()),
        ..device("eth2", "card", &[])
    };
    seen.devices = vec![fallback, missing];
    let detail = "card eth2: there is no such device yet; card eth1: generic (its driver does not run XDP: not supported)";
    assert_eq!(line(&seen), (Mark::Warning, detail.to_owned()));
    seen.devices = vec![device("tap0", "client", &[("tcx", Some(false))])];
    let detail = "on_tcx is not attached to tap0; 1 device of clients: tcx";
    assert_eq!(line(&seen), (Mark::Error, detail.to_owned()));
    seen.error = Some("the kernel does not take the programs".to_owned());
    let detail = "the kernel does not take the programs".to_owned();
    assert_eq!(line(&seen), (Mark::Error, detail));
}
