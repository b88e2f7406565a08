//! One service on the page: its facts, its graphs, and the dense table of its backends.

use maud::{Markup, html};

use super::{
    graph, hosts,
    live::Live,
    number::thousands,
    overview::since,
    picture::{self, Limits},
    vips, word,
};
use crate::{
    admin::{
        compose::age,
        history::Rings,
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
    rings: &Rings,
    own: Option<&str>,
    other: Option<&str>,
) -> Markup {
    html! {
        section.service id=[own] data-service=(service.label) {
            @if let Some(other) = other { span id=(other) {} }
            h2 {
                (service.name) " "
                span.mark.(service.state.as_str()) { (service.state.as_str()) }
            }
            (facts(service, rings))
            @if service.backends.is_empty() && service.leaving.is_empty() {
                p { "No instance is registered." }
            } @else {
                (table(service, now_unix, rings))
                noscript {
                    p { "To take an instance out: " code { "lb-agent drain " (service.name) "/INSTANCE" }
                        ", or " code { "lb-agent maintenance" } " to end its flows too; to put it back, the same with " code { "--undo" } "." }
                }
            }
        }
    }
}

/// A page of its own, with the picture.
pub(super) fn alone(service: &Service, now_unix: u64, rings: &Rings) -> Markup {
    html! {
        (section(service, now_unix, rings, Some(&super::anchor(service)), None))
        h2 { "Where its connections go" }
        (picture::picture(&[service], rings, Limits::SERVICE))
    }
}

fn facts(service: &Service, rings: &Rings) -> Markup {
    let live = Live::service(service, rings);
    let http = rings.http(&service.label).is_some();
    html! {
        dl.facts {
            div { dt { "VIP" } dd { (vips(service)) ", " (ports(service)) } }
            div { dt { "names" } dd {
                @if service.hosts.is_empty() { "none: programs use the VIP" } @else { (hosts(service, usize::MAX)) }
            } }
            div { dt { "balance" } dd { (service.balance) } }
            div { dt { "own probe" } dd { (service.check) } }
            div { dt { "flows" } dd {
                (live.text("flow-rate")) " new/s, " (live.text("active")) " open, " (live.text("flows")) " so far"
                " " (graph::spark(&live, "flow-line", "flows", "new flows"))
            } }
            div { dt { "turned away" } dd {
                (live.text("refused")) " refused"
                @if let Some(flows) = service.flows && flows.refused > 0 { " (" (super::refusals(flows)) ")" }
                ", " (live.text("failed")) " failed, " (live.text("failure-rate")) "/s"
                " " (graph::spark(&live, "failure-line", "failures", "refused and failed connects"))
            } }
            @if let Some(packets) = service.packets {
                div { dt { "packets" } dd {
                    (thousands(packets.packets)) " to instances, in " (thousands(packets.flows)) " flows, "
                    (thousands(packets.bytes)) " bytes, " (thousands(packets.dropped)) " dropped, so far"
                } }
            }
            div { dt { "connect" } dd { "p50 " (live.text("p50")) ", p99 " (live.text("p99")) } }
            @if http {
                div { dt { "HTTP" } dd {
                    (live.text("request-rate")) " requests/s, " (live.text("requests")) " so far, p50 "
                    (live.text("request-p50")) ", p99 " (live.text("request-p99")) ", "
                    (live.text("received")) " in, " (live.text("sent")) " out"
                    " " (graph::spark(&live, "request-line", "flows", "requests"))
                } }
                div { dt { "HTTP errors" } dd {
                    (live.text("error-rate")) "/s, " (live.text("errors")) " so far"
                    " " (graph::spark(&live, "error-line", "failures", "requests that failed"))
                } }
            }
        }
    }
}

fn ports(service: &Service) -> String {
    if service.ports.is_empty() {
        return "every port".to_owned();
    }
    let ports: Vec<_> = service.ports.iter().map(u16::to_string).collect();
    let many = if ports.len() == 1 { "port" } else { "ports" };
    format!("{many} {}", ports.join(", "))
}

fn table(service: &Service, now_unix: u64, rings: &Rings) -> Markup {
    let weights = service.backends.iter().filter(|it| it.state.usable());
    let weights: u64 = weights.map(share).sum();
    // Columns of the front are there only for what it serves.
    let front = service.backends.iter().any(|it| it.front.is_some());
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Instances of " (service.name) } {
            table.backends aria-label={ "Instances of " (service.name) } {
                thead {
                    tr {
                        th scope="col" { "instance" }
                        th scope="col" { "state" }
                        th scope="col" { "own probe" }
                        th scope="col" { "source" }
                        th.n scope="col" { "weight" }
                        th.n scope="col" { "new/s" }
                        th scope="col" { "10 minutes" }
                        th.n scope="col" { "open" }
                        th.n scope="col" { "flows" }
                        th.n scope="col" { "failed" }
                        th.n scope="col" { "connect p50" }
                        th.n scope="col" { "p99" }
                        @if front {
                            th.n scope="col" { "HTTP in flight" }
                            th.n scope="col" { "requests" }
                            th.n scope="col" { "errors" }
                            th.n scope="col" { "retries" }
                            th.n scope="col" { "p50, p99" }
                            th.n scope="col" { "in, out" }
                        }
                    }
                }
                tbody {
                    @for backend in &service.backends { (row(service, backend, weights, front, now_unix, rings)) }
                    @for leaving in &service.leaving { (leaving_row(leaving, front)) }
                }
            }
        }
    }
}

