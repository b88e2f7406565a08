//! The door of the fuzz targets to what is printed.

use std::{path::Path, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    Client, Output, Style, backends, clients, events, explain, flows, json, order, packets,
    services, status, top, trace, vip,
};
use crate::admin::{packets::Line as PacketLine, report::Report, trace::Line};

/// What is printed in every form of an answer of this kind; why it cannot be, if it is none.
pub(crate) fn printed(kind: &str, body: &[u8]) -> Vec<String> {
    let forms = [Output::Table, Output::Wide, Output::Csv, Output::Json];
    let printed = forms.map(|output| match print(kind, body, output) {
        Ok(text) => text,
        Err(failure) => failure.told(output),
    });
    printed.into()
}

fn print(kind: &str, body: &[u8], output: Output) -> Result<String, super::Failure> {
    let client = Client::new(Path::new("/run/lb/admin.sock"));
    let reports = |body| client.current(body, |it: &Report| it.api);
    match kind {
        "status" => {
            let status = client.current(body, |it: &crate::admin::report::Status| it.api)?;
            Ok(status::print(&status, output, Style::Plain)?.0)
        }
        "report" => {
            let report = reports(body)?;
            let mut all = services::print(&report, &[], output, None)?.0;
            all += &backends::backends(&report, output, None)?.0;
            all += &status::print(&(&report).into(), output, Style::Plain)?.0;
            for service in report.services.iter().flatten() {
                all += &services::print(&report, &[], output, Some(&service.name))?.0;
            }
            Ok(all)
        }
        "top" => {
            let bodies = body.split(|&byte| byte == b'\n');
            let all = bodies.filter(|it| !it.is_empty()).map(reports);
            let all: Vec<_> = all.collect::<Result<_, _>>()?;
            Ok(top::fuzz::drawn(&all, Duration::from_secs(2)))
        }
        "flows" => flows::print(&read(&client, body)?, output),
        "clients" => {
            let all: Vec<_> = read(&client, body)?;
            clients::rows(&all).print(output, &all)
        }
        "vips" => {
            let all: Vec<_> = read(&client, body)?;
            vip::rows(&all, 1000).print(output, &all)
        }
        "events" => {
            let list: crate::admin::events::EventList = read(&client, body)?;
            events::rows(&list).print(output, &list.events)
        }
        "explain" => explain::print(&read(&client, body)?, output),
        "trace" => trace::FORM.line(&read::<Line>(&client, body)?, output),
        "packets" => packets::FORM.line(&read::<PacketLine>(&client, body)?, output),
        "way" => packets::print_way(&read(&client, body)?, output),
        "ordered" => Ok(order::ordered(&read(&client, body)?, None, output)?.0),
        // What the agent refuses with is its own words, which may have names in them.
        "refused" => {
            let status = axum::http::StatusCode::UNPROCESSABLE_ENTITY;
            Err(client.refused(status, body).into())
        }
        _ => json(&()),
    }
}

fn read<T: DeserializeOwned>(client: &Client, body: &[u8]) -> Result<T, super::Failure> {
    Ok(client.parse(body)?)
}
