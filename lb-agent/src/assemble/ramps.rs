//! Slow start: backends that came late, and how much of their share they have by now.
//!
//! No input and no clock of its own: snapshots and moments in, percents out. The stage that makes the snapshots owns
//! the value.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    catalog::InstanceKey,
    snapshot::{FULL, Service, Snapshot, changes},
};

/// The percent of its share that each late backend has, by service; all others have the whole of it.
pub type Percents = BTreeMap<Arc<str>, BTreeMap<InstanceKey, u8>>;

/// The backends that have not their whole share yet.
#[derive(Debug, Default)]
pub(super) struct Ramps {
    /// Whether all that was there when the agent began is known.
    begun: bool,
    ramps: BTreeMap<Arc<str>, BTreeMap<InstanceKey, Ramp>>,
}

#[derive(Clone, Copy, Debug)]
struct Ramp {
    since: Instant,
    /// How long it takes; more than nothing.
    over: Duration,
}

impl Ramps {
    /// Notes which backends became usable from `before` to `after`, which is now, and forgets those that no longer are.
    /// Says whether any did either.
    pub(super) fn follow(&mut self, before: &Snapshot, after: &Snapshot, now: Instant) -> bool {
        let mut changed = false;
        // An instance is as usable in the parts as in the whole.
        let wholes = changes(&before.services, &after.services).filter(|it| it.0.tag.is_none());
        for (name, old, new) in wholes {
            let (old, usable) = (usable(old), usable(new));
            if let Some(ramps) = self.ramps.get_mut(&name.service) {
                let known = ramps.len();
                ramps.retain(|key, _| usable.contains_key(key));
                changed |= ramps.len() < known;
            }
            let over = new.map_or(Duration::ZERO, |it| it.options.slow_start);
            // Whoever is there at the agent's start has had its flows all the time.
            if !self.begun || over.is_zero() {
                continue;
            }
            let since = now;
            // One that moved is another process.
            for (key, _) in usable.iter().filter(|(key, at)| old.get(*key) != Some(at)) {
                let ramps = self.ramps.entry(name.service.clone()).or_default();
                ramps.insert((*key).clone(), Ramp { since, over });
                changed = true;
            }
        }
        self.ramps.retain(|_, ramps| !ramps.is_empty());
        self.begun |= after.complete;
        changed
    }

    /// What each has by now. Forgets those that have all of it.
    pub(super) fn percents(&mut self, now: Instant) -> Percents {
        for ramps in self.ramps.values_mut() {
            ramps.retain(|_, ramp| ramp.percent(now) < FULL);
        }
        self.ramps.retain(|_, ramps| !ramps.is_empty());
        let percents = |ramps: &BTreeMap<InstanceKey, Ramp>| {
            let percents = ramps
                .iter()
                .map(|(key, ramp)| (key.clone(), ramp.percent(now)));
            percents.collect()
        };
        let ramps = self.ramps.iter();
        ramps
            .map(|(service, ramps)| (service.clone(), percents(ramps)))
            .collect()
    }

    /// When one of them will have more than it has `now`.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let ramps = self.ramps.values().flat_map(BTreeMap::values);
        ramps.map(|ramp| ramp.next(now)).min()
    }
}

impl Ramp {
    /// The steps that lie behind it.
    fn steps(&self, now: Instant) -> u8 {
        let elapsed = now.saturating_duration_since(self.since).as_nanos();
        let steps = elapsed * u128::from(STEPS) / self.over.as_nanos().max(1);
        u8::try_from(steps).unwrap_or(STEPS).min(STEPS)
    }

    fn percent(&self, now: Instant) -> u8 {
        FIRST + (FULL - FIRST) / STEPS * self.steps(now)
    }

    fn next(&self, now: Instant) -> Instant {
        let steps = u32::from(self.steps(now)) + 1;
        // Rounded up: at that moment the step lies behind it.
        let step = self.over / u32::from(STEPS) + Duration::from_nanos(1);
        self.since + step * steps
    }
}

/// The instances of `service` that take new flows, and where.
fn usable(service: Option<&Arc<Service>>) -> BTreeMap<&InstanceKey, SocketAddr> {
    let usable = service.into_iter().flat_map(|it| it.usable());
    usable
        .map(|(key, backend)| (key, backend.address))
        .collect()
}

