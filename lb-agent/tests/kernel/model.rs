//! Random changes of a small world, and after each of them the kernel's answers beside those of a plain model.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;
use lb_agent::desired::{Desired, Endpoint};
use lb_common::{BackendId, Balance, PROTO_TCP, PROTO_UDP, Refusal, ServiceKey};

use super::{
    lookups::{Answer, Ask, Flow, PLACES, Servers, VIPS, add_service, refusal, seeded, share},
    world::World,
};

/// What the programs keep between two flows, and what the test holds.
#[derive(Default)]
struct Model {
    desired: Desired,
    suspects: BTreeSet<SocketAddr>,
    /// Whose turn it is, by endpoint.
    turns: BTreeMap<ServiceKey, usize>,
    /// Whom the client was given last, by VIP and protocol.
    kept: BTreeMap<(u8, u8), (SocketAddr, BackendId)>,
    /// What the client's hash chose from these slots.
    hashed: BTreeMap<ServiceKey, (Vec<SocketAddr>, SocketAddr)>,
    held: Vec<(Flow, BackendId)>,
}

#[test]
fn whatever_changes_the_kernel_answers_as_the_model_does() {
    let mut rng = seeded();
    let (mut world, servers, cookie) = Servers::with_datagrams();
    let mut model = Model::default();
    // Of the plans: what leaves has always rested when the next change comes.
    let mut now = Instant::now();
    for change in 0..300 {
        now += Duration::from_secs(10);
        model.change(&mut rng, &mut world, &servers, now);
        for _ in 0..8 {
            let (ask, place) = (Ask::random(&mut rng), *rng.choice(&PLACES).unwrap());
            world.maps.set_client(cookie, place).unwrap();
            let key = ask.looked_up(&model.desired.services, place);
            let context = format!("change {change}: {ask:?} from {place:?} by {key:?}");
            let hold = rng.u8(..4) == 0;
            model.check(&world, &servers, ask, key, hold, &context);
        }
        model.check_counts(&world);
    }
    model.held.clear();
    model.check_counts(&world);
}

impl Model {
    /// One random change, in the maps as well.
    fn change(&mut self, rng: &mut Rng, world: &mut World, servers: &Servers, now: Instant) {
        match rng.u8(..10) {
            0..5 => {
                let vip = *rng.choice(&VIPS).unwrap();
                let proto = *rng.choice(&[PROTO_TCP, PROTO_UDP]).unwrap();
                let last = |key: &ServiceKey| key.vip.host().to_be_bytes()[3];
                let services = &mut self.desired.services;
                services.retain(|key, _| last(key) != vip || key.proto != proto);
                if rng.u8(..4) > 0 {
                    add_service(rng, &servers.all, &mut self.desired, vip, proto);
                }
                share(rng, &mut self.desired);
            }
            5 => self.desired = servers.desired(rng),
            6 => share(rng, &mut self.desired),
            7 => self.suspect(rng, world),
            8 if !self.held.is_empty() => drop(self.held.swap_remove(rng.usize(..self.held.len()))),
            _ if rng.u8(..8) == 0 => world.restart(),
            _ => {}
        }
        self.desired.complete = true;
        assert_eq!(world.bring_to(&self.desired, now), vec![]);
        let services = &self.desired.services;
        self.turns.retain(|key, _| services.contains_key(key));
        self.hashed.retain(|key, _| services.contains_key(key));
        // Whoever comes back to a freed index comes back unsuspected.
        let there = |it: &SocketAddr| world.installed.backends.contains_key(it);
        self.suspects.retain(there);
    }

    /// Lets the kernel suspect somebody, or suspect nobody any more, or nobody since a moment ago.
    fn suspect(&mut self, rng: &mut Rng, world: &World) {
        let all: Vec<_> = world.installed.backends.keys().copied().collect();
        let Some(&backend) = rng.choice(&all) else {
            return;
        };
        if rng.u8(..3) > 0 {
            world.suspect(backend, 3600);
            self.suspects.insert(backend);
        } else {
            world.suspect(backend, -1);
            self.suspects.remove(&backend);
        }
    }

