//! What the stages show on the page, in `status` and in the metrics.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use lb_agent::{
    admin::{self, Component, Figure, Figures, Mark, Sample},
    catalog::Problem,
    clients::Clients,
    docker, front, reconcile, registrar, removal,
    routes::{RouteConfig, Routes},
    snapshot::Snapshot,
};
use lb_front::{FrontStats, ServiceStats, ServiceTraffic};
use tokio::sync::watch;

pub(super) fn host_names(
    snapshot: Option<&Snapshot>,
    config: &RouteConfig,
) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(snapshot) = snapshot {
        let (routes, _) = Routes::new(snapshot, config);
        for (host, label) in routes.hosts() {
            names.entry(label.to_owned()).or_default().push(host);
        }
    }
    names
}

pub(super) fn front_line(stats: Option<&FrontStats>) -> Component {
    match stats {
        None => Component::new("front", Mark::Warning, "has not reported yet"),
        Some(stats) => {
            let served: u64 = stats.requests.iter().map(|requests| requests.count).sum();
            let FrontStats {
                pid, workers, open, ..
            } = stats;
            let mut detail = format!(
                "process {pid}, {workers} workers, {open} connections open, {served} requests"
            );
            let queued: u64 = stats.services.iter().map(|service| service.queued).sum();
            if queued > 0 {
                detail += &format!(", {queued} waiting for a place");
            }
            let ejected = stats.services.iter().flat_map(|service| {
                let name = &service.service;
                let ejected = service.ejected.iter();
                ejected.map(move |it| format!("{} of {name} ({})", it.address, it.why))
            });
            let ejected: Vec<_> = ejected.collect();
            let mark = match ejected.is_empty() {
                true => Mark::Ok,
                false => Mark::Warning,
            };
            if let Some(first) = ejected.first() {
                detail += &format!("; ejected: {first}");
            }
            if ejected.len() > 1 {
                detail += &format!(" and {} more", ejected.len() - 1);
            }
            Component::new("front", mark, detail)
        }
    }
}

pub(super) fn certificates_line(in_use: &[front::InUse]) -> Component {
    let Some(first) = in_use.iter().min_by_key(|it| it.until) else {
        return Component::new("tls", Mark::Error, "no certificate: nobody can connect");
    };
    let left = first
        .until
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    let mark = match left.is_zero() {
        true => Mark::Error,
        false => Mark::Ok,
    };
    let many = admin::text::count(in_use.len(), "certificate");
    let detail = match left.is_zero() {
        true => format!("{many}; that of {} has expired", first.name),
        false => format!(
            "{many}; that of {} expires first, in {}",
            first.name,
            admin::text::duration(left)
        ),
    };
    Component::new("tls", mark, detail)
}

/// Until when each certificate is good.
pub(super) fn certificates_figures(
    in_use: watch::Receiver<Vec<front::InUse>>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let in_use = in_use.borrow();
        // Several may be for the same name: the first to end counts.
        let mut by_name = BTreeMap::new();
        for it in in_use.iter() {
            let until = by_name.entry(&it.name).or_insert(it.until);
            *until = (*until).min(it.until);
        }
        let samples = by_name.into_iter().map(|(name, until)| {
            let since = until
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            Sample::labelled([("name", name)], since.as_secs_f64())
        });
        vec![Figure::gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When a certificate of the front expires, in seconds since 1970",
            samples.collect(),
        )]
    })
}

pub(super) fn registrar_line(status: watch::Receiver<registrar::Status>) -> admin::ComponentLine {
    Box::new(move || {
        let status = status.borrow();
        let host = status.host.as_deref().unwrap_or("this host");
        let services = status.services;
        let left_out = match status.left_out {
            0 => String::new(),
            left_out => format!(
                "; {} without a registered port: `lb-agent register --dry-run` says why",
                admin::text::count(left_out, "container")
            ),
        };
        let (mark, detail) = match (&status.error, status.synced) {
            (Some(error), _) => (Mark::Error, error.clone()),
            (None, None) => (Mark::Warning, "waits for the Docker Engine".to_owned()),
            (None, Some(_)) if !status.problems.is_empty() => (
                Mark::Warning,
                format!(
                    "services of {host}: {services}, problems: {}{left_out}",
                    status.problems.len()
                ),
            ),
            (None, Some(_)) => (
                Mark::Ok,
                format!("services of {host} in Consul: {services}{left_out}"),
            ),
        };
        Component::new("registrar", mark, detail)
    })
}

pub(super) fn dns_line(sockets: &[UdpSocket]) -> admin::ComponentLine {
    let addresses: Vec<_> = sockets
        .iter()
        .filter_map(|socket| socket.local_addr().ok())
        .map(|address| address.to_string())
        .collect();
    let detail = format!("listens on {}", addresses.join(", "));
    Box::new(move || Component::new("dns", Mark::Ok, detail.clone()))
}

