//! The answers as tables. Pure; every text of others is made harmless for a terminal.

use std::time::Duration;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use super::terminal::Style;
use crate::{
    admin::{
        compose::age,
        report::{
            Backend, Component, Connects, DrainAnswer, FlowList, Flows, Mark, OnFront, Report,
            Service,
        },
        text::{self, visible},
    },
    catalog::{Problem, SourceHealth},
    clients::Client,
    options::table::Entry as OptionEntry,
    snapshot::{FULL, ProbeState},
    vip::Entry,
};

/// What `status -o json` prints.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    /// Whether all is well; the exit status says the same.
    ok: bool,
    ready: bool,
    waiting_for: &'a [String],
    version: &'a str,
    host: &'a str,
    components: &'a [Component],
    problems: &'a [Problem],
}

impl<'a> Status<'a> {
    pub(super) fn of(report: &'a Report, ok: bool) -> Self {
        Self {
            ok,
            ready: report.ready,
            waiting_for: &report.waiting_for,
            version: &report.version,
            host: &report.host,
            components: &report.components,
            problems: &report.problems,
        }
    }
}

/// One row of `backends -o json`.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    /// The service's name, as `services` shows it.
    service: &'a str,
    #[serde(flatten)]
    backend: &'a Backend,
}

/// Every backend of the services.
pub(super) fn rows<'a>(services: &[&'a Service]) -> Vec<Row<'a>> {
    let each = services.iter().flat_map(|service| {
        let row = |backend| Row {
            service: &service.name,
            backend,
        };
        service.backends.iter().map(row)
    });
    each.collect()
}

