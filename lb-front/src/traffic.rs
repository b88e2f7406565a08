//! What went to and from somebody, and how long it took: figures of one worker.

use std::time::Duration;

/// The sums over requests.
#[derive(Default)]
pub(super) struct Traffic {
    /// How many took up to each of [`BOUNDS`] and longer than the one before; the last are all others.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    /// Microseconds that all of them took.
    pub(super) micros: u64,
    /// Bytes of requests' bodies.
    pub(super) received: u64,
    /// Bytes of answers' bodies.
    pub(super) sent: u64,
}

impl Traffic {
    /// Counts one request, whose time is `None` if it says nothing.
    pub(super) fn count(&mut self, received: u64, sent: u64, took: Option<Duration>) {
        self.received += received;
        self.sent += sent;
        if let Some(took) = took {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS.iter().position(|&bound| micros <= bound);
            self.buckets[bucket.unwrap_or(BOUNDS.len())] += 1;
            self.micros = self.micros.saturating_add(micros);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.micros = self.micros.saturating_add(other.micros);
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// The sum of two rows of buckets, of which either may be the shorter one.
pub(super) fn add_buckets(sum: &mut Vec<u64>, more: &[u64]) {
    if sum.len() < more.len() {
        sum.resize(more.len(), 0);
    }
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// In microseconds.
pub(super) const BOUNDS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
