use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::UNIX_EPOCH,
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    catalog::SourceHealth,
    order::Order,
    snapshot::{Backend, Service},
};

/// A backend of the service `www`, as the tests need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Gone,
    Usable,
    Critical,
    Maintenance,
    Draining,
    /// Drained until so many seconds after the first step.
    Until(u64),
    /// In maintenance by order.
    Ordered,
    /// The same, and flows may go on so long.
    Closed(u64),
    Leaving,
}

const DRAIN: Duration = Duration::from_secs(10);

/// This moment; the clock of the wall stands still.
fn at(instant: Instant) -> Now {
    let wall = UNIX_EPOCH;
    Now { instant, wall }
}

fn name() -> ServiceName {
    ServiceName::whole("www")
}

fn key(n: usize) -> InstanceKey {
    InstanceKey::new("n", n.to_string())
}

fn vip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, last)
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap()], 80))
}

fn target(n: usize) -> Target {
    Target {
        vip: vip(7),
        address: address(n),
    }
}

fn backend(address: SocketAddr, is: Is) -> Backend {
    Backend {
        source: match is {
            Critical => SourceHealth::Critical,
            Maintenance => SourceHealth::Maintenance,
            _ => SourceHealth::Passing,
        },
        order: Order {
            mode: match is {
                Draining | Until(_) => Mode::Drain,
                Ordered | Closed(_) => Mode::Maintenance,
                _ => Mode::Ready,
            },
            until: match is {
                Until(seconds) | Closed(seconds) => Some(UNIX_EPOCH + Duration::from_secs(seconds)),
                _ => None,
            },
        },
        leaving: is == Leaving,
        ..Backend::usable(address)
    }
}

fn service(last: u8, drain: Duration, backends: &[Is]) -> Service {
    let there = backends.iter().enumerate();
    let there = there.filter(|(_, is)| **is != Gone);
    Service {
        vip: Some(vip(last)),
        options: Options {
            drain,
            ..Options::default()
        },
        aliases: BTreeSet::new(),
        backends: there
            .map(|(n, is)| (key(n), backend(address(n), *is)))
            .collect(),
    }
}

fn with(services: Vec<(ServiceName, Service)>) -> Snapshot {
    let services = services.into_iter();
    Snapshot {
        complete: true,
        services: services.map(|(name, it)| (name, Arc::new(it))).collect(),
        ..Snapshot::default()
    }
}

/// The service `www` with these backends.
fn www(drain: Duration, backends: &[Is]) -> Snapshot {
    with(vec![(name(), service(7, drain, backends))])
}

/// Follows snapshots of `www`, one each second, and says what is pending then, with the seconds until its deadline.
#[track_caller]
fn check(steps: &[&[Is]], expect: &[(usize, u64)]) -> Deadlines {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    let mut before = Snapshot::default();
    let mut now = start;
    for step in steps {
        let after = www(DRAIN, step);
        let wall = UNIX_EPOCH + (now - start);
        let instant = now;
        deadlines.follow(&before, &after, Now { instant, wall });
        before = after;
        now += Duration::from_secs(1);
    }
    let pending: BTreeMap<Target, Duration> = deadlines
        .pending()
        .iter()
        .map(|(target, it)| (*target, it.deadline() - start))
        .collect();
    let expect = expect.iter();
    let expect: BTreeMap<Target, Duration> = expect
        .map(|(n, seconds)| (target(*n), Duration::from_secs(*seconds)))
        .collect();
    assert_eq!(pending, expect);
    deadlines
}

use Is::{Closed, Critical, Draining, Gone, Leaving, Maintenance, Ordered, Until, Usable};

#[test]
fn the_time_of_a_backend_begins_when_it_is_taken_out_in_whichever_way() {
    for out in [Maintenance, Draining, Leaving, Gone] {
        check(&[&[Usable, Usable], &[Usable, out]], &[(1, 11)]);
    }
}

#[test]
fn a_backend_that_only_fails_keeps_its_flows_until_it_leaves() {
    check(&[&[Usable], &[Critical]], &[]);
    check(&[&[Usable], &[Critical], &[Gone]], &[(0, 12)]);
}

#[test]
fn one_cause_after_another_does_not_begin_the_time_anew() {
    check(&[&[Usable], &[Draining], &[Leaving], &[Gone]], &[(0, 11)]);
    check(&[&[Usable], &[Gone], &[Draining]], &[(0, 11)]);
}

