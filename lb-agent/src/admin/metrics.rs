//! The report as metrics. Pure but for the final text.

mod packets;
mod per_backend;

use std::collections::BTreeSet;

use lb_common::Refusal;
use prometheus_client::{encoding::text, registry::Registry};

use self::per_backend::Chosen;
use super::{
    compose::age,
    figures::{Figure, Figures, Sample},
    report::{Report, Service, ServiceState},
};
use crate::{catalog::InstanceKey, snapshot::State, stats::Handshakes};

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The kernel, in maps that outlive the agent; and the report's gauges.
    Kernel,
    /// The agent's process.
    Process,
    /// The front's process.
    Front,
    /// The agent's other stages.
    Stages,
}

/// All metrics as OpenMetrics, and who counts which.
#[derive(Debug, Default)]
pub(super) struct Texts {
    text: String,
    /// Where the part of each ends.
    ends: Vec<(Source, usize)>,
}

impl Texts {
    /// The figures of the report, of the agent's process and of its front's, and what the other stages registered.
    pub(super) fn encode(
        report: &Report,
        per_backend: bool,
        process: Vec<Figure>,
        front: Vec<Figure>,
        others: &Registry,
    ) -> Result<Self, std::fmt::Error> {
        let mut texts = Self::default();
        texts.add(Source::Kernel, &registry("", figures(report)))?;
        texts.add(Source::Process, &registry("", process))?;
        texts.add(Source::Front, &registry("lb_front", front))?;
        if per_backend {
            let chosen = Chosen::of(report);
            texts.add(Source::Kernel, &registry("", chosen.flows()))?;
            texts.add(Source::Front, &registry("", chosen.requests()))?;
        }
        texts.add(Source::Stages, others)?;
        Ok(texts)
    }

    fn add(&mut self, source: Source, registry: &Registry) -> std::fmt::Result {
        text::encode_registry(&mut self.text, registry)?;
        self.ends.push((source, self.text.len()));
        Ok(())
    }

    /// The text of `/metrics`.
    pub(super) fn whole(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    /// What each of them counts.
    pub(super) fn by_source(&self) -> impl Iterator<Item = (Source, &str)> + Send {
        let mut begin = 0;
        self.ends.iter().map(move |&(source, end)| {
            let text = &self.text[begin..end];
            begin = end;
            (source, text)
        })
    }
}

fn registry(prefix: &str, figures: Vec<Figure>) -> Registry {
    let mut registry = match prefix {
        "" => Registry::default(),
        prefix => Registry::with_prefix(prefix),
    };
    registry.register_collector(Box::new(Figures::new(move || figures.clone())));
    registry
}

/// What is not known has no sample: absent is not zero.
fn figures(report: &Report) -> Vec<Figure> {
    let services = report.services.as_deref();
    let mut figures = about_the_agent(report);
    figures.extend(services.into_iter().flat_map(about_services));
    let unknown = report.data_plane.as_ref().map(|plane| plane.unknown);
    figures.extend(
        services
            .into_iter()
            .flat_map(|all| about_flows(all, unknown)),
    );
    figures.extend(about_the_data_plane(report));
    figures.extend(packets::figures(report));
    figures
}

fn about_the_agent(report: &Report) -> Vec<Figure> {
    let build = [
        ("version", report.version.as_str()),
        ("revision", option_env!("LB_REVISION").unwrap_or("unknown")),
    ];
    let up = |(name, source): (&String, &super::report::Source)| {
        let up = source.updated_unix.is_some() && source.error.is_none();
        Sample::labelled([("source", name)], truth(up))
    };
    let data_age = |(name, source): (&String, &super::report::Source)| {
        let updated = source.updated_unix?;
        let age = age(report.now_unix, updated).as_secs_f64();
        Some(Sample::labelled([("source", name)], age))
    };
    let refused = |kind: &'static str| {
        let problems = report.problems.iter();
        let of_kind = problems.filter(|problem| self::kind(&problem.subject) == kind);
        Sample::labelled([("kind", kind)], length(of_kind.count()))
    };
    let kinds = KINDS.iter().chain([&OTHER]).map(|kind| refused(kind));
    let refused = if report.services.is_some() {
        kinds.collect()
    } else {
        Vec::new()
    };
    vec![
        Figure::gauge(
            "lb_build_info",
            "Always 1; the labels say which build runs.",
            vec![Sample::labelled(build, 1.0)],
        ),
        Figure::gauge(
            "lb_start_time_seconds",
            "When the agent started, in seconds since 1970.",
            vec![Sample::plain(number(report.started_unix))],
        ),
        Figure::gauge(
            "lb_ready",
            "1 while the agent is ready, else 0.",
            vec![Sample::plain(truth(report.ready))],
        ),
        Figure::gauge(
            "lb_source_up",
            "1 while the discovery source answers, else 0.",
            report.sources.iter().map(up).collect(),
        ),
        Figure::gauge(
            "lb_source_data_age_seconds",
            "Age of the discovery source's last good answer.",
            report.sources.iter().filter_map(data_age).collect(),
        ),
        Figure::gauge(
            "lb_config_refused_entries",
            "Registered or configured things that could not be used, by kind.",
            refused,
        ),
    ]
}

