//! What was tried, and how it went.

use anyhow::Result;
use lb_testkit::guest::{Check, Outcome};

/// All of it, in order.
#[derive(Debug, Default)]
pub(crate) struct Tried(Vec<Check>);

impl Tried {
    /// Notes what came of trying `name`: what is to be said of it, or why it failed.
    pub(crate) fn note(&mut self, name: &str, result: Result<String>) {
        let (outcome, detail) = match result {
            Ok(detail) => (Outcome::Works, detail),
            Err(error) => (Outcome::Failed, format!("{error:#}")),
        };
        self.push(name, outcome, detail);
    }

    /// Notes that `name` was refused, and what was said.
    pub(crate) fn refused(&mut self, name: &str, said: String) {
        self.push(name, Outcome::Refused, said);
    }

    fn push(&mut self, name: &str, outcome: Outcome, detail: String) {
        // For whoever watches the console.
        eprintln!("lb-guest: {name}: {outcome:?} {detail}");
        self.0.push(Check {
            name: name.to_owned(),
            outcome,
            detail,
        });
    }

    pub(crate) fn into_checks(self) -> Vec<Check> {
        self.0
    }
}
