//! The time by which quarantines end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The time of day when the stage began, and as much later as it has run: a clock that is set meanwhile ends no quarantine, and
/// prolongs none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Duration,
    at: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            began: now(),
            at: Instant::now(),
        }
    }

    /// Since 1970.
    pub(super) fn now(self) -> Duration {
        self.began + self.at.elapsed()
    }
}

/// The time since 1970; a clock before that stands still.
pub(super) fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}