#[test]
fn what_comes_back_in_time_keeps_its_flows() {
    for out in [Maintenance, Draining, Leaving, Gone] {
        check(&[&[Usable], &[out], &[Usable]], &[]);
        check(&[&[Usable], &[out], &[Critical]], &[]);
    }
}

#[test]
fn a_backend_that_a_new_agent_finds_drained_has_its_whole_time() {
    check(&[&[Draining]], &[(0, 10)]);
}

#[test]
fn an_operator_says_when_the_flows_of_one_backend_end() {
    check(&[&[Usable], &[Until(4)]], &[(0, 4)]);
    check(
        &[&[Usable, Usable], &[Closed(60), Until(4)]],
        &[(0, 60), (1, 4)],
    );
    // What has passed while nobody looked is over.
    check(&[&[Usable], &[Usable], &[Until(1)]], &[(0, 2)]);
    // The last word counts, in both directions.
    check(&[&[Until(4)], &[Until(9)]], &[(0, 9)]);
    check(&[&[Until(4)], &[Draining]], &[(0, 11)]);
    check(&[&[Draining], &[Until(4)]], &[(0, 4)]);
    check(&[&[Until(4)], &[Usable]], &[]);
    // Who leaves has no more and no less than it was told.
    check(&[&[Until(40)], &[Gone]], &[(0, 40)]);
    // A clock that went back makes nobody wait for ever.
    let years = LONGEST.as_secs();
    check(&[&[Until(9 * years)]], &[(0, years)]);
}

#[test]
fn a_time_that_follows_a_moment_of_an_operator_s_own_counts_from_then() {
    // An hour, as it were, and long after the drain began the usual time instead.
    let hour: [&[Is]; 15] = [&[Closed(3600)]; 15];
    let steps = [&hour[..], &[&[Draining]]].concat();
    check(&steps, &[(0, 25)]);
    let steps = [&hour[..], &[&[Draining], &[Leaving], &[Gone]]].concat();
    check(&steps, &[(0, 25)]);
    check(&[&[Ordered], &[Ordered], &[Draining]], &[(0, 12)]);
    check(&[&[Draining], &[Until(60)], &[Maintenance]], &[(0, 12)]);
}

#[test]
fn a_deadline_that_is_put_off_holds_although_a_cut_failed_before() {
    let start = Instant::now();
    let second = |n| start + Duration::from_secs(n);
    let moment = |n| Now {
        instant: second(n),
        wall: UNIX_EPOCH + Duration::from_secs(n),
    };
    let (soon, late) = (www(DRAIN, &[Until(2)]), www(DRAIN, &[Until(60)]));
    let mut deadlines = Deadlines::default();
    deadlines.follow(&Snapshot::default(), &soon, moment(0));
    for n in [2, 3, 5] {
        deadlines.failed(&target(0), second(n));
    }
    assert_eq!(deadlines.next(), Some(second(9)));
    deadlines.follow(&soon, &late, moment(6));
    assert_eq!(deadlines.next(), Some(second(60)));
    assert_eq!(deadlines.due(second(59)), [].into());
    // What fails then fails for the first time.
    deadlines.failed(&target(0), second(60));
    assert_eq!(deadlines.next(), Some(second(61)));
    // And what fails on under another deadline that is over is tried no sooner.
    let over = www(DRAIN, &[Until(1)]);
    deadlines.follow(&late, &over, moment(60));
    assert_eq!(deadlines.next(), Some(second(61)));
}

#[test]
fn two_registrations_of_one_address_have_the_later_of_their_times_whoever_is_named_first() {
    let start = Instant::now();
    for (one, other, seconds) in [
        (Draining, Ordered, 10),
        (Ordered, Draining, 10),
        (Until(4), Draining, 10),
        (Draining, Until(40), 40),
        (Until(40), Closed(7), 40),
        (Ordered, Closed(7), 7),
    ] {
        let step = |third: Is| {
            let mut both = service(7, DRAIN, &[one, Gone, third]);
            both.backends.insert(key(1), backend(address(0), other));
            with(vec![(name(), both)])
        };
        let deadline = Some(start + Duration::from_secs(seconds));
        let mut deadlines = Deadlines::default();
        let mut before = Snapshot::default();
        // Something else changes each second: this does not.
        for (n, third) in (0..).zip([Usable, Critical, Usable, Critical]) {
            let after = step(third);
            let now = Now {
                instant: start + Duration::from_secs(n),
                wall: UNIX_EPOCH + Duration::from_secs(n),
            };
            deadlines.follow(&before, &after, now);
            before = after;
            let told = format!("{one:?} and {other:?} after {n} s");
            assert_eq!(deadlines.next(), deadline, "{told}");
            let pending = &deadlines.pending()[&target(0)];
            assert_eq!(pending.instances, [key(0), key(1)], "{told}");
        }
    }
    // The same where both leave at once.
    let mut both = service(7, DRAIN, &[Usable]);
    both.backends.insert(key(1), backend(address(0), Until(40)));
    let mut deadlines = Deadlines::default();
    let (both, none) = (with(vec![(name(), both)]), with(vec![]));
    deadlines.follow(&both, &none, at(start));
    assert_eq!(deadlines.next(), Some(start + Duration::from_secs(40)));
}