/// The percent that a backend begins with.
const FIRST: u8 = 10;
/// The steps from there to all of it.
const STEPS: u8 = 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        options::Options,
        snapshot::{Backend, ProbeState, ServiceName},
    };

    const OVER: Duration = Duration::from_secs(100);

    /// A snapshot in which `www` has these backends, usable or not.
    fn www(complete: bool, over: Duration, backends: &[(&str, bool)]) -> Snapshot {
        let backend = |&(id, up): &(&str, bool)| {
            let mut backend = Backend::usable("10.0.0.1:80".parse().unwrap());
            backend.probe.state = if up { ProbeState::Up } else { ProbeState::Down };
            (key(id), backend)
        };
        let service = Service {
            vip: None,
            options: Options {
                slow_start: over,
                ..Options::default()
            },
            aliases: BTreeSet::new(),
            backends: backends.iter().map(backend).collect(),
        };
        let services = [
            (ServiceName::whole("www"), Arc::new(service.clone())),
            (ServiceName::part("www", "hello"), Arc::new(service)),
        ];
        Snapshot {
            complete,
            services: services.into(),
            ..Snapshot::default()
        }
    }

    fn key(id: &str) -> InstanceKey {
        InstanceKey::new("n", id)
    }

    /// Ramps that know `a` from the agent's start, and the snapshot of it.
    fn begun() -> (Ramps, Snapshot) {
        let mut ramps = Ramps::default();
        let first = www(true, OVER, &[("a", true)]);
        assert!(!ramps.follow(&Snapshot::default(), &first, Instant::now()));
        (ramps, first)
    }

    #[track_caller]
    fn check(ramps: &mut Ramps, now: Instant, expect: &[(&str, u8)]) {
        let percents = ramps.percents(now);
        let of_www = percents.get("www").cloned().unwrap_or_default();
        let expect = expect.iter().map(|&(id, percent)| (key(id), percent));
        assert_eq!(of_www, expect.collect());
        assert_eq!(percents.contains_key("www"), !of_www.is_empty());
    }

    #[test]
    fn one_that_comes_has_a_tenth_and_the_rest_in_ten_equal_steps() {
        let (mut ramps, first) = begun();
        let now = Instant::now();
        assert!(ramps.follow(&first, &www(true, OVER, &[("a", true), ("b", true)]), now));
        let mut percents = Vec::new();
        let mut moment = now;
        while let Some(next) = ramps.next(moment) {
            percents.push(ramps.percents(moment)["www"][&key("b")]);
            let early = next - Duration::from_micros(1);
            check(&mut ramps, early, &[("b", *percents.last().unwrap())]);
            moment = next;
            ramps.percents(moment);
        }
        assert_eq!(percents, [10, 19, 28, 37, 46, 55, 64, 73, 82, 91]);
        let took = moment - now;
        assert!(
            took >= OVER && took < OVER + Duration::from_millis(1),
            "{took:?}"
        );
    }

    #[test]
    fn whoever_is_known_at_the_start_is_not_held_back() {
        let mut ramps = Ramps::default();
        let now = Instant::now();
        let moments = [
            www(false, OVER, &[]),
            www(false, OVER, &[("a", true), ("b", false)]),
            // The last of the first verdicts.
            www(true, OVER, &[("a", true), ("b", true), ("c", false)]),
        ];
        let mut before = Snapshot::default();
        for after in moments {
            assert!(!ramps.follow(&before, &after, now));
            before = after;
        }
        check(&mut ramps, now, &[]);
        // One that was down at the start is not in service before it is up.
        let after = www(true, OVER, &[("a", true), ("b", true), ("c", true)]);
        assert!(ramps.follow(&before, &after, now));
        check(&mut ramps, now, &[("c", 10)]);
    }

    #[test]
    fn one_that_fails_meanwhile_begins_again() {
        let (mut ramps, first) = begun();
        let now = Instant::now();
        let both = www(true, OVER, &[("a", true), ("b", true)]);
        let fails = www(true, OVER, &[("a", true), ("b", false)]);
        ramps.follow(&first, &both, now);
        assert!(ramps.follow(&both, &fails, now + OVER / 2));
        check(&mut ramps, now + OVER / 2, &[]);
        assert!(ramps.follow(&fails, &both, now + OVER));
        check(&mut ramps, now + OVER, &[("b", 10)]);
        assert!(ramps.follow(&both, &Snapshot::default(), now + OVER));
        check(&mut ramps, now + OVER, &[]);
        assert_eq!(ramps.next(now + OVER), None);
    }

    #[test]
    fn one_that_moves_begins_again() {
        let (mut ramps, first) = begun();
        let mut moved = first.clone();
        for service in moved.services.values_mut() {
            let backends = &mut Arc::make_mut(service).backends;
            backends.get_mut(&key("a")).unwrap().address.set_port(81);
        }
        let now = Instant::now();
        assert!(ramps.follow(&first, &moved, now));
        check(&mut ramps, now, &[("a", 10)]);
    }

    #[test]
    fn what_changes_beside_leaves_a_ramp_alone() {
        let (mut ramps, first) = begun();
        let now = Instant::now();
        let both = www(true, OVER, &[("a", true), ("b", true)]);
        ramps.follow(&first, &both, now);
        let other = www(true, OVER * 2, &[("a", false), ("b", true)]);
        assert!(!ramps.follow(&both, &other, now + OVER / 2));
        check(&mut ramps, now + OVER / 2, &[("b", 55)]);
    }

    #[test]
    fn without_the_option_nobody_is_held_back() {
        let (mut ramps, first) = begun();
        let now = Instant::now();
        let both = www(true, Duration::ZERO, &[("a", true), ("b", true)]);
        assert!(!ramps.follow(&first, &both, now));
        check(&mut ramps, now, &[]);
        // Nor when it is set later on.
        let later = www(true, OVER, &[("a", true), ("b", true)]);
        assert!(!ramps.follow(&both, &later, now));
        check(&mut ramps, now, &[]);
    }
}
