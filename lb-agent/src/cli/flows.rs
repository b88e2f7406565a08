//! `flows`: who has one, and where it goes.

use std::time::Duration;

use super::{
    Answer, Exit, Output, PATIENCE,
    client::Client,
    json,
    table::{finish, table},
};
use crate::admin::{
    report::FlowList,
    text::{self, visible},
};

/// The open flows of all services, or of one.
pub(super) async fn flows(client: &Client, output: Output, service: Option<&str>) -> Answer {
    let list = client.flows(service, PATIENCE).await?;
    let text = match output {
        Output::Table => table_of(&list),
        Output::Json => json(&list)?,
    };
    Ok((text, Exit::Fine))
}

/// A line for each flow, then what is not among them.
pub(super) fn table_of(list: &FlowList) -> String {
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