#[test]
fn maintenance_by_order_has_no_time_and_that_of_a_source_has_that_of_a_drain() {
    let start = Instant::now();
    let deadlines = check(
        &[&[Usable, Usable], &[Ordered, Maintenance]],
        &[(0, 1), (1, 11)],
    );
    let ordered = start + Duration::from_secs(2);
    assert_eq!(deadlines.due(ordered), [target(0)].into());
    // The flows of a drain that still goes on are cut as well.
    check(&[&[Draining], &[Draining], &[Ordered]], &[(0, 0)]);
}

#[test]
fn another_instance_at_the_same_address_keeps_the_flows() {
    let start = Instant::now();
    let before = www(DRAIN, &[Usable]);
    let mut moved = service(7, DRAIN, &[]);
    let again = key(9);
    moved.backends.insert(again, backend(address(0), Usable));
    let mut deadlines = Deadlines::default();
    deadlines.follow(&before, &with(vec![(name(), moved)]), at(start));
    assert_eq!(deadlines.pending().len(), 0);
}

#[test]
fn a_service_that_leaves_takes_its_options_with_it_and_they_are_remembered() {
    let start = Instant::now();
    let before = www(Duration::from_secs(3), &[Usable]);
    let mut deadlines = Deadlines::default();
    deadlines.follow(&before, &with(vec![]), at(start));
    let pending = &deadlines.pending()[&target(0)];
    assert_eq!(pending.deadline() - start, Duration::from_secs(3));
    assert_eq!(pending.service, Some(name()));
    assert_eq!(pending.instances, [key(0)]);
}

#[test]
fn a_changed_option_moves_the_deadline_of_what_is_still_registered() {
    let start = Instant::now();
    let mut deadlines = Deadlines::default();
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(60));
    let one = www(long, &[Draining, Usable]);
    deadlines.follow(&Snapshot::default(), &one, at(start));
    let two = www(long, &[Draining, Gone]);
    deadlines.follow(&one, &two, at(start));
    let three = www(short, &[Draining, Gone]);
    deadlines.follow(&two, &three, at(start));
    assert_eq!(deadlines.next(), Some(start + short));
    assert_eq!(deadlines.due(start + short), BTreeSet::from([target(0)]));
    assert_eq!(deadlines.pending()[&target(1)].deadline(), start + long);
}

#[test]
fn an_address_that_another_service_serves_is_cut_for_the_one_that_dropped_it() {
    let start = Instant::now();
    let other = ServiceName::whole("other");
    let both = with(vec![
        (name(), service(7, DRAIN, &[Usable])),
        (other.clone(), service(8, DRAIN, &[Usable])),
    ]);
    let one = with(vec![(other, service(8, DRAIN, &[Usable]))]);
    let mut deadlines = Deadlines::default();
    deadlines.follow(&both, &one, at(start));
    let pending: Vec<_> = deadlines.pending().keys().copied().collect();
    assert_eq!(pending, [target(0)]);
}

#[test]
fn flows_of_a_former_agents_time_have_their_whole_time_from_now() {
    let start = Instant::now();
    let snapshot = www(DRAIN, &[Usable, Draining]);
    let stranger = Target {
        vip: vip(99),
        address: address(5),
    };
    let flows = BTreeSet::from([target(0), target(1), target(2), stranger]);
    let mut deadlines = Deadlines::default();
    deadlines.adopt(&snapshot, &flows, at(start));
    deadlines.follow(&Snapshot::default(), &snapshot, at(start));
    let drains = deadlines.pending().iter();
    let drains: Vec<_> = drains
        .map(|(target, it)| (*target, it.deadline() - start))
        .collect();
    assert_eq!(
        drains,
        [
            (target(1), DRAIN),
            (target(2), DRAIN),
            (stranger, Options::default().drain)
        ]
    );
}

