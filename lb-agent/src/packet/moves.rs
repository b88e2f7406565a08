//! How flows fare when a table changes, and when this host takes the VIPs over or gives them up: what is told of that, and
//! when. Pure, but for the log.

mod told;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::packet::{EndpointKey, Fate};
use lb_packet::Census;
use serde::{Deserialize, Serialize};

use self::told::Told;
use crate::snapshot::ServiceName;

/// What is known of flows that moved.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Flows by service, as counted last; only of those that have some.
    by_service: BTreeMap<ServiceName, Census>,
    /// All of them, also of endpoints whose service is not known.
    all: Census,
    /// Whether some are of such endpoints: nothing was heard of their services yet.
    nameless: bool,
    /// When that was.
    counted: Option<Instant>,
    /// What was told of services.
    told: Told,
    /// Whether tables have changed since.
    changed: bool,
    /// Packets in the midst of flows that were not known, when that was.
    unknown: u64,
    /// Flows that ended since their backend was gone.
    ended: u64,
    /// Those of them that are not yet told of.
    untold: u64,
    /// Whether this host answers for the VIPs.
    mine: bool,
    /// Whether it is known that it did not at some time since this agent started. One that goes on with the session of the agent before
    /// it has not taken anything over.
    others: bool,
    /// When it began to, and what was there; until what came of that is told.
    taken: Option<Taken>,
}

/// Flows of a service that are not as the table and this host's programs would have begun them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Strays {
    /// Open flows that stay with a backend that the table gives them no more.
    pub elsewhere: u64,
    /// Open flows of TCP whose beginning was not seen here: another host had them before.
    pub adopted: u64,
}

/// Packets in the midst of flows of TCP that were not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// Those that were sent where the table says.
    by_table: u64,
    /// Those whose clients were told that there is no such flow.
    refused: u64,
}

/// What was there when this host began to answer for the VIPs.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: Instant,
    met: Met,
    adopted: u64,
    /// Whether this host is known not to have had them before.
    is_sure: bool,
}

