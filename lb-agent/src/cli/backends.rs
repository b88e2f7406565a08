//! `backends`: both levels of health, what they add up to, and what came of it.

use serde::Serialize;

use super::{
    Answer, Exit, Output, json,
    services::choose,
    table::{finish, known, percentile, right, table},
};
use crate::{
    admin::{
        compose::age,
        report::{Backend, OnFront, Report, Service},
        text::{self, visible},
    },
    catalog::SourceHealth,
    snapshot::{FULL, ProbeState},
};

/// The backends of all services, or of those that `service` means.
pub(super) fn backends(report: &Report, output: Output, service: Option<&str>) -> Answer {
    let chosen = choose(report, service)?;
    let text = match output {
        Output::Table => table_of(&chosen, report.now_unix),
        Output::Json => json(&rows(&chosen))?,
    };
    Ok((text, Exit::Fine))
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
fn rows<'a>(services: &[&'a Service]) -> Vec<Row<'a>> {
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
pub(super) fn table_of(services: &[&Service], now_unix: u64) -> String {
    let mut table = table(&[
        "SERVICE",
        "ID",
        "NODE",
        "ADDRESS",
        "WEIGHT",
        "PROBE",
        "SINCE",
        "SOURCE",
        "STATE",
        "ACTIVE",
        "FLOWS",
        "FAILED",
        "P50",
        "P99",
        "HTTP FAILED",
        "RETRIES",
        "WHY",
    ]);
    for service in services {
        for backend in &service.backends {
            let since = age(now_unix, backend.probe.since_unix);
            let connects = backend.connects.as_ref();
            table.add_row([
                visible(&service.name).into_owned(),
                visible(&backend.key.id).into_owned(),
                visible(&backend.key.node).into_owned(),
                backend.address.to_string(),
                weight(backend),
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
                why(backend, now_unix),
            ]);
        }
        for leaving in &service.leaving {
            let blank = String::new;
            table.add_row([
                visible(&service.name).into_owned(),
                visible(&leaving.key.id).into_owned(),
                visible(&leaving.key.node).into_owned(),
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
    right(&mut table, [4, 9, 10, 11, 12, 13, 14, 15]);
    finish(&table)
}

/// Why a backend is not well, from the level that says so, in one line.
fn why(backend: &Backend, now_unix: u64) -> String {
    let checks = backend.source.checks.iter();
    let failing = checks.filter(|check| check.health != SourceHealth::Passing);
    let mut causes: Vec<String> = failing
        .map(|check| {
            let first = check.output.lines().next().unwrap_or_default().trim();
            // Most often a check of Consul that has not run for the first time.
            let said = if first.is_empty() { "no output" } else { first };
            format!("{}: {}", visible(&check.name), visible(said))
        })
        .collect();
    if let Some(error) = &backend.probe.error {
        causes.push(visible(error).into_owned());
    }
    if backend.suspect == Some(true) {
        causes.push("suspect: a connect failed".to_owned());
    }
    let front = backend.front.as_ref();
    if let Some(ejected) = front.and_then(|front| front.ejected.as_ref()) {
        let workers = text::count(ejected.workers, "worker");
        let left = text::duration(age(ejected.until_unix, now_unix));
        let why = visible(&ejected.why);
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