fn about_services(services: &[Service]) -> Vec<Figure> {
    let by_state = ServiceState::ALL.map(|state| {
        let within = services.iter().filter(|service| service.state == state);
        Sample::labelled([("state", state.as_str())], length(within.count()))
    });
    // An instance is in a service and in each tagged part of it; here it counts once.
    let instances: BTreeSet<(&str, &InstanceKey, State)> = services
        .iter()
        .flat_map(|service| {
            let name = service.service.as_str();
            let backends = service.backends.iter();
            backends.map(move |backend| (name, &backend.key, backend.state))
        })
        .collect();
    let backends = STATES.map(|state| {
        let within = instances.iter().filter(|(_, _, its)| *its == state);
        Sample::labelled([("state", state.as_str())], length(within.count()))
    });
    let of_each = |service: &Service| {
        STATES.map(|state| {
            let within = service.backends.iter().filter(|b| b.state == state);
            let labels = [
                ("service", service.label.as_str()),
                ("state", state.as_str()),
            ];
            Sample::labelled(labels, length(within.count()))
        })
    };
    vec![
        Figure::gauge(
            "lb_services",
            "Services by whether they serve.",
            by_state.into(),
        ),
        Figure::gauge(
            "lb_backends",
            "Instances by combined state.",
            backends.into(),
        ),
        Figure::gauge(
            "lb_service_backends",
            "Backends of each service by combined state.",
            services.iter().flat_map(of_each).collect(),
        ),
    ]
}

fn about_flows(services: &[Service], unknown: Option<u64>) -> Vec<Figure> {
    const SOCKET: (&str, &str) = ("path", "socket");
    let counted = services
        .iter()
        .filter_map(|service| Some((service.label.as_str(), service.flows?)));
    let (mut total, mut active, mut refused, mut failed) = (vec![], vec![], vec![], vec![]);
    for (label, flows) in counted {
        let service = ("service", label);
        total.push(Sample::labelled([service, SOCKET], number(flows.total)));
        active.push(Sample::labelled([service, SOCKET], number(flows.active)));
        for (reason, count) in flows.refusals.by_reason() {
            let why = ("reason", reason);
            refused.push(Sample::labelled([service, why], number(count)));
        }
        failed.push(Sample::labelled([service], number(flows.failed)));
    }
    let why = ("reason", Refusal::Unknown.as_str());
    refused.extend(unknown.map(|count| Sample::labelled([why], number(count))));
    let connects = services.iter().filter_map(|service| {
        let connects = service.connects.as_ref()?;
        let sum = number(connects.sum_microseconds) / 1e6;
        let bounds = Handshakes::bounds().map(|micros| number(micros) / 1e6);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets = bounds.zip(connects.buckets).collect();
        let labels = [("service", service.label.as_str())];
        Some(Sample::labelled(labels, sum).in_buckets(buckets))
    });
    vec![
        Figure::histogram(
            "lb_connect_duration_seconds",
            "Time of the TCP handshakes with the backends of a service.",
            connects.collect(),
        ),
        Figure::counter("lb_flows", "Flows that were given a backend.", total),
        Figure::gauge("lb_flows_active", "Open flows.", active),
        Figure::counter(
            "lb_refused_flows",
            "Flows refused, by reason; those to what nobody has are of no service.",
            refused,
        ),
        Figure::counter(
            "lb_backend_connect_failures",
            "Connects that failed at the backend.",
            failed,
        ),
    ]
}

fn about_the_data_plane(report: &Report) -> Vec<Figure> {
    let Some(plane) = &report.data_plane else {
        return Vec::new();
    };
    let entries = plane.maps.iter();
    let entries = entries.map(|(map, fill)| Sample::labelled([("map", map)], number(fill.entries)));
    let room = plane.maps.iter();
    let room = room.map(|(map, fill)| Sample::labelled([("map", map)], number(fill.capacity)));
    let attached = plane.programs.iter();
    let attached =
        attached.map(|(hook, attached)| Sample::labelled([("hook", hook)], truth(*attached)));
    vec![
        Figure::gauge(
            "lb_map_entries",
            "Entries in use in a kernel map.",
            entries.collect(),
        ),
        Figure::gauge(
            "lb_map_capacity",
            "Entries a kernel map has room for.",
            room.collect(),
        ),
        Figure::gauge(
            "lb_views",
            "Views that the clients of this host stand in, beside that of the host.",
            vec![Sample::plain(length(plane.views))],
        ),
        Figure::gauge(
            "lb_program_attached",
            "1 while the program is attached to its hook, else 0.",
            attached.collect(),
        ),
    ]
}

/// The first word of a problem's subject, if it is one that we know: labels are bounded.
fn kind(subject: &str) -> &'static str {
    let word = subject.split([' ', ':']).next().unwrap_or_default();
    let known = KINDS.iter().find(|kind| **kind == word);
    known.copied().unwrap_or(OTHER)
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// A count as metrics have it; exact up to 2^53, which no count of ours reaches.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn length(value: usize) -> f64 {
    value as f64
}

/// The kind of every other problem.
const OTHER: &str = "other";
/// First words of a problem's subject.
const KINDS: [&str; 8] = [
    "service", "instance", "option", "tag", "route", "host", "source", "pool",
];

/// Every state, in the order of causes.
const STATES: [State; 8] = [
    State::Usable,
    State::Starting,
    State::L4Down,
    State::ConsulWarning,
    State::ConsulCritical,
    State::Maintenance,
    State::Draining,
    State::Leaving,
];

#[cfg(test)]
mod tests;
