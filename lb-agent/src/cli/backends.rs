//! `backends`: both levels of health, what they add up to, and what came of it.

use serde::Serialize;

use super::{
    Answer, Exit, Output,
    services::choose,
    table::{Rows, figures, known, percentile, words},
};
use crate::{
    admin::{
        compose::age,
        report::{Backend, OnFront, Report, Service},
        text,
    },
    catalog::SourceHealth,
    snapshot::{FULL, ProbeState},
};

/// The backends of all services, or of those that `service` means.
pub(super) fn backends(report: &Report, output: Output, service: Option<&str>) -> Answer {
    let chosen = choose(report, service)?;
    let rows = rows(&chosen, report.now_unix, output);
    Ok((rows.print(output, &values(&chosen))?, Exit::Fine))
}

/// One row of `backends -o json`.
#[derive(Serialize)]
struct Row<'a> {
    /// The service's name, as `services` shows it.
    service: &'a str,
    #[serde(flatten)]
    backend: &'a Backend,
}

/// Every backend of the services.
fn values<'a>(services: &[&'a Service]) -> Vec<Row<'a>> {
    let each = services.iter().flat_map(|service| {
        let row = |backend| Row {
            service: &service.name,
            backend,
        };
        service.backends.iter().map(row)
    });
    each.collect()
}

/// A line for each backend, with the two levels of health and what they add up to.
pub(super) fn rows(services: &[&Service], now_unix: u64, output: Output) -> Rows<18> {
    let full = matches!(output, Output::Wide | Output::Csv);
    let mut rows = Rows::new([
        words("SERVICE"),
        words("ID"),
        words("NODE"),
        words("ADDRESS"),
        figures("WEIGHT").wide(),
        figures("SHARE"),
        words("PROBE"),
        words("SINCE"),
        words("SOURCE"),
        words("STATE"),
        figures("ACTIVE"),
        figures("FLOWS").wide(),
        figures("FAILED"),
        figures("P50").wide(),
        figures("P99").wide(),
        figures("HTTP FAILED").wide(),
        figures("RETRIES").wide(),
        words("WHY"),
    ]);
    for service in services {
        for backend in &service.backends {
            let since = age(now_unix, backend.probe.since_unix);
            let connects = backend.connects.as_ref();
            rows.push([
                service.name.clone(),
                backend.key.id.to_string(),
                backend.key.node.to_string(),
                backend.address.to_string(),
                weight(backend),
                share(service, backend),
                probe(backend.probe.state).to_owned(),
                text::duration(since),
                source(backend.source.state).to_owned(),
                backend.state.as_str().to_owned(),
                known(backend.active),
                known(connects.map(|it| it.count)),
                known(backend.failed),
                percentile(connects, |it| it.p50_microseconds),
                percentile(connects, |it| it.p99_microseconds),
                on_front(backend, |it| it.failures),
                on_front(backend, |it| it.retries),
                why(backend, now_unix, full),
            ]);
        }
        for leaving in &service.leaving {
            let blank = String::new;
            rows.push([
                service.name.clone(),
                leaving.key.id.to_string(),
                leaving.key.node.to_string(),
                blank(),
                blank(),
                blank(),
                blank(),
                blank(),
                blank(),
                "leaving".to_owned(),
                leaving.active.to_string(),
                blank(),
                blank(),
                blank(),
                blank(),
                blank(),
                blank(),
                "no longer registered".to_owned(),
            ]);
        }
    }
    rows
}

/// Why a backend is not well, from the level that says so: of checks the first line of what they say, or with `full`
/// all of it.
fn why(backend: &Backend, now_unix: u64, full: bool) -> String {
    let checks = backend.source.checks.iter();
    let failing = checks.filter(|check| check.health != SourceHealth::Passing);
    let mut causes: Vec<String> = failing
        .map(|check| {
            let said = match full {
                true => check.output.trim(),
                false => check.output.lines().next().unwrap_or_default().trim(),
            };
            // Most often a check of Consul that has not run for the first time.
            let said = if said.is_empty() { "no output" } else { said };
            format!("{}: {said}", check.name)
        })
        .collect();
    if let Some(error) = &backend.probe.error {
        causes.push(error.clone());
    }
    if backend.suspect == Some(true) {
        causes.push("suspect: a connect failed".to_owned());
    }
    if let Some(cut) = backend.cut_unix {
        let left = text::duration(age(cut, now_unix));
        causes.push(format!("open flows are cut in {left}"));
    }
    let front = backend.front.as_ref();
    if let Some(ejected) = front.and_then(|front| front.ejected.as_ref()) {
        let workers = text::count(ejected.workers, "worker");
        let left = text::duration(age(ejected.until_unix, now_unix));
        let why = &ejected.why;
        causes.push(format!(
            "ejected by {workers} of the front for {left}: {why}"
        ));
    }
    causes.join("; ")
}

/// `-` where the front has sent nothing.
fn on_front(backend: &Backend, of: impl Fn(&OnFront) -> u64) -> String {
    let front = backend.front.as_ref();
    front.map_or_else(|| "-".to_owned(), |front| of(front).to_string())
}

/// The part of a usable backend in the weights of all that are.
fn share(service: &Service, backend: &Backend) -> String {
    let weight = |it: &Backend| u64::from(it.weight) * u64::from(it.ramp);
    let usable = service.backends.iter().filter(|it| it.state.usable());
    let all: u64 = usable.map(weight).sum();
    let own = match backend.state.usable() {
        true => weight(backend),
        false => 0,
    };
    text::percent(own, all).map_or_else(|| "-".to_owned(), |it| format!("{it} %"))
}

/// The weight, and what slow start leaves of it.
fn weight(backend: &Backend) -> String {
    match backend.ramp {
        FULL => backend.weight.to_string(),
        ramp => format!("{} at {ramp} %", backend.weight),
    }
}

fn probe(state: ProbeState) -> &'static str {
    match state {
        ProbeState::Starting => "starting",
        ProbeState::Up => "up",
        ProbeState::Down => "down",
        ProbeState::Off => "off",
    }
}

fn source(health: SourceHealth) -> &'static str {
    match health {
        SourceHealth::Passing => "passing",
        SourceHealth::Warning => "warning",
        SourceHealth::Critical => "critical",
        SourceHealth::Maintenance => "maintenance",
    }
}
