//! New connections, one after the other, for as long as a step takes, and what became of each.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, PipeReader},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_testkit::Process;

use super::curl::Place;

/// A client that asks for one URL again and again, with a new connection each time.
pub(super) struct Traffic {
    process: Process,
    outcomes: Arc<Mutex<Vec<(Instant, Outcome)>>>,
    reader: Option<JoinHandle<()>>,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// curl's exit code; 7 is a connect that failed.
    exit: u8,
    /// 0 without an answer.
    status: u16,
}

impl Traffic {
    /// Starts asking from `place`; `arguments` hold the URL.
    pub(super) fn start(place: Place<'_>, arguments: &[&str], url: &str) -> Result<Self> {
        let separator = if url.contains('?') { '&' } else { '?' };
        let (process, stderr) = place
            .curl()
            .args([
                "--max-time",
                "10",
                "--rate",
                "50/s",
                "--output",
                "/dev/null",
            ])
            // The answer closes the connection, so the next request needs another.
            .args(["--header", "Connection: close"])
            // Standard output would come in blocks, standard error comes at once.
            .args([
                "--write-out",
                "%{stderr}%{exitcode} %{http_code} %{time_total}\n",
            ])
            .args(arguments)
            // More than anybody waits for.
            .arg(format!("{url}{separator}n=[1-1000000]"))
            .start_with_stderr()?;
        let outcomes = Arc::default();
        let reader = thread::spawn({
            let outcomes = Arc::clone(&outcomes);
            move || collect(stderr, &outcomes)
        });
        Ok(Self {
            process,
            outcomes,
            reader: Some(reader),
        })
    }

    /// How many requests have ended so far.
    pub(super) fn count(&self) -> usize {
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Fails unless `more` requests have ended since there were `before`.
    pub(super) fn ensure_more(&self, before: usize, more: usize) -> Result<usize> {
        let done = self.count() - before;
        ensure!(done >= more, "{done} of {more} requests are done");
        Ok(done)
    }

    /// Ends it, between two requests or in the middle of one, which then does not count.
    pub(super) fn finish(mut self) -> Result<Vec<Outcome>> {
        ensure!(
            self.process.is_running(),
            "curl ended before it was told to"
        );
        self.process.kill()?;
        if let Some(reader) = self.reader.take() {
            // The pipe is closed now; a panic in there is one here.
            reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(outcomes.iter().map(|(_, outcome)| *outcome).collect())
    }

    /// When the requests were begun that failed so far.
    pub(super) fn failures(&self) -> Vec<Instant> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = outcomes.iter().filter(|(_, outcome)| !outcome.is_good());
        bad.map(|(begun, _)| *begun).collect()
    }
}

fn collect(stderr: PipeReader, outcomes: &Mutex<Vec<(Instant, Outcome)>>) {
    let lines = BufReader::new(stderr).lines().map_while(Result::ok);
    for (took, outcome) in lines.filter_map(|line| Outcome::parse(&line)) {
        let ended = Instant::now();
        outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((ended.checked_sub(took).unwrap_or(ended), outcome));
    }
}

impl Outcome {
    /// With how long it took.
    fn parse(line: &str) -> Option<(Duration, Self)> {
        let mut words = line.split_whitespace();
        let outcome = Self {
            exit: words.next()?.parse().ok()?,
            status: words.next()?.parse().ok()?,
        };
        let seconds = words.next()?.parse().ok()?;
        Some((Duration::try_from_secs_f64(seconds).ok()?, outcome))
    }

    fn is_good(self) -> bool {
        self.exit == 0 && self.status == 200
    }

    /// Whether nobody answered the connect: what the kernel programs see and learn from.
    fn is_refused(self) -> bool {
        self.exit == 7
    }
}

/// Fails if any request failed; returns how many there were.
pub(super) fn ensure_all_good(what: &str, outcomes: &[Outcome]) -> Result<usize> {
    let bad = failures(outcomes);
    ensure!(
        bad.is_empty(),
        "of {} requests {what} some failed: {bad}",
        outcomes.len()
    );
    ensure!(!outcomes.is_empty(), "no request {what} was made");
    Ok(outcomes.len())
}

/// Fails if a request failed after the first failed connect, which tells the kernel; returns how many failed up to it.
pub(super) fn ensure_good_after_detection(outcomes: &[Outcome]) -> Result<usize> {
    let detection = outcomes.iter().position(|one| one.is_refused());
    let (before, after) = outcomes.split_at(detection.map_or(0, |at| at + 1));
    let bad = failures(after);
    ensure!(
        bad.is_empty(),
        "requests failed after the first failed connect: {bad}"
    );
    Ok(before.iter().filter(|one| !one.is_good()).count())
}

/// The failures among `outcomes`, each kind once with its number; empty if there are none.
fn failures(outcomes: &[Outcome]) -> String {
    let mut kinds = BTreeMap::new();
    for outcome in outcomes.iter().filter(|one| !one.is_good()) {
        let kind = match outcome.exit {
            0 => format!("HTTP {}", outcome.status),
            exit => format!("curl {exit}"),
        };
        *kinds.entry(kind).or_insert(0_u32) += 1;
    }
    let kinds: Vec<_> = kinds
        .iter()
        .map(|(kind, n)| format!("{n}× {kind}"))
        .collect();
    kinds.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Outcome = Outcome {
        exit: 0,
        status: 200,
    };
    const REFUSED: Outcome = Outcome { exit: 7, status: 0 };
    const RESET: Outcome = Outcome {
        exit: 56,
        status: 0,
    };
    const BROKEN: Outcome = Outcome {
        exit: 0,
        status: 502,
    };

    #[test]
    fn what_fails_up_to_the_first_refused_connect_is_the_detection() {
        let failed = |outcomes: &[Outcome]| ensure_good_after_detection(outcomes).ok();
        assert_eq!(failed(&[GOOD, GOOD]), Some(0));
        assert_eq!(failed(&[GOOD, RESET, REFUSED, GOOD]), Some(2));
        assert_eq!(failed(&[GOOD, REFUSED, GOOD, REFUSED]), None);
        assert_eq!(failed(&[REFUSED, BROKEN]), None);
        // Nothing told the kernel that it should have been better.
        assert_eq!(failed(&[GOOD, BROKEN]), None);
    }

    #[test]
    fn all_good_means_all_and_some() {
        assert_eq!(ensure_all_good("", &[GOOD, GOOD]).unwrap(), 2);
        assert!(ensure_all_good("", &[GOOD, BROKEN]).is_err());
        assert!(ensure_all_good("", &[]).is_err());
    }

    #[test]
    fn failures_are_told_by_kind() {
        let outcomes = [GOOD, BROKEN, REFUSED, BROKEN];
        assert_eq!(failures(&outcomes), "2× HTTP 502, 1× curl 7");
        assert_eq!(failures(&[GOOD]), "");
    }

    #[test]
    fn curls_own_words_are_no_outcome() {
        let took = Duration::from_millis;
        assert_eq!(Outcome::parse("7 000 0.25"), Some((took(250), REFUSED)));
        assert_eq!(Outcome::parse("0 200 0.001"), Some((took(1), GOOD)));
        assert_eq!(
            Outcome::parse("curl: (7) Failed to connect to 10.77.0.2"),
            None
        );
    }
}
