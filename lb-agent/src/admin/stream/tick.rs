//! What one moment tells: the texts that changed since the one before it, and word that rows did. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use axum::body::Bytes;

use crate::{
    admin::{history::Rings, page::live::Live, published, report::Report},
    snapshot::{self, Snapshot},
};

/// What one moment tells.
#[derive(Debug, Default)]
pub(super) struct Tick {
    /// What a page of this moment shows, by [`seen`].
    pub(super) seen: String,
    /// Each service that somebody sees, and what concerns everybody under [`EVERYBODY`] and [`ABROAD`].
    pub(super) texts: HashMap<String, Texts>,
    /// Services whose rows are not what they were.
    changed: BTreeSet<String>,
    /// Whether something changed that every page shows.
    shape: bool,
}

/// Pieces of JSON: `"key":"text"` with commas between.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: String,
    pub(super) changed: String,
}

impl Tick {
    pub(super) fn bytes(
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

/// What a page that is made of `report` shows beside texts that change by themselves: the rows, by the number of the
/// snapshot, and what every page has.
pub(in crate::admin) fn seen(report: &Report) -> String {
    format!("{}-{:x}", report.snapshot.unwrap_or(0), shape(report))
}

/// By label, then by key.
pub(super) type ByLabel = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn texts(report: &Report, labels: &BTreeSet<String>, rings: &Rings) -> ByLabel {
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
pub(super) struct Last {
    texts: ByLabel,
    snapshot: Option<Arc<Snapshot>>,
    shape: Option<u64>,
}

impl Last {
    pub(super) fn tick(
        &mut self,
        report: &Report,
        snapshot: Option<Arc<Snapshot>>,
        texts: ByLabel,
    ) -> Tick {
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
            let labels = changes.map(|(name, _, there)| {
                let named = if there.is_some() { after } else { before };
                named.label(name).to_string()
            });
            tick.changed = labels.collect();
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

pub(super) fn piece(key: &str, text: &str) -> String {
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

/// The label of what concerns every page: nobody can ask for one that has a line break.
pub(super) const EVERYBODY: &str = "\n";

/// The label of the same where the page is published.
pub(super) const ABROAD: &str = "\n\n";
