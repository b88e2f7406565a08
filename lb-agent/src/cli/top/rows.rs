//! What stands in the rows of each page of `top`. Pure.

use crate::admin::{
    compose::age,
    report::{Mark, Report, Service, ServiceState},
    text::{self, visible},
};

/// A line of a page: harmless texts, and how bad it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) mark: Mark,
    pub(super) cells: Vec<String>,
    /// What it is ordered by: the most first.
    pub(super) most: u64,
    pub(super) active: u64,
}

pub(super) fn head(report: &Report) -> String {
    let up = text::duration(age(report.now_unix, report.started_unix));
    let ready = if report.ready { "ready" } else { "not ready" };
    let services = report.services.as_ref().map_or(0, Vec::len);
    let text = format!(
        "lb-agent {} on {}, {ready}, up {up}, {}",
        report.version,
        report.host,
        text::count(services, "service")
    );
    visible(&text).into_owned()
}

pub(super) fn of_service(service: &Service, rates: &[Option<u64>; 6], both: u64) -> Row {
    let flows = service.flows;
    let http = service.http;
    let failed = http.and_then(|http| text::percent(http.errors, http.requests));
    Row {
        mark: match service.state {
            ServiceState::Ok => Mark::Ok,
            ServiceState::Degraded => Mark::Warning,
            ServiceState::Refused => Mark::Error,
        },
        cells: vec![
            visible(&service.name).into_owned(),
            service.state.as_str().to_owned(),
            format!("{}/{}", service.usable, service.backends.len()),
            tenths(rates[0]),
            http.map_or_else(|| "-".to_owned(), |_| tenths(rates[1])),
            failed.unwrap_or_else(|| "-".to_owned()),
            tenths(rates[2]),
            flows.map_or_else(|| "?".to_owned(), |it| it.active.to_string()),
        ],
        most: both,
        active: flows.map_or(0, |it| it.active),
    }
}

pub(super) fn of_refusals(service: &Service, rates: &[Option<u64>; 6]) -> Vec<Row> {
    let flows = service.flows.unwrap_or_default();
    let reasons = flows.refusals.by_reason().into_iter().zip(&rates[3..]);
    let reasons = reasons.filter(|((_, count), _)| *count > 0);
    let row = |((reason, count), rate): ((&str, u64), &Option<u64>)| Row {
        mark: Mark::Warning,
        cells: vec![
            visible(&service.name).into_owned(),
            reason.to_owned(),
            count.to_string(),
            tenths(*rate),
        ],
        most: count,
        active: flows.active,
    };
    reasons.map(row).collect()
}

pub(super) fn of_backend(
    service: &Service,
    backend: &crate::admin::report::Backend,
    errors: u64,
    rate: Option<u64>,
) -> Row {
    Row {
        mark: match backend.state.usable() {
            true => Mark::Ok,
            false => Mark::Warning,
        },
        cells: vec![
            visible(&service.name).into_owned(),
            visible(&backend.key.to_string()).into_owned(),
            backend.state.as_str().to_owned(),
            errors.to_string(),
            tenths(rate),
            backend
                .active
                .map_or_else(|| "?".to_owned(), |it| it.to_string()),
        ],
        most: errors,
        active: backend.active.unwrap_or(0),
    }
}

/// The worst first, as `status` has them.
pub(super) fn problems(report: &Report) -> Vec<Row> {
    let row = |mark: Mark, name: &str, detail: &str| Row {
        mark,
        cells: vec![
            mark.as_str().to_owned(),
            visible(name).into_owned(),
            visible(detail).into_owned(),
        ],
        most: 0,
        active: 0,
    };
    let components = report.components.iter();
    let mut rows: Vec<_> = components
        .map(|it| row(it.mark, &it.name, &it.detail))
        .collect();
    let problems = report.problems.iter();
    rows.extend(problems.map(|it| row(Mark::Warning, &it.subject, &it.message)));
    rows.sort_by_key(|row| row.mark);
    rows
}

/// A rate, which comes in tenths; `-` while it is not known.
pub(super) fn tenths(rate: Option<u64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(it) if it >= 1000 => (it / 10).to_string(),
        Some(it) => format!("{}.{}", it / 10, it % 10),
    }
}
