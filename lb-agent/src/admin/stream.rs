//! The page's live data, as server-sent events: the texts that changed, and word that rows did.
//!
//! One task makes the texts, only while somebody listens and only of the services that somebody sees; whoever listens
//! takes his share of what all get. One that reads too slowly loses what was in between and is given everything again.

mod listeners;
mod tick;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    guard::{Access, Who},
    refusals::refused,
    reports::Hosts,
    router::Desk,
};
use listeners::LISTENERS;
pub(super) use listeners::Streams;
pub(super) use tick::seen;
use tick::{ABROAD, Last, texts};

/// The path.
pub(super) const STREAM_PATH: &str = "/api/v1/stream";

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    /// Labels of services, a line each.
    #[serde(default)]
    services: String,
    /// What the page tells that it shows, as [`seen`] makes it: whatever differs from that is told at once.
    seen: Option<String>,
}

/// `GET /api/v1/stream`.
pub(super) async fn stream(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Response {
    let wish = wish.map(|Query(wish)| wish).unwrap_or_default();
    let labels = labels(&wish.services);
    let session = match access.who {
        Who::Session(number) => Some(desk.guard.sessions.end_of(number)),
        Who::Nobody | Who::User(_) | Who::Token => None,
    };
    let Some(mut listener) = desk.streams.enter(labels, wish.seen, session) else {
        let why = format!("{LISTENERS} pages are open already: close one, or load this one anew");
        return refused(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    if access.published {
        listener.everybody = ABROAD;
    }
    let pieces = stream::unfold(listener, |mut listener| async move {
        let bytes = listener.next().await?;
        Some((Ok::<_, Infallible>(bytes), listener))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(pieces)).into_response()
}

/// The labels of a query, a line each: no more than a page of the list has.
pub(super) fn labels(lines: &str) -> BTreeSet<String> {
    lines.lines().take(LABELS).map(str::to_owned).collect()
}

/// Makes the texts until told to stop.
pub(super) async fn run(desk: Desk, stop: CancellationToken) {
    let mut snapshots = desk.snapshots.clone();
    let mut last = Last::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => changed,
            _ = ticks.tick() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
        let labels: BTreeSet<String> = {
            let seen = desk.streams.seen();
            if seen.by.is_empty() {
                last = Last::default();
                continue;
            }
            seen.by.values().flat_map(|it| it.iter().cloned()).collect()
        };
        let snapshot = snapshots.borrow_and_update().clone();
        // Host names change with the rows only.
        let report = desk.make_report(Hosts::LeftOut).await;
        let tick = {
            let rings = desk.history.read();
            let texts = texts(&report, &labels, &rings);
            last.tick(&report, snapshot, texts)
        };
        // An error means that the last one has gone meanwhile.
        let _ = desk.streams.ticks.send(Arc::new(tick));
        // Changes come in swarms: one look at all of them.
        if timeout(APART, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Between two moments, if nothing changes.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two moments, at least.
const APART: Duration = Duration::from_millis(500);
/// Services that one stream tells of: a page of the list.
pub(super) const LABELS: usize = 200;

#[cfg(test)]
mod tests;
