//! What the stage counts of itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::watch;

/// Figures of the stage itself.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Map writes carried out.
    pub operations: AtomicU64,
    /// Map writes that the kernel refused.
    pub failures: AtomicU64,
    /// How long it took from a snapshot's arrival to the last map write.
    pub durations: Durations,
    /// Endpoints and addresses of backends where the maps may not yet hold what is wanted.
    pub pending: AtomicU64,
    /// Backends that the kernel reported as failing.
    pub suspicions: AtomicU64,
    /// Told with each tick of the loop that writes the maps: it makes progress.
    pub beat: watch::Sender<()>,
}

/// A histogram that one writes and others read.
#[derive(Debug, Default)]
pub struct Durations {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    pub(super) fn observe(&self, took: Duration) {
        let within = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        let within = within.unwrap_or(BOUNDS.len());
        self.counts[within].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The sum in microseconds, and for each bucket its upper bound in seconds and how many lie in it and in none before.
    pub fn read(&self) -> (u64, Vec<(f64, u64)>) {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        (
            self.micros.load(Ordering::Relaxed),
            bounds.zip(counts).collect(),
        )
    }
}

/// Upper bounds in seconds: from one service that changed to a first load of thousands.
const BOUNDS: [f64; 9] = [0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for millis in [1, 2, 300, 20_000] {
            durations.observe(Duration::from_millis(millis));
        }
        let (micros, buckets) = durations.read();
        assert_eq!(micros, 20_303_000);
        let held: Vec<_> = buckets
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(
            held,
            [(0.001, 1), (0.0025, 1), (1.0, 1), (f64::INFINITY, 1)]
        );
    }
}