    fn check(
        &mut self,
        world: &World,
        servers: &Servers,
        ask: Ask,
        key: Option<ServiceKey>,
        hold: bool,
        context: &str,
    ) {
        let found = key.map(|key| (key, self.desired.services[&key].clone()));
        let allowed = match &found {
            Some((key, endpoint)) if !endpoint.slots.is_empty() => {
                Ok(self.allowed(world, ask, key, endpoint))
            }
            Some((_, endpoint)) => Err(refusal(endpoint)),
            None => Err(Refusal::Unknown),
        };
        match (servers.ask(world, ask), allowed, found) {
            (Answer::Refused(found), Err(expected), _) => assert_eq!(found, expected, "{context}"),
            (Answer::Backend(backend, flow), Ok(allowed), Some((key, endpoint))) => {
                assert!(
                    allowed.contains(&backend),
                    "{context}: {backend} is none of {allowed:?}"
                );
                self.note(world, ask, key, &endpoint, backend);
                if hold && !ask.way.sends_only() {
                    let counted_at = world.installed.backends[&backend].counted_at;
                    self.held.push((flow, counted_at));
                }
            }
            (Answer::Refused(Refusal::NoPath), Ok(allowed), _)
                if !allowed.iter().all(|it| ask.way.reaches(it)) => {}
            (found, expected, _) => panic!("{context}: {found:?} instead of {expected:?}"),
        }
    }

    /// Whom the next flow may meet.
    fn allowed(
        &mut self,
        world: &World,
        ask: Ask,
        key: &ServiceKey,
        endpoint: &Endpoint,
    ) -> BTreeSet<SocketAddr> {
        let slots = &endpoint.slots;
        let suspected = |it: &SocketAddr| self.suspects.contains(it);
        if endpoint.affinity_seconds > 0
            && let Some((last, id)) = self.kept.get(&(ask.vip, key.proto))
            && slots.contains(last)
            && world.installed.backends[last].id == *id
            && !suspected(last)
        {
            return BTreeSet::from([*last]);
        }
        let good: BTreeSet<_> = slots.iter().copied().filter(|it| !suspected(it)).collect();
        match endpoint.balance {
            Balance::RoundRobin => {
                let turn = self.turns.entry(*key).or_default();
                let first = *turn % slots.len();
                *turn += 1;
                // From its turn on the first who is not suspected.
                let ring = slots.iter().cycle().skip(first).take(slots.len());
                let next = ring.copied().find(|it| good.contains(it));
                BTreeSet::from([next.unwrap_or(slots[first])])
            }
            Balance::Maglev if self.suspects.is_empty() => match self.hashed.get(key) {
                Some((of, chosen)) if of == slots => BTreeSet::from([*chosen]),
                _ => good,
            },
            Balance::LeastConn if slots.len() == 2 && slots.iter().all(|it| good.contains(it)) => {
                let load = |at: &SocketAddr| {
                    let backend = world.installed.backends[at];
                    let flows = world.maps.active(backend.counted_at.index).unwrap();
                    (flows + 1, u64::from(backend.weight))
                };
                let lighter = |one: &SocketAddr, other: &SocketAddr| {
                    let ((flows, weight), (others, its)) = (load(one), load(other));
                    flows * its <= others * weight
                };
                let (a, b) = (slots[0], slots[1]);
                let fit = [(a, b), (b, a)].into_iter();
                fit.filter(|(one, other)| lighter(one, other))
                    .map(|(one, _)| one)
                    .collect()
            }
            _ if good.is_empty() => slots.iter().copied().collect(),
            _ => good,
        }
    }

    /// What the programs remember of a flow.
    fn note(
        &mut self,
        world: &World,
        ask: Ask,
        key: ServiceKey,
        endpoint: &Endpoint,
        backend: SocketAddr,
    ) {
        if endpoint.affinity_seconds > 0 {
            let id = world.installed.backends[&backend].id;
            self.kept.insert((ask.vip, key.proto), (backend, id));
        } else if endpoint.balance == Balance::Maglev && self.suspects.is_empty() {
            self.hashed.insert(key, (endpoint.slots.clone(), backend));
        }
    }

    /// Every flow that is held is counted, where it was when it began, and none else.
    fn check_counts(&self, world: &World) {
        let mut expected = BTreeMap::<u32, u64>::new();
        for (_, id) in &self.held {
            *expected.entry(id.index).or_default() += 1;
        }
        for index in 1..world.maps.room().backends {
            let active = world.maps.active(index).unwrap();
            let held = expected.get(&index).copied().unwrap_or_default();
            assert_eq!(active, held, "open flows of the backend {index}");
        }
    }
}
