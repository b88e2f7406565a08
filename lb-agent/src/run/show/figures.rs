//! What the stages count, for the metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use lb_agent::{
    admin::{Figure, Figures, Sample},
    clients::Clients,
    docker, front, reconcile, removal,
};
use lb_front::{FrontStats, ServiceStats, ServiceTraffic};
use tokio::sync::watch;

/// Until when each certificate is good.
pub(crate) fn certificates_figures(
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

pub(crate) fn clients_figures(
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

pub(crate) fn docker_figures(
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

pub(crate) fn reconcile_figures(
    metrics: Arc<reconcile::Metrics>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let (micros, buckets) = metrics.durations.read();
        vec![
            Figure::counter(
                "reconcile_operations",
                "Map writes by result.",
                vec![
                    Sample::labelled([("result", "ok")], value(&metrics.operations)),
                    Sample::labelled([("result", "failed")], value(&metrics.failures)),
                ],
            ),
            Figure::histogram(
                "reconcile_duration_seconds",
                "Time from a snapshot to its last map write.",
                vec![Sample::plain(for_people(micros) / 1e6).in_buckets(buckets)],
            ),
            Figure::gauge(
                "reconcile_pending",
                "Endpoints and backends where the maps may not hold yet what is wanted.",
                vec![Sample::plain(value(&metrics.pending))],
            ),
            Figure::counter(
                "suspicions",
                "Connects that the kernel saw fail at a backend.",
                vec![Sample::plain(value(&metrics.suspicions))],
            ),
        ]
    })
}

pub(crate) fn routes_figures(
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

pub(crate) fn removal_figures(
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

pub(crate) fn front_figures(
    stats: watch::Receiver<Option<FrontStats>>,
) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
    Figures::new(move || {
        let Some(stats) = stats.borrow().clone() else {
            return Vec::new();
        };
        let answered = stats.requests.iter().map(|requests| {
            let labels = [
                ("service", shown(&requests.service)),
                ("code", &*requests.class),
                ("method", &*requests.method),
                ("version", &*requests.version),
            ];
            Sample::labelled(labels, for_people(requests.count))
        });
        // The classes of one end together.
        let mut ended = BTreeMap::new();
        for it in &stats.terminations {
            let kind = (shown(&it.service), it.reason.as_str());
            *ended.entry(kind).or_default() += it.count;
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
                "Requests by service, class of status, method and version of HTTP.",
                answered.collect(),
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
pub(super) fn for_people(count: u64) -> f64 {
    count as f64
}

/// The same of one that a stage goes on counting.
pub(super) fn value(count: &AtomicU64) -> f64 {
    for_people(count.load(Ordering::Relaxed))
}
