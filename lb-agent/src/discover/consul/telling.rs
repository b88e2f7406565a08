//! What is told of the source: the catalog, its age, and why it cannot be read now.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::table::Table;
use crate::catalog::SourceState;

/// How long an error is told before its text changes: with each service that recovers another is named.
const REWORDED: Duration = Duration::from_secs(2);

/// When an error was told last, and when another text for it may be.
#[derive(Debug, Default)]
pub(super) struct Telling {
    last: Option<Instant>,
    pub(super) due: Option<Instant>,
}

impl Telling {
    /// What to tell at `now`: an error at once, and the end of it, but another text for it only after a while.
    fn choose(&mut self, now: Instant, told: Option<&str>, news: Option<String>) -> Option<String> {
        self.due = None;
        if told == news.as_deref() {
            return news;
        }
        let due = self.last.map(|last| last + REWORDED);
        if let (Some(told), Some(_), Some(due)) = (told, &news, due.filter(|due| now < *due)) {
            self.due = Some(due);
            return Some(told.to_owned());
        }
        self.last = Some(now);
        news
    }
}

/// Publishes what `table` has learnt. `heard` says whether Consul answered about services.
pub(super) fn publish(
    out: &watch::Sender<SourceState>,
    table: &mut Table,
    heard: bool,
    kept_at: Option<SystemTime>,
    telling: &mut Telling,
) {
    let catalog = table.take_catalog();
    let error = telling.choose(Instant::now(), out.borrow().error.as_deref(), table.error());
    out.send_if_modified(|state| {
        let changed = catalog.is_some();
        if let Some(catalog) = catalog {
            state.catalog = Some(Arc::new(catalog));
        }
        state.kept = state.catalog.is_some() && !table.is_complete();
        // Before the first full answer there is nothing whose age could be told, but for what was kept. A
        // later one that says nothing new wakes nobody: with many services there are dozens a second.
        if !table.is_complete() {
            state.updated = kept_at.filter(|_| state.catalog.is_some());
        } else if changed || heard && error.is_none() {
            state.updated = Some(SystemTime::now());
        }
        let turned = state.error != error;
        match (&state.error, &error) {
            (_, Some(now)) if turned => warn!(error = %now, "Consul cannot be read"),
            (Some(_), None) => info!("Consul can be read again"),
            _ => {}
        }
        state.error = error;
        changed || turned
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_at_once_and_worded_anew_only_after_a_while() {
        let mut telling = Telling::default();
        let now = Instant::now();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(telling.choose(now, None, text("a")), text("a"));
        assert_eq!(telling.choose(now, Some("a"), text("b")), text("a"));
        let due = telling.due.unwrap();
        assert_eq!(telling.choose(due, Some("a"), text("b")), text("b"));
        assert_eq!(telling.due, None);
        assert_eq!(telling.choose(due, Some("b"), text("c")), text("b"));
        assert_eq!(telling.choose(due, Some("b"), None), None);
        assert_eq!(telling.due, None);
    }
}
