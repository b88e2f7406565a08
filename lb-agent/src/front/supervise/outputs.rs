//! What the stage tells the others.

use std::sync::atomic::Ordering;

use super::{Stage, sent::Sent, telling::Telling};
use crate::catalog::Problem;

impl Stage {
    /// Tells what could not become a route.
    pub(super) fn show(&self, telling: &Telling) {
        let mut problems: Vec<Problem> = telling.problems().cloned().collect();
        problems.extend(self.trouble.clone());
        self.outputs.problems.send_if_modified(|known| {
            let new = *known != problems;
            *known = problems;
            new
        });
    }

    /// The front says that requests follow what was `sent`.
    pub(super) fn follows(&self, sent: &Sent) {
        let metrics = &self.outputs.metrics;
        let micros = u64::try_from(sent.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        metrics.changes.fetch_add(1, Ordering::Relaxed);
        metrics
            .last_duration_micros
            .store(micros, Ordering::Relaxed);
        self.routed(sent.reached);
    }

    pub(super) fn routed(&self, reached: Option<u64>) {
        if reached.is_some() {
            self.outputs.routed.send_replace(reached);
        }
    }

    pub(super) fn report(&mut self, trouble: Option<String>) {
        let trouble = trouble.map(|message| Problem::new("front", message));
        self.outputs.problems.send_if_modified(|known| {
            let before = known.clone();
            known.retain(|problem| Some(problem) != self.trouble.as_ref());
            known.extend(trouble.clone());
            *known != before
        });
        self.trouble = trouble;
    }
}
