//! The page's live data, as server-sent events: the texts that changed, and word that rows did.
//!
//! One task makes the texts, only while somebody listens and only of the services that somebody sees; whoever listens
//! takes his share of what all get. One that reads too slowly loses what was in between and is given everything again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    future::pending,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    action::refused,
    guard::{Access, Who},
    page::live::Live,
    published,
    report::Report,
    reports::Hosts,
    router::Desk,
    session::End,
};
use crate::snapshot::{self, Snapshot};

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

/// Everybody who listens.
#[derive(Debug)]
pub(super) struct Streams {
    ticks: broadcast::Sender<Arc<Tick>>,
    seen: Mutex<Seen>,
    stop: CancellationToken,
}

/// Who sees which services.
#[derive(Debug, Default)]
struct Seen {
    next: u64,
    by: BTreeMap<u64, Arc<BTreeSet<String>>>,
}

impl Streams {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            ticks: broadcast::Sender::new(BEHIND),
            seen: Mutex::default(),
            stop,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; `None` if all are taken.
    fn enter(
        self: &Arc<Self>,
        labels: BTreeSet<String>,
        shows: Option<String>,
        session: Option<End>,
    ) -> Option<Listener> {
        // Before the place is, so that no tick is missed.
        let ticks = self.ticks.subscribe();
        let labels = Arc::new(labels);
        let mut seen = self.seen();
        if seen.by.len() >= LISTENERS {
            return None;
        }
        let number = seen.next;
        seen.next += 1;
        seen.by.insert(number, Arc::clone(&labels));
        Some(Listener {
            streams: Arc::clone(self),
            number,
            labels,
            everybody: EVERYBODY,
            ticks,
            shows,
            session,
            complete: false,
            lost: false,
            greeted: false,
            over: false,
        })
    }
}

/// One who listens; his place is free when this is dropped.
struct Listener {
    streams: Arc<Streams>,
    number: u64,
    labels: Arc<BTreeSet<String>>,
    /// The label of what he is told beside those.
    everybody: &'static str,
    ticks: broadcast::Receiver<Arc<Tick>>,
    /// What his page shows, until the first tick has been compared with that.
    shows: Option<String>,
    /// The session that he showed: his stream ends with it.
    session: Option<End>,
    /// Whether he has had every text once.
    complete: bool,
    /// Whether he has lost something since.
    lost: bool,
    greeted: bool,
    /// Whether he was told that his session has ended.
    over: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.streams.seen().by.remove(&self.number);
    }
}

