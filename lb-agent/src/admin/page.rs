//! The status page: the report as HTML. Errors first; it reads without scripts, and a script only
//! refreshes it. maud escapes every text, for names and check output are written by others.

mod service;

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, html};

use super::{
    compose::age,
    report::{Component, Connects, Flows, Mark, Report, Service, ServiceState},
    text,
};

/// The whole page.
pub(super) fn page(report: &Report) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(report)) }
                link rel="stylesheet" href=(STYLE_PATH);
                noscript { meta http-equiv="refresh" content="5"; }
                script src=(SCRIPT_PATH) defer {}
            }
            body {
                main id="report" { (body(report)) }
                footer {
                    a href="/api/v1/snapshot" { "JSON" } " · "
                    a href="/metrics" { "metrics" } " · "
                    a href="/ready" { "ready" }
                    span id="refresh" {}
                }
            }
        }
    }
}

fn title(report: &Report) -> String {
    let worst = report.components.iter().map(|line| line.mark).min();
    let wrong = match worst {
        Some(Mark::Ok) | None if report.problems.is_empty() => "",
        Some(Mark::Error) => "✗ ",
        _ => "! ",
    };
    format!("{wrong}lb-agent on {}", report.host)
}

fn body(report: &Report) -> Markup {
    html! {
        header {
            h1 { "lb-agent on " (report.host) }
            p {
                "version " (report.version) ", up "
                (text::duration(age(report.now_unix, report.started_unix)))
                @if let Some(services) = &report.services { (counts(services)) }
            }
        }
        (components(&report.components))
        @if !report.problems.is_empty() {
            section id="problems" {
                h2 { "Problems" }
                ul {
                    @for problem in &report.problems {
                        li { strong { (problem.subject) } ": " (problem.message) }
                    }
                }
            }
        }
        @match &report.services {
            None => p.unknown { "Services are not known yet: no discovery source has answered." },
            Some(services) if services.is_empty() => p { "Discovery has answered: there is no service." },
            Some(services) => {
                (overview(services))
                (details(report, services))
            }
        }
    }
}

fn counts(services: &[Service]) -> Markup {
    html! {
        @for state in ServiceState::ALL {
            @let n = services.iter().filter(|service| service.state == state).count();
            ", " (n) " " (state.as_str())
        }
    }
}

/// Worst first; the mark is a word as well as a colour.
fn components(components: &[Component]) -> Markup {
    let mut lines: Vec<_> = components.iter().collect();
    lines.sort_by_key(|line| line.mark);
    html! {
        table.components {
            caption { "Parts of the agent" }
            tbody {
                @for line in lines {
                    tr class=(line.mark.as_str()) {
                        td.mark { (line.mark.as_str()) }
                        th scope="row" { (line.name) }
                        td { (line.detail) }
                    }
                }
            }
        }
    }
}

fn overview(services: &[Service]) -> Markup {
    html! {
        table.overview {
            caption { "Services" }
            thead {
                tr {
                    th scope="col" { "service" }
                    th scope="col" { "state" }
                    th scope="col" { "VIP" }
                    th scope="col" { "usable" }
                    th scope="col" { "open flows" }
                    th scope="col" { "flows" }
                    th scope="col" { "refused" }
                    th scope="col" { "failed" }
                    th scope="col" { "p50" }
                    th scope="col" { "p99" }
                    th scope="col" { "host names" }
                }
            }
            tbody {
                @for service in services {
                    tr class=(service.state.as_str()) {
                        th scope="row" { a href={ "#" (anchor(service)) } { (service.name) } }
                        td.mark { (service.state.as_str()) }
                        td.w { (vip(service)) }
                        td.n { (service.usable) "/" (service.backends.len()) }
                        @let flows = service.flows;
                        td.n { (known(flows.map(|flows| flows.active))) }
                        td.n { (known(flows.map(|flows| flows.total))) }
                        td.n title=[flows.map(refusals)] { (known(flows.map(|flows| flows.refused))) }
                        td.n { (known(flows.map(|flows| flows.failed))) }
                        @let connects = service.connects.as_ref();
                        td.n { (took(connects, |it| it.p50_microseconds)) }
                        td.n { (took(connects, |it| it.p99_microseconds)) }
                        td { (hosts(service)) }
                    }
                }
            }
        }
    }
}

fn details(report: &Report, services: &[Service]) -> Markup {
    // An id may occur once: the services' own anchors first, then those of the other naming scheme.
    let mut taken: BTreeSet<String> = services.iter().map(anchor).collect();
    let mut shown = BTreeSet::new();
    html! {
        @for service in services {
            @let own = Some(anchor(service)).filter(|id| shown.insert(id.clone()));
            @let other = other_anchor(service).filter(|id| taken.insert(id.clone()));
            (service::section(service, report.now_unix, own.as_deref(), other.as_deref()))
        }
    }
}

/// `www_hello_backend`, or `hello_www_backend` for a tagged part.
fn anchor(service: &Service) -> String {
    format!("{}_backend", service.label)
}

/// The anchor that the other naming scheme has for the same thing, so that links of both work:
/// `www_hello` is to one scheme what the part `hello` of `www` is to the other.
fn other_anchor(service: &Service) -> Option<String> {
    match &service.tag {
        Some(tag) => Some(format!(
            "{}_{}_backend",
            service.service,
            tag.replace('.', "_")
        )),
        None => {
            let (first, rest) = service.service.split_once('_')?;
            Some(format!("{}_{first}_backend", rest.replace('_', ".")))
        }
    }
}

fn vip(service: &Service) -> String {
    service
        .vip
        .map_or_else(|| "none".to_owned(), |vip| vip.to_string())
}