#[test]
fn a_flow_whose_vip_is_nobodys_any_more_is_spared_as_long_as_its_backend_serves_somebody() {
    let start = Instant::now();
    let moved = |n| Target {
        vip: vip(99),
        address: address(n),
    };
    // The part has no VIP yet.
    let mut part = service(8, DRAIN, &[Gone, Gone, Usable]);
    part.vip = None;
    let snapshot = with(vec![
        (name(), service(7, DRAIN, &[Usable, Draining])),
        (ServiceName::part("www", "hello"), part),
    ]);
    let flows = BTreeSet::from([0, 1, 2, 3].map(moved));
    // Of a VIP that somebody has it is known that this one is not behind it.
    let known = BTreeSet::from([target(2)]);
    let mut deadlines = Deadlines::default();
    deadlines.adopt(&snapshot, &(&flows | &known), at(start));
    let pending: Vec<_> = deadlines.pending().keys().copied().collect();
    assert_eq!(pending, [target(2), moved(1), moved(3)]);
}

/// What is pending after each of these snapshots, a second apart.
fn pending_after(deadlines: &mut Deadlines, steps: &[Snapshot]) -> Vec<Vec<Target>> {
    let mut now = Instant::now();
    let befores = std::iter::once(Snapshot::default()).chain(steps.iter().cloned());
    let steps = befores.zip(steps).map(|(before, after)| {
        deadlines.follow(&before, after, at(now));
        now += Duration::from_secs(1);
        deadlines.pending().keys().copied().collect()
    });
    steps.collect()
}

#[test]
fn flows_through_a_former_vip_are_cut_with_those_through_the_new_one() {
    let at = |last, n| Target {
        vip: vip(last),
        address: address(n),
    };
    let www = |last, backends: &[Is]| with(vec![(name(), service(last, DRAIN, backends))]);
    let mut lost = service(8, DRAIN, &[Gone, Gone, Usable]);
    lost.vip = None;
    let steps = [
        www(7, &[Usable, Usable, Usable]),
        // Nothing leaves with the VIP.
        www(8, &[Usable, Usable, Usable]),
        www(8, &[Usable, Draining, Usable]),
        www(8, &[Usable, Usable, Usable]),
        www(8, &[Gone, Usable, Usable]),
        // It moves and loses one at once, and then all VIPs and the last one.
        www(9, &[Gone, Gone, Usable]),
        with(vec![(name(), lost)]),
        with(vec![]),
    ];
    let mut deadlines = Deadlines::default();
    let found = pending_after(&mut deadlines, &steps);
    let first = vec![at(7, 0), at(8, 0)];
    let second = vec![at(7, 0), at(7, 1), at(8, 0), at(8, 1)];
    let all = [7, 8].map(|last| [0, 1, 2].map(|n| at(last, n)));
    let all = [&all.concat()[..], &[at(9, 2)]].concat();
    let expect = [
        vec![],
        vec![],
        vec![at(7, 1), at(8, 1)],
        vec![],
        first,
        second.clone(),
        second,
        all,
    ];
    assert_eq!(found, expect);
    assert_eq!(deadlines.former, BTreeMap::new());
}

#[test]
fn a_vip_that_came_back_is_no_former_one() {
    let www = |last, backends: &[Is]| with(vec![(name(), service(last, DRAIN, backends))]);
    let steps = [www(7, &[Usable]), www(8, &[Usable]), www(7, &[Usable])];
    let mut deadlines = Deadlines::default();
    pending_after(&mut deadlines, &steps);
    let former = Vec::from_iter(deadlines.former.keys().copied());
    assert_eq!(former, [vip(8)]);
}

#[test]
fn flows_that_may_be_those_of_another_service_go_on_while_that_serves_there() {
    let both = |one: (u8, &[Is]), other: (u8, &[Is])| {
        with(vec![
            (name(), service(one.0, DRAIN, one.1)),
            (ServiceName::whole("api"), service(other.0, DRAIN, other.1)),
        ])
    };
    let at = |last| Target {
        vip: vip(last),
        address: address(0),
    };
    // The two take each other's VIP.
    let steps = [
        both((7, &[Usable]), (8, &[Usable])),
        both((8, &[Usable]), (7, &[Usable])),
        both((8, &[Gone]), (7, &[Usable])),
        both((8, &[Gone]), (7, &[Gone])),
    ];
    let found = pending_after(&mut Deadlines::default(), &steps);
    assert_eq!(found, [vec![], vec![], vec![], vec![at(7), at(8)]]);
}

