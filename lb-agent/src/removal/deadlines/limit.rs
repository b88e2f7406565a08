//! Until when flows may go on: what an operator said, or what the service does, on the clock of this process. Pure.

use std::time::{Duration, Instant, SystemTime};

use crate::{
    options::{LONGEST, Options},
    order::Mode,
    snapshot,
};

/// One moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// That of this process, which nobody sets.
    pub instant: Instant,
    /// That of the wall, by which an operator's deadline is kept.
    pub wall: SystemTime,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// Until when flows may go on: until the later of these, and not at all where there is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// So long after their backend was taken out.
    pub(super) after: Option<Duration>,
    /// Until then: an operator said so.
    until: Option<SystemTime>,
}

impl Limit {
    /// The time of `lb_drain`.
    pub(super) fn after(time: Duration) -> Self {
        let (after, until) = (Some(time), None);
        Self { after, until }
    }

    /// That of a backend of a service with these options.
    pub(super) fn of(backend: &snapshot::Backend, options: &Options) -> Self {
        let order = backend.order;
        match (order.mode, order.until) {
            (Mode::Ready, _) | (Mode::Drain, None) => Self::after(options.drain),
            (Mode::Drain | Mode::Maintenance, until) => Self { after: None, until },
        }
    }

    /// That of flows which may be those of either.
    pub(super) fn later(self, other: Self) -> Self {
        Self {
            after: self.after.max(other.after),
            until: self.until.max(other.until),
        }
    }

    /// When that is, for a backend whose time counts from `since`.
    pub(super) fn ends(self, since: Instant, now: Now) -> Instant {
        let after = since + self.after.unwrap_or_default();
        self.until.map_or(after, |until| {
            let left = until.duration_since(now.wall).unwrap_or_default();
            // The wall's clock may have gone back by years since.
            let until = now.instant + left.min(LONGEST);
            match self.after {
                None => until,
                Some(_) => until.max(after),
            }
        })
    }
}
