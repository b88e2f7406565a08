//! `flows`: who has one, and where it goes.

use std::time::Duration;

use super::{
    Answer, Exit, Failure, Output, PATIENCE,
    client::Client,
    table::{Rows, figures, words},
};
use crate::admin::{
    report::FlowList,
    text::{self, visible},
};

/// The open flows of all services, or of one.
pub(super) async fn flows(client: &Client, output: Output, service: Option<&str>) -> Answer {
    let list = client.flows(service, PATIENCE).await?;
    Ok((print(&list, output)?, Exit::Fine))
}

/// A line for each flow, then what is not among them.
pub(super) fn print(list: &FlowList, output: Output) -> Result<String, Failure> {
    let mut text = rows(list).print(output, list)?;
    if matches!(output, Output::Table | Output::Wide) {
        text += &left_out(list);
    }
    Ok(text)
}

fn rows(list: &FlowList) -> Rows<14> {
    let mut rows = Rows::new([
        words("CLIENT"),
        words("VIP"),
        words("SERVICE"),
        words("BACKEND"),
        words("ADDRESS").wide(),
        words("PROTO"),
        words("STATE"),
        words("AGE"),
        figures("PID"),
        words("COMMAND"),
        words("CONTAINER"),
        figures("UID").wide(),
        figures("NETNS").wide(),
        figures("SECONDS").wide(),
    ]);
    let known = |text: Option<&str>, unknown: &str| text.unwrap_or(unknown).to_owned();
    for flow in &list.flows {
        rows.push([
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
            flow.uid.to_string(),
            flow.netns.to_string(),
            flow.age_seconds.to_string(),
        ]);
    }
    rows
}

/// What is not in the list; nothing if all is.
pub(super) fn left_out(list: &FlowList) -> String {
    let mut text = String::new();
    if list.left_out > 0 {
        text += &format!("{} more flows are not listed\n", list.left_out);
    }
    if let Some(unseen) = &list.unseen {
        text += &format!("some flows may not be seen: {}\n", visible(unseen));
    }
    text
}
