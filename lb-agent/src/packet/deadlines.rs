//! Until when flows to backends that were taken out may go on: as on the socket path, but that no flow has to be looked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    options::Options,
    removal::deadlines::{Deadlines, Now},
    snapshot::{Backend, Snapshot},
    sockets::Target,
};

/// What was taken out, and until when its flows may go on.
#[derive(Debug, Default)]
pub(super) struct Out {
    deadlines: Deadlines,
    /// The last complete snapshot.
    before: Option<Arc<Snapshot>>,
    /// Backends of an earlier agent that nobody names any more.
    orphans: BTreeMap<SocketAddr, Instant>,
}

impl Out {
    /// Goes over to a complete snapshot. `held` are the backends that the maps know; at first an earlier agent's.
    pub(super) fn follow(
        &mut self,
        snapshot: &Arc<Snapshot>,
        held: &BTreeSet<SocketAddr>,
        now: Now,
    ) {
        let nothing = Snapshot::default();
        let before = self.before.replace(Arc::clone(snapshot));
        if before.is_none() {
            let named: BTreeSet<_> = snapshot
                .services
                .values()
                .flat_map(|it| it.backends.values())
                .flat_map(Backend::addresses)
                .collect();
            // Their service's own time left with them.
            let until = now.instant + Options::default().drain;
            let left = held.difference(&named).map(|address| (*address, until));
            self.orphans.extend(left);
        }
        let before = before.as_deref().unwrap_or(&nothing);
        self.deadlines.follow(before, snapshot, now);
    }

    /// What was taken out, and whether its flows may go on.
    pub(super) fn targets(&self, now: Instant) -> BTreeMap<Target, bool> {
        let pending = self.deadlines.pending().iter();
        pending
            .map(|(target, pending)| (*target, pending.deadline() > now))
            .collect()
    }

    /// The backends of an earlier agent whose flows may go on.
    pub(super) fn orphans(&self, now: Instant) -> impl Iterator<Item = SocketAddr> {
        let all = self.orphans.iter();
        all.filter(move |(_, until)| **until > now)
            .map(|(address, _)| *address)
    }

    /// When something changes next without anybody saying so.
    pub(super) fn next(&self) -> Option<Instant> {
        self.orphans
            .values()
            .copied()
            .chain(self.deadlines.next())
            .min()
    }

    /// Notes that what was over at `now` is in the maps.
    pub(super) fn done(&mut self, now: Instant) {
        self.orphans.retain(|_, until| *until > now);
        for target in self.deadlines.due(now) {
            // It is not looked for again: no connect is under way that could still come.
            self.deadlines.ended(&target, 0, now + SETTLED);
        }
    }
}

/// Longer than those who look for sockets wait for stragglers.
const SETTLED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        catalog::{InstanceKey, SourceHealth},
        snapshot::{Service, ServiceName},
    };

    fn snapshot(backends: &[(u8, SourceHealth)]) -> Arc<Snapshot> {
        let backends = backends.iter().map(|&(last, source)| {
            let address = SocketAddr::from(([10, 0, 0, last], 80));
            let backend = Backend {
                source,
                ..Backend::usable(address)
            };
            (InstanceKey::new("n", last.to_string()), backend)
        });
        let service = Service {
            vip: Some([198, 18, 0, 9].into()),
            options: Options::default(),
            aliases: BTreeSet::new(),
            backends: backends.collect(),
        };
        let mut snapshot = Snapshot::default();
        snapshot
            .services
            .insert(ServiceName::whole("s"), service.into());
        Arc::new(snapshot)
    }

    fn told(out: &Out, now: Instant) -> Vec<(String, bool)> {
        let targets = out.targets(now);
        targets
            .into_iter()
            .map(|(target, lives)| (target.address.to_string(), lives))
            .collect()
    }

    #[test]
    fn what_is_taken_out_keeps_its_flows_for_the_time_of_a_drain() {
        use SourceHealth::{Maintenance, Passing};
        let start = Instant::now();
        let at = |seconds| Now {
            instant: start + Duration::from_secs(seconds),
            wall: SystemTime::UNIX_EPOCH,
        };
        let mut out = Out::default();
        let held = BTreeSet::new();
        let both = snapshot(&[(1, Passing), (2, Passing), (3, Passing)]);
        out.follow(&both, &held, at(0));
        assert_eq!((told(&out, start), out.next()), (vec![], None));
        // One leaves, one is drained.
        out.follow(&snapshot(&[(1, Passing), (2, Maintenance)]), &held, at(10));
        let (drained, left) = ("10.0.0.2:80".to_owned(), "10.0.0.3:80".to_owned());
        let during = at(39).instant;
        assert_eq!(
            told(&out, during),
            [(drained.clone(), true), (left.clone(), true)]
        );
        let end = at(40).instant;
        assert_eq!(out.next(), Some(end));
        assert_eq!(told(&out, end), [(drained.clone(), false), (left, false)]);
        out.done(end);
        // The one that is registered is remembered, and both are done.
        assert_eq!(
            (told(&out, end), out.next()),
            (vec![(drained, false)], None)
        );
        out.follow(&both, &held, at(50));
        assert_eq!(told(&out, at(50).instant), []);
    }

    #[test]
    fn what_left_while_no_agent_looked_has_its_time_from_now_on() {
        let now = Now::read();
        let mut out = Out::default();
        let held = [
            SocketAddr::from(([10, 0, 0, 1], 80)),
            SocketAddr::from(([10, 0, 0, 9], 80)),
        ];
        let one = snapshot(&[(1, SourceHealth::Passing)]);
        out.follow(&one, &held.into(), now);
        assert_eq!(out.orphans(now.instant).collect::<Vec<_>>(), [held[1]]);
        let end = out.next().unwrap();
        assert_eq!(end, now.instant + Duration::from_secs(30));
        assert_eq!(out.orphans(end).count(), 0);
        out.done(end);
        assert_eq!(out.next(), None);
        // Only the first snapshot meets an earlier agent's.
        out.follow(&one, &held.into(), now);
        assert_eq!(out.next(), None);
    }
}
