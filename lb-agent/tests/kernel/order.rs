//! Each step of a plan on the real maps, and after each of them a lookup of everything.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_agent::{desired::Desired, plan::Step};
use lb_common::{Client, PROTO_TCP, PROTO_UDP, Refusal};

use super::lookups::{Answer, Ask, PLACES, Servers, refusal, seeded};

/// What `desired` lets a client be answered.
fn answers(
    desired: &Desired,
    ask: Ask,
    place: Option<Client>,
) -> (BTreeSet<SocketAddr>, Option<Refusal>) {
    match ask.looked_up(&desired.services, place) {
        None => (BTreeSet::new(), Some(Refusal::Unknown)),
        Some(key) => {
            let endpoint = &desired.services[&key];
            let slots: BTreeSet<_> = endpoint.slots.iter().copied().collect();
            let refused = slots.is_empty().then(|| refusal(endpoint));
            (slots, refused)
        }
    }
}

#[test]
fn after_every_step_each_lookup_is_answered_as_before_or_as_after() {
    let mut rng = seeded();
    let (mut world, servers, cookie) = Servers::with_datagrams();
    let mut before = Desired::default();
    // What leaves has rested when the next round comes: it is freed in its course.
    let mut now = Instant::now();
    let mut freed = 0;
    for round in 0..20 {
        now += Duration::from_secs(10);
        let mut after = servers.desired(&mut rng);
        if rng.u8(..3) == 0 {
            after.services.retain(|key, _| key.proto == PROTO_TCP);
        }
        let (steps, problems) = world.steps_to(&after, now);
        assert_eq!(problems, vec![]);
        // The last of all: the hooks for datagrams come or go.
        for (number, step) in steps.iter().map(Some).chain([None]).enumerate() {
            match step {
                Some(step) => world.carry_out(step),
                None => {
                    let some = after.services.keys().any(|key| key.proto == PROTO_UDP);
                    let programs = &mut world.programs;
                    let served = world.netns.enter(|| programs.serve_datagrams(some));
                    served.unwrap().unwrap();
                }
            }
            freed += usize::from(matches!(step, Some(Step::FreeBackend { .. })));
            for place in PLACES {
                world.maps.set_client(cookie, place).unwrap();
                for ask in Ask::all().filter(|_| rng.u8(..3) == 0) {
                    let (old, new) = (answers(&before, ask, place), answers(&after, ask, place));
                    let context = || {
                        format!(
                            "round {round}, after the step {number}, {step:?}: {ask:?} from {place:?} \
                             by {old:?}, then {new:?}"
                        )
                    };
                    match servers.ask(&world, ask) {
                        Answer::Backend(it, _) => {
                            let allowed = old.0.contains(&it) || new.0.contains(&it);
                            assert!(allowed, "{}: {it}", context());
                            let there = world.installed.backends.contains_key(&it);
                            assert!(there, "{}: {it} was freed", context());
                        }
                        Answer::Refused(reason) => {
                            let mut both = old.0.iter().chain(&new.0);
                            let allowed = [old.1, new.1].contains(&Some(reason))
                                || reason == Refusal::NoPath && both.any(|it| !ask.way.reaches(it));
                            assert!(allowed, "{}: {reason:?}", context());
                        }
                    }
                }
            }
        }
        before = after;
    }
    assert!(freed > 0, "no backend was ever freed");
}
