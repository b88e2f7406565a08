//! `vip`: lists the virtual addresses, pins one, or releases what is kept.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Answer, Exit, Output, PATIENCE, Vip,
    client::Client,
    table::{Rows, words},
};
use crate::{
    admin::{
        compose::age,
        report::{PinOrder, ReleaseOrder},
        text::{self, visible},
    },
    vip::Entry,
};

/// Does what `order` says.
pub(super) async fn vip(client: &Client, output: Output, order: &Vip) -> Answer {
    let entries = match order {
        Vip::List => client.vips(PATIENCE).await?,
        Vip::Pin { service, address } => {
            let (service, address) = (service.clone(), *address);
            client.pin(&PinOrder { service, address }, PATIENCE).await?
        }
        Vip::Release { target } => {
            let target = target.clone();
            client.release(&ReleaseOrder { target }, PATIENCE).await?
        }
    };
    let text = match (output, order) {
        (Output::Table | Output::Wide, Vip::Release { .. }) => released(&entries),
        _ => rows(&entries, now_unix()).print(output, &entries)?,
    };
    Ok((text, Exit::Fine))
}

fn now_unix() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// A line for each address. `AGE` is how long it has been so, `LEFT` how long a quarantine still lasts.
pub(super) fn rows(entries: &[Entry], now_unix: u64) -> Rows<6> {
    let mut rows = Rows::new(["ADDRESS", "SERVICE", "HOW", "IN USE", "AGE", "LEFT"].map(words));
    for entry in entries {
        let service = entry.service.as_deref().unwrap_or("?");
        let since = entry.since_unix.map(|since| age(now_unix, since));
        let left = entry.until_unix.map(|until| age(until, now_unix));
        rows.push([
            entry.address.to_string(),
            service.to_owned(),
            entry.how.to_string(),
            if entry.in_use { "yes" } else { "no" }.to_owned(),
            since.map_or_else(|| "?".to_owned(), text::duration),
            left.map_or_else(String::new, text::duration),
        ]);
    }
    rows
}

/// What a release ended.
fn released(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let service = entry.service.as_deref().unwrap_or("?");
        let (address, how) = (entry.address, entry.how);
        format!("{address}  {}  {how} released\n", visible(service))
    };
    entries.iter().map(line).collect()
}
