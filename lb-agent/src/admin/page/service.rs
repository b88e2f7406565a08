//! One service on the page: its facts and the dense table of its backends.

use maud::{Markup, html};

use super::{hosts, known, took, vips};
use crate::{
    admin::{
        compose::age,
        report::{Backend, Leaving, Probe, Service},
        text,
    },
    catalog::SourceHealth,
    snapshot::{FULL, ProbeState},
};

/// The section of one service. `own` is its anchor, `other` that of the other naming scheme; either is
/// absent if another service has it.
pub(super) fn section(
    service: &Service,
    now_unix: u64,
    own: Option<&str>,
    other: Option<&str>,
) -> Markup {
    html! {
        section.service id=[own] {
            @if let Some(other) = other { span id=(other) {} }
            h2 {
                (service.name) " "
                span.mark class=(service.state.as_str()) { (service.state.as_str()) }
            }
            p {
                "VIP " (vips(service)) ", " (ports(service)) ", " (service.balance)
                ", check " (service.check)
                @if !service.hosts.is_empty() { "; " (hosts(service)) }
            }
            @if service.backends.is_empty() && service.leaving.is_empty() {
                p { "No instance is registered." }
            } @else {
                (table(service, now_unix))
            }
        }
    }
}

fn ports(service: &Service) -> String {
    if service.ports.is_empty() {
        return "every port".to_owned();
    }
    let ports: Vec<_> = service.ports.iter().map(u16::to_string).collect();
    format!("port {}", ports.join(", "))
}

fn table(service: &Service, now_unix: u64) -> Markup {
    html! {
        table.backends {
            thead {
                tr {
                    th scope="col" { "instance" }
                    th scope="col" { "address" }
                    th scope="col" { "weight" }
                    th scope="col" { "own probe" }
                    th scope="col" { "source" }
                    th scope="col" { "combined" }
                    th scope="col" { "open flows" }
                    th scope="col" { "flows" }
                    th scope="col" { "failed" }
                    th scope="col" { "p50" }
                    th scope="col" { "p99" }
                    th scope="col" { "HTTP failed" }
                    th scope="col" { "retries" }
                }
            }
            tbody {
                @for backend in &service.backends { (row(service, backend, now_unix)) }
                @for leaving in &service.leaving { (leaving_row(leaving)) }
            }
        }
    }
}

fn row(service: &Service, backend: &Backend, now_unix: u64) -> Markup {
    let state = backend.state.as_str();
    // The script finds by this id again what the reader had opened.
    let details_id = format!("checks:{}:{}", service.label, backend.key);
    let front = backend.front.as_ref();
    html! {
        tr class=(state) {
            th scope="row" { (backend.key.id) " " small { (backend.key.node) } }
            td { (backend.address) }
            td.n {
                (backend.weight)
                @if backend.ramp < FULL { " at " (backend.ramp) " %" }
            }
            td { (probe(&backend.probe, now_unix)) }
            td { (source(backend, &details_id)) }
            td.mark {
                (state)
                @if backend.suspect == Some(true) { ", suspect" }
                @if let Some(ejected) = front.and_then(|it| it.ejected.as_ref()) {
                    ", ejected for " (text::duration(age(ejected.until_unix, now_unix)))
                    " by " (text::count(ejected.workers, "worker")) ": " (ejected.why)
                }
            }
            td.n { (known(backend.active)) }
            @let connects = backend.connects.as_ref();
            td.n { (known(connects.map(|it| it.count))) }
            td.n { (known(backend.failed)) }
            td.n { (took(connects, |it| it.p50_microseconds)) }
            td.n { (took(connects, |it| it.p99_microseconds)) }
            td.n { (front.map_or_else(|| "-".to_owned(), |it| it.failures.to_string())) }
            td.n { (front.map_or_else(|| "-".to_owned(), |it| it.retries.to_string())) }
        }
    }
}

fn leaving_row(leaving: &Leaving) -> Markup {
    html! {
        tr.leaving {
            th scope="row" { (leaving.key.id) " " small { (leaving.key.node) } }
            td colspan="4" { "no longer registered; its open flows live on" }
            td.mark { "leaving" }
            td.n { (leaving.active) }
            td colspan="6" {}
        }
    }
}

fn probe(probe: &Probe, now_unix: u64) -> Markup {
    let word = match probe.state {
        ProbeState::Starting => "starting",
        ProbeState::Up => "up",
        ProbeState::Down => "down",
        ProbeState::Off => "off",
    };
    html! {
        strong { (word) }
        @if probe.state != ProbeState::Off {
            " for " (text::duration(age(now_unix, probe.since_unix)))
        }
        @if let Some(took) = probe.took_microseconds { ", " (text::microseconds(took)) }
        @if let Some(error) = &probe.error { br; span.error { (error) } }
    }
}

/// What a failing check printed is in sight; what a passing one printed is a click away.
fn source(backend: &Backend, details_id: &str) -> Markup {
    let level = &backend.source;
    let (passing, failing): (Vec<_>, Vec<_>) = level
        .checks
        .iter()
        .partition(|check| check.health == SourceHealth::Passing);
    html! {
        strong { (word(level.state)) }
        @for check in failing {
            br; (check.name) ": " (word(check.health))
            pre { (check.output) }
        }
        @if !passing.is_empty() {
            details id=(details_id) {
                summary { (text::count(passing.len(), "passing check")) }
                @for check in passing {
                    (check.name)
                    pre { (check.output) }
                }
            }
        }
    }
}

/// The word for a verdict of the source.
fn word(health: SourceHealth) -> &'static str {
    match health {
        SourceHealth::Passing => "passing",
        SourceHealth::Warning => "warning",
        SourceHealth::Critical => "critical",
        SourceHealth::Maintenance => "maintenance",
    }
}