/// Errors first, then problems, then what is well.
pub(super) fn status(report: &Report, style: Style) -> String {
    let mut lines: Vec<(Mark, &str, &str)> = report
        .components
        .iter()
        .map(|line| (line.mark, line.name.as_str(), line.detail.as_str()))
        .collect();
    let problems = report.problems.iter();
    lines.extend(problems.map(|it| (Mark::Warning, it.subject.as_str(), it.message.as_str())));
    lines.sort_by_key(|(mark, _, _)| *mark);
    let names = report.components.iter();
    let width = names.map(|line| line.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |(mark, name, detail): (Mark, &str, &str)| {
        let (name, detail) = (visible(name), visible(detail));
        format!("{} {name:width$}  {detail}\n", style.mark(mark))
    };
    lines.into_iter().map(line).collect()
}

/// A line for each service.
pub(super) fn services(services: &[&Service]) -> String {
    let mut table = table(&[
        "SERVICE", "STATE", "VIP", "VIP6", "PORTS", "USABLE", "ACTIVE", "FLOWS", "REFUSED",
        "FAILED", "P50", "P99",
    ]);
    for service in services {
        let flows = service.flows;
        table.add_row([
            visible(&service.name).into_owned(),
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
    right(&mut table, 5..12);
    finish(&table)
}

/// All there is to say of some services.
pub(super) fn details(services: &[&Service], now_unix: u64) -> String {
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
        text.push_str(&backends(&[service], now_unix));
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

/// A line for each backend, with the two levels of health and what they add up to.
pub(super) fn backends(services: &[&Service], now_unix: u64) -> String {
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

/// A line for each flow, then what is not among them.
pub(super) fn flows(list: &FlowList) -> String {
    let mut table = table(&[
        "CLIENT",
        "VIP",
        "SERVICE",
        "BACKEND",
        "ADDRESS",
        "PROTO",
        "STATE",
        "AGE",
        "PID",
        "COMMAND",
        "CONTAINER",
        "NETNS",
    ]);
    let known = |text: Option<&str>, unknown: &str| {
        let text = text.map(|text| visible(text).into_owned());
        text.unwrap_or_else(|| unknown.to_owned())
    };
    for flow in &list.flows {
        table.add_row([
            flow.client.to_string(),
            flow.vip.to_string(),
            known(flow.service.as_deref(), "gone"),
            known(flow.backend.as_deref(), "gone"),
            flow.address.to_string(),
            flow.protocol.clone(),
            flow.state.clone(),
            text::duration(Duration::from_secs(flow.age_seconds)),
            flow.pid
                .map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
            known(flow.command.as_deref(), "?"),
            known(flow.container.as_deref(), "-"),
            flow.netns.to_string(),
        ]);
    }
    let mut text = finish(&table);
    if list.left_out > 0 {
        text.push_str(&format!("{} more flows are not listed\n", list.left_out));
    }
    if let Some(unseen) = &list.unseen {
        text.push_str(&format!(
            "some flows may not be seen: {}\n",
            visible(unseen)
        ));
    }
    text
}

/// A line for each address. `AGE` is how long it has been so, `LEFT` how long a quarantine still lasts.
pub(super) fn vips(entries: &[Entry], now_unix: u64) -> String {
    let mut table = table(&["ADDRESS", "SERVICE", "HOW", "IN USE", "AGE", "LEFT"]);
    for entry in entries {
        let service = entry.service.as_deref().unwrap_or("?");
        let since = entry.since_unix.map(|since| age(now_unix, since));
        let left = entry.until_unix.map(|until| age(until, now_unix));
        table.add_row([
            entry.address.to_string(),
            visible(service).into_owned(),
            entry.how.to_string(),
            if entry.in_use { "yes" } else { "no" }.to_owned(),
            since.map_or_else(|| "?".to_owned(), text::duration),
            left.map_or_else(String::new, text::duration),
        ]);
    }
    finish(&table)
}

pub(super) fn clients(clients: &[Client]) -> String {
    let mut table = table(&["CONTAINER", "NETWORKS", "ADDRESSES", "REACHES", "COOKIE"]);
    for Client { cookie, standing } in clients {
        let networks: Vec<&str> = standing.networks.iter().map(String::as_str).collect();
        let addresses: Vec<String> = standing.addresses.iter().map(ToString::to_string).collect();
        let reaches = match (standing.outside, networks.is_empty()) {
            (true, _) => "its networks and the host",
            (false, false) => "its networks",
            (false, true) => "nothing",
        };
        table.add_row([
            visible(&standing.name).into_owned(),
            visible(&networks.join(" ")).into_owned(),
            addresses.join(" "),
            reaches.to_owned(),
            cookie.to_string(),
        ]);
    }
    finish(&table)
}

/// What a release ended.
pub(super) fn released(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let service = entry.service.as_deref().unwrap_or("?");
        let (address, how) = (entry.address, entry.how);
        format!("{address}  {}  {how} released\n", visible(service))
    };
    entries.iter().map(line).collect()
}

/// A line for each option.
pub(super) fn options(entries: &[&OptionEntry]) -> String {
    // Markdown's marks are for the page that is made of the same table.
    let plain = |text: &str| text.replace('`', "");
    let mut table = table(&["OPTION", "DEFAULT", "VALUES", "DOES"]);
    for entry in entries {
        table.add_row([
            entry.name.to_owned(),
            plain(entry.default),
            plain(entry.values),
            plain(entry.does),
        ]);
    }
    finish(&table)
}

/// What a drain did.
pub(super) fn drained(answer: &DrainAnswer) -> String {
    let service = visible(&answer.service);
    let word = match (answer.not_yet_in.is_empty(), answer.draining) {
        (true, true) => "draining   no new flows; established flows are cut after lb_drain",
        (true, false) => "in service again",
        (false, true) => "to be drained",
        (false, false) => "to be in service again",
    };
    let line = |key: &crate::catalog::InstanceKey| {
        let key = key.to_string();
        format!("{service}  {}  {word}\n", visible(&key))
    };
    let mut text: String = answer.matched.iter().map(line).collect();
    if !answer.not_yet_in.is_empty() {
        let places: Vec<_> = answer.not_yet_in.iter().map(|it| visible(it)).collect();
        text += &format!(
            "ordered, but not yet in force in {}: see `lb-agent status`\n",
            places.join(" and ")
        );
    }
    text
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

/// `?` when it is not known, `-` when there is nothing to measure.
fn percentile(connects: Option<&Connects>, of: impl Fn(&Connects) -> Option<u64>) -> String {
    let micros = match connects.map(of) {
        None => return "?".to_owned(),
        Some(micros) => micros,
    };
    micros.map_or_else(|| "-".to_owned(), text::microseconds)
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

fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
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

/// No lines and no wrapping, so that the output can be cut and searched.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

pub(super) fn right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

pub(super) fn finish(table: &Table) -> String {
    let lines = table.lines();
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}
