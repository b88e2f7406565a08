//! How flows fare when a table changes, and when this host takes the VIPs over or gives them up: what is told of that, and
//! when. Pure, but for the log.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::packet::{EndpointKey, Fate};
use lb_packet::Census;
use serde::{Deserialize, Serialize};

use crate::snapshot::ServiceName;

/// What is known of flows that moved.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Flows by service, as counted last; only of those that have some.
    by_service: BTreeMap<ServiceName, Census>,
    /// When that was.
    counted: Option<Instant>,
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
    /// When it began to, and how many packets were met until then.
    taken: Option<(Instant, Met)>,
    /// Whether what came of that is told.
    settled: bool,
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

    /// Whether flows are to be counted: what was found last may be different now. Where nothing strays, nothing does until a table
    /// changes or a packet of an unknown flow comes.
    pub(super) fn is_due(&self, met: Met, now: Instant) -> bool {
        let strays = || {
            self.by_service
                .values()
                .any(|it| it.elsewhere + it.adopted > 0)
        };
        let is_old = || {
            self.counted
                .is_none_or(|it| now.duration_since(it) >= AGAIN)
        };
        self.changed || met.by_table != self.unknown || is_old() && strays()
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
        for (key, census) in found {
            if let Some(name) = owners.get(key) {
                *by_service.entry(name.clone()).or_default() += *census;
            }
        }
        for (name, census) in &by_service {
            let before = self.by_service.get(name).map_or(0, |it| it.elsewhere);
            if self.changed && census.elsewhere > before {
                tracing::info!(
                    service = %name,
                    flows = census.flows,
                    elsewhere = census.elsewhere,
                    "the table changed: flows stay with backends that it leads them to no more"
                );
            }
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

    /// This host answers for the VIPs from now on, or no more. Flows were counted just now.
    pub(super) fn own(&mut self, mine: bool, met: Met, now: Instant) {
        self.mine = mine;
        if mine {
            self.taken = Some((now, met));
            self.settled = false;
            return;
        }
        self.settle(met);
        let all = self.all();
        tracing::info!(
            flows = all.flows,
            follow = all.follow,
            elsewhere = all.elsewhere,
            bound = all.bound,
            "gave the VIPs up: of the open flows these follow to the same backend, and the others end"
        );
        self.taken = None;
    }

    /// Tells once what came of taking the VIPs over, when clients have had time to go on.
    pub(super) fn look(&mut self, met: Met, now: Instant) {
        if self
            .taken
            .is_some_and(|(since, _)| now.duration_since(since) >= SETTLED)
        {
            self.settle(met);
        }
    }

    fn settle(&mut self, met: Met) {
        let Some((_, before)) = self.taken.filter(|_| !self.settled) else {
            return;
        };
        self.settled = true;
        let met = met.since(before);
        tracing::info!(
            adopted = self.all().adopted,
            packets = met.by_table,
            refused = met.refused,
            "took the VIPs over: met these flows in their midst"
        );
    }

    fn all(&self) -> Census {
        self.by_service
            .values()
            .fold(Census::default(), |mut sum, it| {
                sum += *it;
                sum
            })
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

/// Until flows that stray are counted again.
const AGAIN: Duration = Duration::from_secs(10);
/// From when this host took the VIPs over until what came of that is told: neighbours have heard of it three times, and most clients
/// have sent something.
const SETTLED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use lb_common::{Be16, Be32, packet::scope};

    use super::*;

    fn key(vip: u32, scope: u8) -> EndpointKey {
        EndpointKey {
            vip: Be32::from_host(vip),
            port: Be16::from_host(80),
            proto: 6,
            scope,
        }
    }

    fn census(flows: u64, elsewhere: u64, adopted: u64) -> Census {
        Census {
            flows,
            elsewhere,
            adopted,
            ..Census::default()
        }
    }

    fn met(by_table: u64, refused: u64) -> Met {
        Met { by_table, refused }
    }

    #[test]
    fn flows_of_both_families_are_their_service_s() {
        let mut moves = Moves::default();
        let (www, api) = (ServiceName::whole("www"), ServiceName::whole("api"));
        let owners = [
            (key(1, 0), www.clone()),
            (key(1, scope::V6), www.clone()),
            (key(2, 0), api.clone()),
        ];
        let found = [
            (key(1, 0), census(5, 2, 1)),
            (key(1, scope::V6), census(3, 1, 0)),
            (key(2, 0), census(4, 0, 0)),
            // It left while it was counted.
            (key(3, 0), census(9, 9, 9)),
        ];
        moves.count(&found.into(), &owners.into(), met(0, 0), Instant::now());
        let strays = |elsewhere, adopted| Strays { elsewhere, adopted };
        assert_eq!(
            moves.strays(),
            BTreeMap::from([(www, strays(3, 1)), (api, strays(0, 0))])
        );
    }

    #[test]
    fn flows_are_counted_only_when_something_may_have_changed() {
        let (mut moves, start) = (Moves::default(), Instant::now());
        let owners = BTreeMap::from([(key(1, 0), ServiceName::whole("www"))]);
        let later = start + AGAIN;
        assert!(!moves.is_due(met(0, 0), start));
        moves.changed();
        assert!(moves.is_due(met(0, 0), start));
        let nothing = BTreeMap::from([(key(1, 0), census(7, 0, 0))]);
        moves.count(&nothing, &owners, met(0, 0), start);
        assert!(!moves.is_due(met(0, 0), later));
        // Who is told that there is no flow has none.
        assert!(!moves.is_due(met(0, 3), later));
        assert!(moves.is_due(met(1, 3), start));
        let some = BTreeMap::from([(key(1, 0), census(7, 0, 1))]);
        moves.count(&some, &owners, met(1, 3), start);
        assert!(!moves.is_due(met(1, 3), start));
        assert!(moves.is_due(met(1, 3), later));
        moves.ended(0);
        assert!(!moves.is_due(met(1, 3), start));
        moves.ended(2);
        assert!(moves.is_due(met(1, 3), start));
        assert_eq!(moves.all_ended(), 2);
    }

    #[test]
    fn a_takeover_is_over_after_a_while_or_when_the_vips_go_again() {
        let (mut moves, start) = (Moves::default(), Instant::now());
        assert!(!moves.is_news(false));
        moves.own(true, met(4, 4), start);
        assert!(moves.is_news(false) && !moves.is_news(true));
        moves.look(met(5, 5), start);
        assert!(!moves.settled);
        moves.look(met(5, 5), start + SETTLED);
        assert!(moves.settled);
        moves.own(false, met(6, 6), start);
        assert!(moves.taken.is_none());
        moves.own(true, met(6, 6), start);
        assert!(!moves.settled);
        assert_eq!(met(9, 7).since(met(6, 6)), met(3, 1));
    }
}