impl Listener {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(HELLO));
        }
        let stop = self.streams.stop.clone();
        let quiet = Instant::now() + QUIET;
        let mut over = std::pin::pin!(over(self.session.clone()));
        loop {
            let tick = tokio::select! {
                // Before what there is to tell, which may be something all the time.
                biased;
                () = stop.cancelled() => return None,
                () = &mut over => {
                    self.over = true;
                    return Some(Bytes::from_static(OVER));
                }
                // Proxies on the way close what is silent, and a client that is gone is noticed by this only.
                () = sleep_until(quiet) => return Some(Bytes::from_static(ALIVE)),
                tick = self.ticks.recv() => tick,
            };
            match tick {
                Ok(tick) => {
                    let shows = self.shows.take();
                    self.lost |= shows.is_some_and(|shows| shows != tick.seen);
                    let bytes = tick.bytes(&self.labels, self.everybody, self.complete, self.lost);
                    (self.complete, self.lost) = (true, false);
                    if !bytes.is_empty() {
                        return Some(bytes);
                    }
                }
                // What was in between may have told of other rows.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    (self.complete, self.lost) = (false, true);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Waits for the end of a session; for ever without one.
async fn over(session: Option<End>) {
    match session {
        None => pending().await,
        Some(End { ended, until }) => tokio::select! {
            () = ended.cancelled() => {}
            () = sleep_until(until.into()) => {}
        },
    }
}

/// What one moment tells.
#[derive(Debug, Default)]
struct Tick {
    /// What a page of this moment shows, by [`seen`].
    seen: String,
    /// Each service that somebody sees, and what concerns everybody under [`EVERYBODY`] and [`ABROAD`].
    texts: HashMap<String, Texts>,
    /// Services whose rows are not what they were.
    changed: BTreeSet<String>,
    /// Whether something changed that every page shows.
    shape: bool,
}

/// Pieces of JSON: `"key":"text"` with commas between.
#[derive(Debug, Default)]
struct Texts {
    all: String,
    changed: String,
}

impl Tick {
    fn bytes(
        &self,
        labels: &BTreeSet<String>,
        everybody: &str,
        complete: bool,
        lost: bool,
    ) -> Bytes {
        let mut out = String::new();
        let mine = labels.iter().map(String::as_str).chain([everybody]);
        let pieces: Vec<&str> = mine
            .filter_map(|label| self.texts.get(label))
            .map(|texts| if complete { &texts.changed } else { &texts.all })
            .map(String::as_str)
            .filter(|piece| !piece.is_empty())
            .collect();
        if !pieces.is_empty() {
            out.push_str("event: texts\ndata: {");
            out.push_str(&pieces.join(","));
            out.push_str("}\n\n");
        }
        let changed = complete && (self.shape || !self.changed.is_disjoint(labels));
        if changed || lost {
            out.push_str("event: resync\ndata: {}\n\n");
        }
        out.into()
    }
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

/// What a page that is made of `report` shows beside texts that change by themselves: the rows, by the number of the
/// snapshot, and what every page has.
pub(super) fn seen(report: &Report) -> String {
    format!("{}-{:x}", report.snapshot.unwrap_or(0), shape(report))
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

/// By label, then by key.
type ByLabel = BTreeMap<String, BTreeMap<String, String>>;

fn texts(report: &Report, labels: &BTreeSet<String>, rings: &super::history::Rings) -> ByLabel {
    let mut all = ByLabel::new();
    let parts = &report.components;
    for (label, parts) in [(EVERYBODY, parts), (ABROAD, &published::components(parts))] {
        let agent = [Live::agent(report, rings)].into_iter();
        let told = agent.chain(Live::parts(parts)).chain(Live::sources(report));
        let told = told.flat_map(Live::into_texts);
        all.insert(label.to_owned(), told.collect());
    }
    let services = report.services.iter().flatten();
    for service in services.filter(|service| labels.contains(&service.label)) {
        let backends = service.backends.iter();
        let live =
            |backend| Live::backend(service, backend, rings).with_cut(backend, report.now_unix);
        let backends = backends.map(live);
        let own = [Live::service(service, rings)].into_iter().chain(backends);
        let own = own.flat_map(Live::into_texts).collect();
        all.insert(service.label.clone(), own);
    }
    all
}

/// What was told last.
#[derive(Default)]
struct Last {
    texts: ByLabel,
    snapshot: Option<Arc<Snapshot>>,
    shape: Option<u64>,
}

impl Last {
    fn tick(&mut self, report: &Report, snapshot: Option<Arc<Snapshot>>, texts: ByLabel) -> Tick {
        let mut tick = Tick {
            seen: seen(report),
            ..Tick::default()
        };
        for (label, now) in &texts {
            let before = self.texts.get(label);
            let mut pieces = Texts::default();
            for (key, text) in now {
                let piece = piece(key, text);
                if before.and_then(|it| it.get(key)) != Some(text) {
                    push(&mut pieces.changed, &piece);
                }
                push(&mut pieces.all, &piece);
            }
            tick.texts.insert(label.clone(), pieces);
        }
        let shape = shape(report);
        tick.shape = self.shape.replace(shape).is_some_and(|it| it != shape);
        if let (Some(before), Some(after)) = (&self.snapshot, &snapshot) {
            let changes = snapshot::changes(&before.services, &after.services);
            tick.changed = changes.map(|(name, ..)| name.label()).collect();
        }
        self.snapshot = snapshot;
        self.texts = texts;
        tick
    }
}

/// What every page shows beside texts: which services there are and how they and the parts are.
fn shape(report: &Report) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in &report.components {
        (&part.name, part.mark as u8).hash(&mut hasher);
    }
    report.problems.hash(&mut hasher);
    report.services.is_some().hash(&mut hasher);
    for service in report.services.iter().flatten() {
        (&service.label, service.state).hash(&mut hasher);
    }
    for (name, source) in &report.sources {
        (name, source.updated_unix.is_some(), &source.error).hash(&mut hasher);
    }
    hasher.finish()
}

fn piece(key: &str, text: &str) -> String {
    // Texts: there is nothing that JSON has no form for, and no line break is left in it.
    let json = |text: &str| serde_json::to_string(text).unwrap_or_default();
    format!("{}:{}", json(key), json(text))
}

fn push(list: &mut String, piece: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(piece);
}

/// What begins a stream: after how many milliseconds a browser that lost it tries again.
const HELLO: &[u8] = b"retry: 1000\nevent: hello\ndata: {}\n\n";
/// The label of what concerns every page: nobody can ask for one that has a line break.
const EVERYBODY: &str = "\n";
/// The label of the same where the page is published.
const ABROAD: &str = "\n\n";
/// Between two moments, if nothing changes.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two moments, at least.
const APART: Duration = Duration::from_millis(500);
/// The last word of a stream whose session has ended.
const OVER: &[u8] = b"event: over\ndata: {}\n\n";
/// Proxies on the way close what is silent; and by this a page knows that there is an agent.
const ALIVE: &[u8] = b"event: alive\ndata: {}\n\n";
/// A stream that has nothing to tell for so long says that.
const QUIET: Duration = Duration::from_secs(15);
/// Streams at a time: connections of a listener are bounded, and some are for other things.
const LISTENERS: usize = 32;
/// Services that one stream tells of: a page of the list.
pub(super) const LABELS: usize = 200;
/// Moments that a slow reader may be behind.
const BEHIND: usize = 4;

#[cfg(test)]
mod tests;