/// The VIP with its twin.
fn vips(service: &Service) -> String {
    let twin = service.vip6.map(|twin| format!(" and {twin}"));
    vip(service) + &twin.unwrap_or_default()
}

fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// The reasons of refusals.
fn refusals(flows: Flows) -> String {
    let reasons = flows.refusals.by_reason();
    reasons
        .map(|(reason, count)| format!("{reason} {count}"))
        .join(", ")
}

/// A percentile of connects; `?` when not known, nothing where none was measured.
fn took(connects: Option<&Connects>, of: impl Fn(&Connects) -> Option<u64>) -> String {
    match connects.map(of) {
        None => "?".to_owned(),
        Some(micros) => micros.map(text::microseconds).unwrap_or_default(),
    }
}

fn hosts(service: &Service) -> Markup {
    html! {
        @for (n, host) in service.hosts.iter().enumerate() {
            @if n > 0 { ", " }
            @if host.starts_with("http://") || host.starts_with("https://") {
                a href=(host) rel="noopener" { (host) }
            } @else { (host) }
        }
    }
}

/// Where the page's style is served.
pub(super) const STYLE_PATH: &str = "/assets/page.css";
/// The style.
pub(super) const STYLE: &str = include_str!("page/page.css");
/// Where the page's script is served.
pub(super) const SCRIPT_PATH: &str = "/assets/page.js";
/// The script.
pub(super) const SCRIPT: &str = include_str!("page/page.js");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{compose::compose, sample},
        snapshot::{ServiceName, Snapshot, Source},
        stats::Stats,
    };

    fn rendered(snapshot: Option<&Snapshot>, stats: Option<&Stats>) -> String {
        page(&compose(sample::material(snapshot, stats))).into_string()
    }

    #[test]
    fn errors_come_before_services() {
        let html = rendered(Some(&sample::snapshot()), Some(&sample::stats()));
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text}"));
        assert!(at("without a usable backend: db") < at("source file"));
        assert!(at("the pool 198.18.0.0/30 is full") < at("<caption>Services"));
    }

    #[test]
    fn anchors_of_both_naming_schemes_are_there_once() {
        let html = rendered(Some(&sample::snapshot()), None);
        for id in [
            "www_hello_backend",
            "hello_www_backend",
            "world.dev_www_backend",
            "www_world_dev_backend",
            "db_backend",
        ] {
            assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }

    #[test]
    fn the_levels_of_health_are_three_fields() {
        let html = rendered(Some(&sample::snapshot()), Some(&sample::stats()));
        for text in [
            "own probe",
            "source",
            "combined",
            "connection refused",
            "l4_down",
            "draining",
            "no answer\nfrom pg_isready",
        ] {
            assert!(html.contains(text), "no {text}");
        }
    }

    #[test]
    fn what_the_front_says_of_backends_is_shown() {
        let (snapshot, front) = (sample::snapshot(), sample::front());
        let mut material = sample::material(Some(&snapshot), None);
        material.front = Some(&front);
        let html = page(&compose(material)).into_string();
        assert_eq!(
            html.matches(", ejected for 25 s by 2 workers: connect_refused")
                .count(),
            1
        );
        // Failed and repeated attempts, of both services that share the instance.
        let figures = "<td class=\"n\">9</td><td class=\"n\">4</td></tr>";
        assert_eq!(html.matches(figures).count(), 2, "{html}");
    }

    #[test]
    fn markup_in_names_and_check_output_is_text() {
        let mut snapshot = sample::snapshot();
        let mut evil = snapshot.services[&ServiceName::whole("db")].clone();
        for backend in std::sync::Arc::make_mut(&mut evil).backends.values_mut() {
            backend.checks[0].output = "<img src=x onerror=alert(1)>".to_owned();
        }
        let name = ServiceName::whole("\"><script>alert(1)</script>");
        snapshot.services.insert(name, evil);
        let html = rendered(Some(&snapshot), None);
        assert!(!html.contains("<script>alert"), "{html}");
        assert!(!html.contains("<img"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn only_http_becomes_a_link() {
        let mut material = sample::material(None, None);
        let snapshot = sample::snapshot();
        material.snapshot = Some(&snapshot);
        material.hosts.insert(
            "www_hello".to_owned(),
            vec!["javascript:alert(1)".to_owned(), "http://a/".to_owned()],
        );
        let html = page(&compose(material)).into_string();
        assert!(html.contains("href=\"http://a/\""));
        assert!(!html.contains("href=\"javascript"));
    }

    #[test]
    fn the_unknown_is_said_and_not_shown_as_nothing() {
        assert!(rendered(None, None).contains("not known yet"));
        let mut empty = Snapshot::default();
        assert!(rendered(Some(&empty), None).contains("not known yet"));
        let answered = Source {
            updated: Some(std::time::SystemTime::UNIX_EPOCH),
            error: None,
        };
        empty.sources.insert("file".to_owned(), answered);
        assert!(rendered(Some(&empty), None).contains("there is no service"));
        let html = rendered(Some(&sample::snapshot()), None);
        assert!(html.contains("<td class=\"n\">?</td>"));
    }

    #[test]
    fn nothing_is_inline_and_nothing_is_foreign() {
        let html = rendered(Some(&sample::snapshot()), Some(&sample::stats()));
        assert!(!html.contains("style="));
        assert!(!html.contains("<style"));
        assert!(!html.contains(" onclick"));
        for asset in html.split("src=\"").skip(1) {
            assert!(asset.starts_with("/assets/"), "{asset}");
        }
    }
}
