//! `services`: all of them, or all there is to say of some.

use super::{
    Answer, Exit, Failure, Output, PATIENCE, backends,
    client::Client,
    table::{Rows, figures, known, percentile, words},
};
use crate::{
    admin::{
        compose::age,
        report::{Flows, Report, Service},
        text::{self, visible},
    },
    vip::Entry,
};

/// A line for each service, or those that `name` means with all there is to say of them.
pub(super) async fn services(client: &Client, output: Output, name: Option<&str>) -> Answer {
    let report = client.report(PATIENCE).await?;
    let vips = match (output, name) {
        // What their addresses are is told without, if nobody can say why.
        (Output::Table | Output::Wide, Some(_)) => client.vips(PATIENCE).await.unwrap_or_default(),
        _ => Vec::new(),
    };
    print(&report, &vips, output, name)
}

pub(super) fn print(report: &Report, vips: &[Entry], output: Output, name: Option<&str>) -> Answer {
    let chosen = choose(report, name)?;
    let text = match (output, name) {
        (Output::Table | Output::Wide, Some(_)) => {
            stale(report) + &details(report, vips, &chosen, output)
        }
        _ => rows(&chosen).print(output, &chosen)?,
    };
    Ok((text, Exit::Fine))
}

/// That a source does not answer, and how old is what is told.
fn stale(report: &Report) -> String {
    let failing = report.sources.iter().filter_map(|(name, source)| {
        let error = source.error.as_deref()?;
        let age = source.updated_unix.map(|it| age(report.now_unix, it));
        Some(match age {
            None => format!("source {name} has never answered: {error}"),
            Some(age) => format!(
                "what source {name} says is {} old: {error}",
                text::duration(age)
            ),
        })
    });
    failing
        .map(|line| format!("! {}\n", visible(&line)))
        .collect()
}

/// All services, or those that `name` means: by the name shown, by label, or a service with its parts.
pub(super) fn choose<'a>(
    report: &'a Report,
    name: Option<&str>,
) -> Result<Vec<&'a Service>, Failure> {
    let services = report.services.as_deref().ok_or(Failure::NotKnown)?;
    let Some(name) = name else {
        return Ok(services.iter().collect());
    };
    let exact = services.iter();
    let mut chosen: Vec<_> = exact
        .filter(|service| service.name == name || service.label == name)
        .collect();
    if chosen.is_empty() {
        let parts = services.iter();
        chosen = parts.filter(|service| service.service == name).collect();
    }
    if chosen.is_empty() {
        return Err(Failure::NoService(name.to_owned()));
    }
    Ok(chosen)
}

/// A line for each service.
fn rows(services: &[&Service]) -> Rows<14> {
    let mut rows = Rows::new([
        words("SERVICE"),
        words("STATE"),
        words("VIP"),
        words("VIP6").wide(),
        words("PORTS"),
        figures("USABLE"),
        figures("ACTIVE"),
        figures("FLOWS"),
        figures("REFUSED"),
        figures("FAILED"),
        figures("REQUESTS"),
        figures("5XX %"),
        figures("P50").wide(),
        figures("P99"),
    ]);
    let none = || "-".to_owned();
    for service in services {
        let flows = service.flows;
        rows.push([
            service.name.clone(),
            service.state.as_str().to_owned(),
            vip(service),
            vip6(service),
            ports(service),
            format!("{}/{}", service.usable, service.backends.len()),
            known(flows.map(|flows| flows.active)),
            known(flows.map(|flows| flows.total)),
            known(flows.map(|flows| flows.refused)),
            known(flows.map(|flows| flows.failed)),
            service
                .http
                .map_or_else(none, |http| http.requests.to_string()),
            errors(service).unwrap_or_else(none),
            percentile(service.connects.as_ref(), |it| it.p50_microseconds),
            percentile(service.connects.as_ref(), |it| it.p99_microseconds),
        ]);
    }
    rows
}

/// All there is to say of some services.
fn details(report: &Report, vips: &[Entry], services: &[&Service], output: Output) -> String {
    let each = services.iter().map(|service| {
        let mut text = format!("{}  {}\n", visible(&service.name), service.state.as_str());
        for (name, detail) in lines(report, vips, service) {
            text += &format!("  {name:9}{}\n", visible(&detail));
        }
        text.push('\n');
        let backends = backends::rows(&[service], report.now_unix, output);
        text + &backends.text(output == Output::Wide)
    });
    each.collect::<Vec<_>>().join("\n")
}

fn lines(report: &Report, vips: &[Entry], service: &Service) -> Vec<(&'static str, String)> {
    let twin = service.vip6.map(|twin| format!(" and {twin}"));
    let origin = vips.iter().find(|it| Some(it.address) == service.vip);
    let origin = origin.map(|it| {
        let since = it.since_unix.map(|since| age(report.now_unix, since));
        let since = since.map(|since| format!(" since {}", text::duration(since)));
        format!(" by {}{}", it.how, since.unwrap_or_default())
    });
    let mut lines = vec![
        (
            "vip",
            format!(
                "{}{}{}, ports {}",
                vip(service),
                twin.unwrap_or_default(),
                origin.unwrap_or_default(),
                ports(service)
            ),
        ),
        (
            "balance",
            format!("{}, check {}", service.balance, service.check),
        ),
    ];
    let options = service.options.iter();
    lines.extend(options.map(|(name, value)| ("option", format!("{name} = {}", plain(value)))));
    lines.extend(service.hosts.iter().map(|host| ("route", host.clone())));
    if let Some(flows) = service.flows {
        lines.push(("flows", counted(&flows)));
    }
    if let Some(http) = service.http {
        let errors = errors(service).map(|percent| format!(", 5xx {percent} %"));
        let errors = errors.unwrap_or_default();
        lines.push(("requests", format!("{}{errors}", http.requests)));
    }
    let problems = report.problems.iter();
    let problems = problems.filter(|problem| concerns(&problem.subject, service));
    lines.extend(problems.map(|it| ("problem", format!("{}: {}", it.subject, it.message))));
    lines
}

/// Whether a problem is one of the service or of an instance of it: a refused tag, a collision.
fn concerns(subject: &str, service: &Service) -> bool {
    match subject.split_once(' ') {
        Some(("service", name)) => {
            name == service.name || name == service.service || name == service.label
        }
        Some(("instance", key)) => service.backends.iter().any(|it| it.key.to_string() == key),
        _ => false,
    }
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Answers of the front with a status from 500 on, in percent.
fn errors(service: &Service) -> Option<String> {
    let http = service.http?;
    text::percent(http.errors, http.requests)
}

fn counted(flows: &Flows) -> String {
    let Flows {
        total,
        active,
        failed,
        ..
    } = flows;
    let mut text = format!(
        "{total}, {active} active, {failed} failed, {} refused",
        flows.refused
    );
    let reasons = flows.refusals.by_reason().into_iter();
    let reasons: Vec<String> = reasons
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !reasons.is_empty() {
        text.push_str(&format!(" ({})", reasons.join(", ")));
    }
    text
}

fn vip(service: &Service) -> String {
    service
        .vip
        .map_or_else(|| "none".to_owned(), |vip| vip.to_string())
}

fn vip6(service: &Service) -> String {
    service
        .vip6
        .map_or_else(|| "none".to_owned(), |vip| vip.to_string())
}

fn ports(service: &Service) -> String {
    if service.ports.is_empty() {
        return "any".to_owned();
    }
    let ports: Vec<_> = service.ports.iter().map(u16::to_string).collect();
    ports.join(",")
}