/// What a backend weighs under slow start, in hundredths.
fn share(backend: &Backend) -> u64 {
    u64::from(backend.weight) * u64::from(backend.ramp)
}

fn row(
    service: &Service,
    backend: &Backend,
    weights: u64,
    front: bool,
    now_unix: u64,
    rings: &Rings,
) -> Markup {
    let state = backend.state.as_str();
    let live = Live::backend(service, backend, rings).with_cut(backend, now_unix);
    // The script finds by this id again what the reader had opened.
    let details_id = format!("checks:{}:{}", service.label, backend.key);
    html! {
        tr.(state) data-backend=(backend.key) data-state=(state) data-mode=(backend.mode.as_str()) {
            th scope="row" {
                (backend.key.id) " " small { (backend.key.node) }
                br; span.address { (backend.address) }
            }
            td data-label="state" { (combined(service, backend, &live, now_unix, rings)) }
            td data-label="own probe" { (probe(&backend.probe, now_unix)) }
            td data-label="source" { (source(backend, &details_id)) }
            td.n data-label="weight" {
                (backend.weight)
                @if backend.ramp < FULL { " at " (backend.ramp) " %" }
                @if backend.state.usable() && weights > 0 {
                    br; small { (share(backend) * 100 / weights) " %" }
                }
            }
            td.n data-label="new/s" { (live.text("flow-rate")) }
            td.graph data-label="10 minutes" {
                (graph::spark(&live, "flow-line", "flows", "new flows"))
                @if let Some(at) = rings.last_flow_unix(&service.label, &backend.key) {
                    br; small { "last " (since(at, now_unix)) " ago" }
                }
            }
            td.n data-label="open" { (live.text("active")) }
            td.n data-label="flows" { (live.text("flows")) }
            td.n data-label="failed" { (live.text("failed")) }
            td.n data-label="connect p50" { (live.text("p50")) }
            td.n data-label="p99" { (live.text("p99")) }
            @if front {
                td.n data-label="HTTP in flight" { (live.text("in-flight")) }
                td.n data-label="requests" { (live.text("requests")) }
                td.n data-label="errors" { (live.text("errors")) }
                td.n data-label="retries" { (live.text("retries")) }
                td.n data-label="p50, p99" { (live.text("request-p50")) ", " (live.text("request-p99")) }
                td.n data-label="in, out" { (live.text("received")) ", " (live.text("sent")) }
            }
        }
    }
}

/// Both levels and the operator's word, combined, and since when.
fn combined(
    service: &Service,
    backend: &Backend,
    live: &Live,
    now_unix: u64,
    rings: &Rings,
) -> Markup {
    let ejected = backend.front.as_ref().and_then(|it| it.ejected.as_ref());
    html! {
        span.mark { (backend.state.as_str()) }
        @if let Some(at) = rings.since_unix(&service.label, &backend.key) { " for " (since(at, now_unix)) }
        @if backend.suspect == Some(true) { ", suspect: connects just failed" }
        @if let Some(ejected) = ejected {
            ", ejected for " (text::duration(age(ejected.until_unix, now_unix)))
            " by " (text::count(ejected.workers, "worker")) ": " (ejected.why)
        }
        (live.text("cut"))
        span.actions {}
    }
}

fn leaving_row(leaving: &Leaving, front: bool) -> Markup {
    html! {
        tr.leaving {
            th scope="row" { (leaving.key.id) " " small { (leaving.key.node) } }
            td data-label="state" { span.mark { "leaving" } }
            td colspan="5" { "no longer registered; its open flows are cut after lb_drain" }
            td.n data-label="open" { (leaving.active) }
            td.pad colspan=(if front { "10" } else { "4" }) {}
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
        @if probe.state != ProbeState::Off { " for " (since(probe.since_unix, now_unix)) }
        @if let Some(took) = probe.took_microseconds { ", took " (text::microseconds(took)) }
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
            br; (check.name) ": " span.error { (word(check.health)) }
            pre tabindex="0" { (check.output) }
        }
        @if !passing.is_empty() {
            details id=(details_id) {
                summary { (text::count(passing.len(), "passing check")) }
                @for check in passing {
                    (check.name)
                    pre tabindex="0" { (check.output) }
                }
            }
        }
    }
}
