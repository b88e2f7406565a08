//! The head of the page: what there is in numbers, and how the parts of the agent are.

use maud::{Markup, html};

use super::{live::Live, wrong::Wrong};
use crate::admin::{
    history::Rings,
    report::{Component, Mark, Report, Service, ServiceState},
    text,
};

/// The counts first: each is a link to what it counts.
pub(super) fn summary(report: &Report, wrong: &[Wrong], rings: &Rings) -> Markup {
    let live = Live::agent(report, rings);
    html! {
        h2.unseen id="summary-title" { "Summary" }
        ul.tiles {
            @if let Some(services) = &report.services {
                @for (state, mark) in [
                    (ServiceState::Refused, Mark::Error),
                    (ServiceState::Degraded, Mark::Warning),
                    (ServiceState::Ok, Mark::Ok),
                ] {
                    @let n = services.iter().filter(|it| it.state == state).count();
                    li.tile.(tone(mark, n)) {
                        a href={ "/?state=" (state.as_str()) "#services" } {
                            strong { (n) } " " (plural(n, "service")) " " (state.as_str())
                        }
                        small { (meaning(state)) }
                    }
                }
            }
            li.tile.(tone(worst(report), wrong.len())) {
                a href="/#wrong" { strong { (wrong.len()) } " " (plural(wrong.len(), "thing")) " to look at" }
                small { (parts_in_words(&report.components)) }
            }
            li.tile {
                span { strong { (live.text("flow-rate")) } " new flows/s" }
                small { (live.text("active")) " open · " (live.text("request-rate")) " HTTP requests/s" }
            }
        }
        (sources(report))
    }
}

fn plural(n: usize, thing: &str) -> String {
    let many = if n == 1 { "" } else { "s" };
    format!("{thing}{many}")
}

/// Zero of something bad is not bad.
fn tone(mark: Mark, n: usize) -> &'static str {
    match n {
        0 => "none",
        _ => mark.as_str(),
    }
}

fn worst(report: &Report) -> Mark {
    let marks = report.components.iter().map(|part| part.mark);
    let parts = marks.min().unwrap_or(Mark::Ok);
    let problems = if report.problems.is_empty() {
        Mark::Ok
    } else {
        Mark::Warning
    };
    parts.min(problems)
}

fn meaning(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Refused => "no usable instance: connections are refused at once",
        ServiceState::Degraded => "they serve, but some instances fail",
        ServiceState::Ok => "every instance that should serve does",
    }
}

fn parts_in_words(parts: &[Component]) -> String {
    let ok = parts.iter().filter(|part| part.mark == Mark::Ok).count();
    format!(
        "{ok} of {} of the agent are well",
        text::count(parts.len(), "part")
    )
}

/// How old the data is, in sight in every view.
fn sources(report: &Report) -> Markup {
    html! {
        p.sources {
            @if report.sources.is_empty() { "No discovery source is configured, or none has answered yet." }
            @for ((name, source), live) in report.sources.iter().zip(Live::sources(report)) {
                @let stale = source.error.is_some();
                span.source.warning[stale] {
                    "Source " strong { (name) } ": "
                    @match (source.updated_unix, stale) {
                        (Some(_), true) => { span.mark { "running on the last good table" } ", age " (live.text("age")) }
                        (Some(_), false) => { "answered " (live.text("age")) " ago" }
                        (None, _) => span.mark { "has not answered yet" },
                    }
                }
            }
        }
    }
}

/// A time that the script keeps counting.
pub(super) fn since(at_unix: u64, now_unix: u64) -> Markup {
    let age = super::age(now_unix, at_unix);
    html! { time data-since=(at_unix) { (text::duration(age)) } }
}

/// Worst first; the mark is a word as well as a colour.
pub(super) fn parts(report: &Report) -> Markup {
    let mut lines: Vec<_> = report
        .components
        .iter()
        .zip(Live::parts(&report.components))
        .collect();
    lines.sort_by_key(|(line, _)| line.mark);
    html! {
        h2 id="parts-title" { "Parts of the agent" }
        table.parts aria-labelledby="parts-title" {
            thead { tr { th scope="col" { "state" } th scope="col" { "part" } th scope="col" { "in words" } } }
            tbody {
                @for (line, live) in lines {
                    tr.(line.mark.as_str()) {
                        td.mark data-label="state" { (line.mark.as_str()) }
                        th scope="row" { (line.name) }
                        td data-label="in words" { (live.text("detail")) }
                    }
                }
            }
        }
    }
}

/// For the search: the services of a page by state.
pub(super) fn states(services: &[Service]) -> Vec<(ServiceState, usize)> {
    let count = |state| services.iter().filter(|it| it.state == state).count();
    let states = ServiceState::ALL.into_iter();
    states.map(|state| (state, count(state))).collect()
}