pub(super) fn docker_line(engine: &docker::Engine) -> Component {
    let (mark, detail) = match (&engine.error, engine.containers.as_deref()) {
        (Some(error), _) => (Mark::Warning, error.clone()),
        (None, None) => (Mark::Warning, "the engine has not answered yet".to_owned()),
        (None, Some(containers)) => (Mark::Ok, admin::text::count(containers.len(), "container")),
    };
    Component::new("docker", mark, detail)
}

pub(super) fn clients_line(clients: Option<&Clients>, problems: &[Problem]) -> Component {
    let (mark, detail) = match (clients, problems) {
        (None, _) => (Mark::Warning, "waits for the Docker Engine".to_owned()),
        (Some(clients), problems) => {
            let known = match clients.by_cookie.len() {
                1 => "1 container is known".to_owned(),
                count => format!("{count} containers are known"),
            };
            match problems.len() {
                0 => (Mark::Ok, known),
                count => (Mark::Warning, format!("{known}, problems: {count}")),
            }
        }
    };
    Component::new("clients", mark, detail)
}

pub(super) fn clients_figures(
    clients: watch::Receiver<Option<Arc<Clients>>>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let Some(clients) = clients.borrow().clone() else {
            return Vec::new();
        };
        let known = clients.by_cookie.len();
        vec![Figure::gauge(
            "clients",
            "Network namespaces of containers whose connections are told from the host's.",
            vec![Sample::plain(for_people(known as u64))],
        )]
    })
}

pub(super) fn docker_figures(
    engine: watch::Receiver<docker::Engine>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let engine = engine.borrow();
        let containers = engine.containers.as_ref().map_or(0, |all| all.len());
        let up = engine.containers.is_some() && engine.error.is_none();
        let gauge = |name, help, value: usize| {
            Figure::gauge(name, help, vec![Sample::plain(for_people(value as u64))])
        };
        vec![
            gauge(
                "docker_up",
                "Whether the Docker Engine is followed without trouble.",
                usize::from(up),
            ),
            gauge(
                "docker_containers",
                "Containers of the Docker Engine, those that ended included.",
                containers,
            ),
        ]
    })
}

pub(super) fn reconcile_figures(
    metrics: Arc<reconcile::Metrics>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        vec![
            Figure::counter(
                "reconcile_operations",
                "Map writes by result.",
                vec![
                    Sample::labelled([("result", "ok")], value(&metrics.operations)),
                    Sample::labelled([("result", "failed")], value(&metrics.failures)),
                ],
            ),
            Figure::gauge(
                "reconcile_duration_seconds",
                "Time from the newest snapshot to its last map write.",
                vec![Sample::plain(value(&metrics.last_duration_micros) / 1e6)],
            ),
            Figure::counter(
                "suspicions",
                "Connects that the kernel saw fail at a backend.",
                vec![Sample::plain(value(&metrics.suspicions))],
            ),
        ]
    })
}

pub(super) fn routes_figures(
    metrics: Arc<front::Metrics>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        vec![
            Figure::counter(
                "routes_changes",
                "Changes of the routes that the front has come to follow.",
                vec![Sample::plain(value(&metrics.changes))],
            ),
            Figure::gauge(
                "routes_duration_seconds",
                "Time from the newest change of the routes until requests followed it.",
                vec![Sample::plain(value(&metrics.last_duration_micros) / 1e6)],
            ),
        ]
    })
}

pub(super) fn removal_figures(
    metrics: Arc<removal::Metrics>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        vec![
            Figure::counter(
                "drain_cut_flows",
                "Flows cut because their backend was taken out longer ago than they may go on.",
                vec![Sample::plain(value(&metrics.cut))],
            ),
            Figure::counter(
                "drain_cut_failures",
                "Times that the flows to a backend could not be cut.",
                vec![Sample::plain(value(&metrics.failures))],
            ),
        ]
    })
}

