mod again;
mod vips;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::UNIX_EPOCH,
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    catalog::SourceHealth,
    options::LONGEST,
    order::{Mode, Order},
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