#[test]
fn flows_that_an_agent_found_through_nobodys_vip_are_cut_when_their_backend_leaves() {
    let moved = Target {
        vip: vip(99),
        address: address(0),
    };
    let start = Instant::now();
    let snapshot = www(DRAIN, &[Usable, Usable]);
    let mut deadlines = Deadlines::default();
    deadlines.adopt(&snapshot, &[moved].into(), at(start));
    let steps = [snapshot, www(DRAIN, &[Gone, Usable])];
    let found = pending_after(&mut deadlines, &steps);
    assert_eq!(found, [vec![], vec![target(0), moved]]);
}

#[test]
fn it_looks_again_until_nothing_is_found_and_stragglers_have_come() {
    let mut deadlines = check(&[&[Usable], &[Gone]], &[(0, 11)]);
    let due = deadlines.next().unwrap();
    assert_eq!(
        deadlines.due(due - Duration::from_millis(1)),
        BTreeSet::new()
    );
    assert_eq!(deadlines.due(due), BTreeSet::from([target(0)]));
    for (ended, second) in [(2, 0), (0, 1)] {
        let now = due + Duration::from_secs(second);
        deadlines.ended(&target(0), ended, now);
        assert_eq!(deadlines.next(), Some(now + AGAIN));
    }
    deadlines.ended(&target(0), 0, due + STRAGGLERS);
    assert_eq!(deadlines.pending().len(), 0);
}

#[test]
fn what_is_done_with_stays_done_while_it_is_drained() {
    let start = Instant::now();
    let drained = www(DRAIN, &[Draining]);
    let mut deadlines = Deadlines::default();
    deadlines.follow(&Snapshot::default(), &drained, at(start));
    deadlines.ended(&target(0), 0, start + DRAIN + STRAGGLERS);
    assert_eq!(deadlines.next(), None);
    let longer = www(DRAIN * 9, &[Draining]);
    deadlines.follow(&drained, &longer, at(start + DRAIN * 2));
    assert_eq!(deadlines.next(), None);
    deadlines.follow(&longer, &www(DRAIN, &[Gone]), at(start + DRAIN * 3));
    assert_eq!(deadlines.pending().len(), 0);
}

#[test]
fn what_cannot_be_ended_is_tried_again_more_and_more_seldom() {
    let mut deadlines = check(&[&[Usable], &[Gone]], &[(0, 11)]);
    let mut now = deadlines.next().unwrap();
    let mut waits = Vec::new();
    for _ in 0..9 {
        deadlines.failed(&target(0), now);
        let next = deadlines.next().unwrap();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    deadlines.given_up(&target(0));
    assert_eq!(deadlines.next(), None);
}

fn any_state() -> impl Strategy<Value = Is> {
    prop_oneof![
        Just(Gone),
        Just(Usable),
        Just(Critical),
        Just(Maintenance),
        Just(Draining),
        Just(Leaving),
    ]
}

proptest! {
    /// Against the rule itself, for each backend alone: it is due exactly when it has been out, without a break,
    /// for the whole of its time.
    #[test]
    fn nothing_is_due_that_takes_flows_or_was_out_for_less_than_its_time(
        steps in vec((vec(any_state(), 3), 0_u64..8), 1..25),
    ) {
        let out = |is: Is| !matches!(is, Usable | Critical);
        let start = Instant::now();
        let mut now = start;
        let mut deadlines = Deadlines::default();
        let mut before = Snapshot::default();
        // Since when each is out; one that was never there is not.
        let mut since: [Option<Instant>; 3] = [None; 3];
        for (backends, seconds) in steps {
            let after = www(DRAIN, &backends);
            deadlines.follow(&before, &after, at(now));
            for (n, is) in backends.iter().enumerate() {
                let was_there = before.services.get(&name()).is_some_and(|it| it.backends.contains_key(&key(n)));
                since[n] = match *is {
                    is if !out(is) => None,
                    Gone if !was_there => since[n],
                    _ => since[n].or(Some(now)),
                };
            }
            before = after;
            now += Duration::from_secs(seconds);
            let due = deadlines.due(now);
            for (n, since) in since.iter().enumerate() {
                let expect = since.is_some_and(|since| now >= since + DRAIN);
                prop_assert_eq!(due.contains(&target(n)), expect, "backend {} at {:?}", n, now - start);
            }
        }
    }
}
