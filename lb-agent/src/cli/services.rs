//! `services`: all of them, or all there is to say of some.

use super::{
    Answer, Exit, Failure, Output, backends,
    table::{Rows, figures, known, percentile, words},
};
use crate::admin::{
    report::{Flows, Report, Service},
    text::visible,
};

/// A line for each service, or those that `name` means with their backends.
pub(super) fn services(report: &Report, output: Output, name: Option<&str>) -> Answer {
    let chosen = choose(report, name)?;
    let text = match (output, name) {
        (Output::Table | Output::Wide, Some(_)) => details(&chosen, report.now_unix, output),
        _ => rows(&chosen).print(output, &chosen)?,
    };
    Ok((text, Exit::Fine))
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
fn rows(services: &[&Service]) -> Rows<12> {
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
        figures("P50"),
        figures("P99"),
    ]);
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
            percentile(service.connects.as_ref(), |it| it.p50_microseconds),
            percentile(service.connects.as_ref(), |it| it.p99_microseconds),
        ]);
    }
    rows
}

/// All there is to say of some services.
fn details(services: &[&Service], now_unix: u64, output: Output) -> String {
    let each = services.iter().map(|service| {
        let hosts: Vec<_> = service.hosts.iter().map(|host| visible(host)).collect();
        let vips: Vec<_> = [Some(vip(service)), service.vip6.map(|it| it.to_string())]
            .into_iter()
            .flatten()
            .collect();
        let mut text = format!(
            "{}  {}\n  vip      {}, ports {}\n  balance  {}, check {}\n",
            visible(&service.name),
            service.state.as_str(),
            vips.join(" and "),
            ports(service),
            service.balance,
            visible(&service.check),
        );
        if !hosts.is_empty() {
            text.push_str(&format!("  hosts    {}\n", hosts.join(" ")));
        }
        if let Some(flows) = service.flows {
            text.push_str(&format!("  flows    {}\n", counted(&flows)));
        }
        text.push('\n');
        text.push_str(&backends::rows(&[service], now_unix, output).text(output == Output::Wide));
        text
    });
    each.collect::<Vec<_>>().join("\n")
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
