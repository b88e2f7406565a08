//! What operators order of instances: that they take flows, drain, or are in maintenance.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{catalog::InstanceKey, options::LONGEST};

/// What an operator orders of an instance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "for-tests", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It takes flows, as far as its health allows.
    #[default]
    Ready,
    /// It takes no new flow; established ones live on until a deadline.
    Drain,
    /// It takes no new flow, and established ones are cut at once, or at a deadline.
    Maintenance,
}

impl Mode {
    /// The word in JSON, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// An order as long as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Order {
    /// What holds.
    pub mode: Mode,
    /// When its flows are cut, if that was said: at another time than the options of the service say.
    pub until: Option<SystemTime>,
}

impl Order {
    /// What was ordered at `now`, with the time that flows may go on. The moment is kept in whole milliseconds, as in the
    /// file of orders, and never earlier.
    pub fn new(mode: Mode, deadline: Option<Duration>, now: SystemTime) -> Self {
        let until = deadline.map(|deadline| {
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            let until = (since + deadline.min(LONGEST))
                .as_nanos()
                .div_ceil(1_000_000);
            UNIX_EPOCH + Duration::from_millis(u64::try_from(until).unwrap_or(u64::MAX))
        });
        Self { mode, until }
    }

    /// When the connections of the front to it end, if that was ordered, in milliseconds since 1970: 0 is at once.
    pub fn cut_unix_ms(self) -> Option<u64> {
        let since = |until: SystemTime| until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = self.until.map(since);
        let until = until.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        match self.mode {
            Mode::Ready => None,
            Mode::Drain => until,
            Mode::Maintenance => Some(until.unwrap_or(0)),
        }
    }
}

/// The orders that are not for [`Mode::Ready`], by service and instance.
pub type Orders = BTreeMap<String, BTreeMap<InstanceKey, Order>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_the_same_word_everywhere() {
        for (mode, word) in [
            (Mode::Ready, "ready"),
            (Mode::Drain, "drain"),
            (Mode::Maintenance, "maintenance"),
        ] {
            assert_eq!(mode.as_str(), word);
            assert_eq!(serde_json::to_value(mode).unwrap(), word);
        }
    }

    #[test]
    fn the_front_ends_what_an_order_says_and_nothing_else() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let wait = Some(Duration::from_secs(5));
        for (mode, deadline, cut) in [
            (Mode::Ready, None, None),
            (Mode::Drain, None, None),
            (Mode::Drain, wait, Some(1_700_000_005_000)),
            (Mode::Maintenance, None, Some(0)),
            (Mode::Maintenance, wait, Some(1_700_000_005_000)),
        ] {
            let order = Order::new(mode, deadline, now);
            assert_eq!(order.cut_unix_ms(), cut, "{mode:?} {deadline:?}");
        }
    }

    #[test]
    fn a_deadline_is_kept_in_milliseconds_and_never_too_early() {
        let now = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001);
        let order = Order::new(Mode::Drain, Some(Duration::from_secs(2)), now);
        let until = order.until.unwrap();
        assert_eq!(until, UNIX_EPOCH + Duration::from_millis(1_700_000_002_001));
        assert_eq!(Order::new(Mode::Drain, None, now).until, None);
        let far = Order::new(Mode::Maintenance, Some(Duration::MAX), now);
        assert!(far.until.unwrap() <= now + LONGEST + Duration::from_millis(1));
    }
}