impl Met {
    /// As far as it was counted.
    pub(super) fn of(fates: Option<&BTreeMap<&'static str, u64>>) -> Self {
        let count = |fate: Fate| fates.and_then(|it| it.get(fate.as_str())).copied();
        Self {
            by_table: count(Fate::Unknown).unwrap_or(0),
            refused: count(Fate::NoFlow).unwrap_or(0),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            by_table: self.by_table.saturating_sub(before.by_table),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

impl Moves {
    /// A table has changed, or backends have gone.
    pub(super) fn changed(&mut self) {
        self.changed = true;
    }

    /// So many flows ended since their backend was gone.
    pub(super) fn ended(&mut self, flows: u64) {
        self.ended += flows;
        self.untold += flows;
        self.changed |= flows > 0;
    }

    /// Flows that ended since their backend was gone, since this agent started.
    pub(super) fn all_ended(&self) -> u64 {
        self.ended
    }

    /// Whether flows are to be counted: they never were, or what was found last may be different now. Where nothing strays, nothing does
    /// until a table changes or a packet of an unknown flow comes. Of those there may be some all the time: that is looked into after
    /// a while.
    pub(super) fn is_due(&self, met: Met, now: Instant) -> bool {
        let strays = || {
            self.by_service
                .values()
                .any(|it| it.elsewhere + it.adopted > 0)
        };
        let Some(counted) = self.counted else {
            return true;
        };
        let is_old = now.duration_since(counted) >= AGAIN;
        let news = || met.by_table != self.unknown || self.nameless || strays();
        self.changed || self.settles(now) || is_old && news()
    }

    /// Flows were counted. Services whose flows stay where the table does not lead any more are told of.
    pub(super) fn count(
        &mut self,
        found: &BTreeMap<EndpointKey, Census>,
        owners: &BTreeMap<EndpointKey, ServiceName>,
        met: Met,
        now: Instant,
    ) {
        let mut by_service: BTreeMap<ServiceName, Census> = BTreeMap::new();
        (self.all, self.nameless) = (Census::default(), false);
        for (key, census) in found {
            self.all += *census;
            match owners.get(key) {
                Some(name) => *by_service.entry(name.clone()).or_default() += *census,
                None => self.nameless = true,
            }
        }
        if self.counted.is_none() {
            self.told.begin(&by_service);
        }
        for name in self.told.news(&by_service, self.changed, now) {
            let census = by_service.get(&name).copied().unwrap_or_default();
            tracing::info!(
                service = %name,
                flows = census.flows,
                elsewhere = census.elsewhere,
                "the table changed: flows stay with backends that it leads them to no more"
            );
        }
        if self.untold > 0 {
            tracing::info!(flows = self.untold, "flows ended: their backend is gone");
            self.untold = 0;
        }
        self.by_service = by_service;
        self.counted = Some(now);
        self.changed = false;
        self.unknown = met.by_table;
    }

    /// Whether that this host answers for the VIPs is news.
    pub(super) fn is_news(&self, mine: bool) -> bool {
        self.mine != mine
    }

    /// Another host answers for the VIPs.
    pub(super) fn others(&mut self) {
        self.others = true;
    }

    /// This host answers for the VIPs from now on, or no more. Flows were counted just now.
    pub(super) fn own(&mut self, mine: bool, met: Met, now: Instant) {
        self.mine = mine;
        if mine {
            self.taken = Some(Taken {
                at: now,
                met,
                adopted: self.all.adopted,
                is_sure: self.others,
            });
            return;
        }
        self.settle(met);
        self.others = true;
        let all = self.all;
        tracing::info!(
            flows = all.flows,
            follow = all.follow,
            elsewhere = all.elsewhere,
            bound = all.bound,
            "gave the VIPs up: of the open flows these follow to the same backend, and the others end"
        );
    }

    /// Tells once what came of taking the VIPs over, when clients have had time to go on.
    pub(super) fn look(&mut self, met: Met, now: Instant) {
        if self.settles(now) {
            self.settle(met);
        }
    }

    /// Whether it is time to tell what came of taking the VIPs over.
    fn settles(&self, now: Instant) -> bool {
        let is_over = |it: Taken| now.duration_since(it.at) >= SETTLED;
        self.taken.is_some_and(is_over)
    }

    fn settle(&mut self, met: Met) {
        let Some(taken) = self.taken.take() else {
            return;
        };
        let came = Came {
            adopted: self.all.adopted.saturating_sub(taken.adopted),
            met: met.since(taken.met),
        };
        let Some(words) = came.words(taken.is_sure) else {
            return;
        };
        tracing::info!(
            adopted = came.adopted,
            packets = came.met.by_table,
            refused = came.met.refused,
            "{words}"
        );
    }

    /// What strays of each service.
    pub(super) fn strays(&self) -> BTreeMap<ServiceName, Strays> {
        let each = self.by_service.iter();
        each.map(|(name, census)| {
            let Census {
                elsewhere, adopted, ..
            } = *census;
            (name.clone(), Strays { elsewhere, adopted })
        })
        .collect()
    }
}

/// What came of taking the VIPs over, since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Came {
    adopted: u64,
    met: Met,
}

impl Came {
    /// What to say of it. An agent that has just started may only go on with what its host had before: then there is something to say
    /// only if something came.
    fn words(&self, is_sure: bool) -> Option<&'static str> {
        match (is_sure, *self == Self::default()) {
            (true, _) => Some("took the VIPs over: met these flows in their midst"),
            (false, false) => Some(
                "has the VIPs since its start, maybe as the agent before it: met these flows in their midst",
            ),
            (false, true) => None,
        }
    }
}

/// Until flows that stray, or that are met in their midst, are counted again.
const AGAIN: Duration = Duration::from_secs(10);
/// From when this host took the VIPs over until what came of that is told: neighbours have heard of it three times, and most clients
/// have sent something.
const SETTLED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