pub(super) fn front_figures(
    stats: watch::Receiver<Option<FrontStats>>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let Some(stats) = stats.borrow().clone() else {
            return Vec::new();
        };
        let (mut answered, mut ended) = (BTreeMap::new(), BTreeMap::new());
        for requests in &stats.requests {
            let service = shown(&requests.service);
            // The front counts by class and reason together: each is a sum over the other.
            *answered.entry((service, &*requests.class)).or_default() += requests.count;
            *ended
                .entry((service, requests.reason.as_str()))
                .or_default() += requests.count;
        }
        let (mut busy, mut idle, mut in_flight) = (0, 0, 0);
        for backend in &stats.backends {
            busy += backend.open.saturating_sub(backend.idle);
            idle += backend.idle;
            in_flight += backend.in_flight;
        }
        let services = |value: &dyn Fn(&ServiceStats) -> u64| {
            let sample = |service: &ServiceStats| {
                let label = [("service", service.service.as_str())];
                Sample::labelled(label, for_people(value(service)))
            };
            stats.services.iter().map(sample).collect()
        };
        let rejected = stats
            .rejected
            .iter()
            .map(|(reason, count)| Sample::labelled([("reason", reason)], for_people(*count)));
        vec![
            Figure::counter(
                "http_requests",
                "Requests by service and class of status.",
                by_service("code", &answered),
            ),
            Figure::counter(
                "http_terminations",
                "Requests by service and why they ended.",
                by_service("reason", &ended),
            ),
            Figure::histogram(
                "http_request_duration_seconds",
                "Time from the head of a request to the end of its answer, by service; without tunnels.",
                stats.traffic.iter().map(duration).collect(),
            ),
            Figure::counter(
                "http_received_bytes",
                "Bytes of requests' bodies, by service.",
                bytes(&stats.traffic, |it| it.received),
            ),
            Figure::counter(
                "http_sent_bytes",
                "Bytes of answers' bodies, by service.",
                bytes(&stats.traffic, |it| it.sent),
            ),
            Figure::counter(
                "http_log_lost_lines",
                "Lines of the access log that nobody took in time, or that could not be written.",
                vec![Sample::plain(for_people(stats.log_lost))],
            ),
            Figure::counter(
                "http_rejected",
                "Streams refused before there was a request.",
                rejected.collect(),
            ),
            Figure::counter(
                "http_failures",
                "Attempts that ended in a gateway error, the backend's own ones included.",
                vec![Sample::plain(for_people(stats.failures))],
            ),
            Figure::counter(
                "http_retries",
                "Attempts after a failed one of the same request.",
                vec![Sample::plain(for_people(stats.retries))],
            ),
            Figure::gauge(
                "http_client_connections",
                "Client connections open now.",
                vec![Sample::plain(for_people(stats.open))],
            ),
            Figure::counter(
                "http_backend_connections_opened",
                "Connections opened to backends.",
                vec![Sample::plain(for_people(stats.connects))],
            ),
            Figure::counter(
                "http_backend_connections_reused",
                "Requests sent on a connection that had carried another.",
                vec![Sample::plain(for_people(stats.reused))],
            ),
            Figure::gauge(
                "http_backend_connections",
                "Connections to backends.",
                vec![
                    Sample::labelled([("state", "busy")], for_people(busy)),
                    Sample::labelled([("state", "idle")], for_people(idle)),
                ],
            ),
            Figure::gauge(
                "http_backend_requests",
                "Requests that backends have not answered to the end.",
                vec![Sample::plain(for_people(in_flight))],
            ),
            Figure::gauge(
                "http_queued_requests",
                "Requests that wait for a place at one of a service's backends.",
                services(&|service| service.queued),
            ),
            Figure::gauge(
                "http_ejected_backends",
                "Backends that are avoided because requests to them failed.",
                services(&|service| service.ejected.len() as u64),
            ),
            Figure::counter(
                "http_ejections",
                "Times that a worker began to avoid a backend.",
                services(&|service| service.ejections),
            ),
        ]
    })
}

/// What the service called `label` is called in metrics.
fn shown(label: &str) -> &str {
    match label {
        "" => "_unmatched",
        label => label,
    }
}

fn duration(traffic: &ServiceTraffic) -> Sample {
    let bounds = ServiceTraffic::BOUNDS.map(|micros| for_people(micros) / 1e6);
    let bounds = bounds.into_iter().chain([f64::INFINITY]);
    let buckets = bounds.zip(traffic.buckets.iter().copied()).collect();
    let service = shown(&traffic.service);
    let sum = for_people(traffic.micros) / 1e6;
    Sample::labelled([("service", service)], sum).in_buckets(buckets)
}

fn bytes(all: &[ServiceTraffic], of: fn(&ServiceTraffic) -> u64) -> Vec<Sample> {
    let sample = |it: &ServiceTraffic| {
        Sample::labelled([("service", shown(&it.service))], for_people(of(it)))
    };
    all.iter().map(sample).collect()
}

/// One sample for each service and value of the label `other`.
fn by_service(other: &'static str, counts: &BTreeMap<(&str, &str), u64>) -> Vec<Sample> {
    let sample = |(&(service, value), &count): (&(&str, &str), &u64)| {
        Sample::labelled([("service", service), (other, value)], for_people(count))
    };
    counts.iter().map(sample).collect()
}

/// A count as metrics have it.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn for_people(count: u64) -> f64 {
    count as f64
}

/// The same of one that a stage goes on counting.
fn value(count: &AtomicU64) -> f64 {
    for_people(count.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lb_front::{BackendStats, Ejected, Reason, RequestCount};
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

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
        let requests = ways.map(|(service, class, reason, count)| RequestCount {
            service: service.to_owned(),
            class: class.to_owned(),
            reason,
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
                r#"lb_http_requests_total{service="_gone",code="2xx"} 4.0"#,
                r#"lb_http_requests_total{service="_unmatched",code="4xx"} 2.0"#,
                r#"lb_http_requests_total{service="_unmatched",code="5xx"} 1.0"#,
                r#"lb_http_requests_total{service="web",code="2xx"} 24.0"#,
                r#"lb_http_requests_total{service="web",code="5xx"} 192.0"#,
                r#"lb_http_requests_total{service="web",code="none"} 32.0"#,
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
}
