//! Whose flows they are: those of a VIP that another service has, or nobody.

use super::*;

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
    // Of a VIP that somebody has it is known what is behind it: the first one, and not the third.
    let known = BTreeSet::from([target(0), target(2)]);
    let mut deadlines = Deadlines::default();
    deadlines.adopt(&snapshot, &(&flows | &known), at(start));
    let pending: Vec<_> = deadlines.pending().keys().copied().collect();
    assert_eq!(pending, [target(2), moved(1), moved(3)]);
    let owner = |target| deadlines.pending()[&target].service.clone();
    assert_eq!(owner(target(2)), Some(name()));
    assert_eq!([moved(1), moved(3)].map(owner), [None, None]);
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
        // It moves and loses one at once, or between the two that were seen, and then all VIPs and the last one.
        www(9, &[Gone, Gone, Usable]),
        with(vec![(name(), lost)]),
        with(vec![]),
    ];
    let mut deadlines = Deadlines::default();
    let found = pending_after(&mut deadlines, &steps);
    let first = vec![at(7, 0), at(8, 0)];
    let second = vec![at(7, 0), at(7, 1), at(8, 0), at(8, 1), at(9, 1)];
    let all = [7, 8].map(|last| [0, 1, 2].map(|n| at(last, n)));
    let all = [&all.concat()[..], &[at(9, 1), at(9, 2)]].concat();
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
fn flows_that_may_be_those_of_a_service_that_did_not_change_go_on_where_it_serves() {
    let together = |www: Service, api: &Arc<Service>| Snapshot {
        complete: true,
        services: [
            (name(), Arc::new(www)),
            (ServiceName::whole("api"), Arc::clone(api)),
        ]
        .into_iter()
        .collect(),
        ..Snapshot::default()
    };
    let at = |last| Target {
        vip: vip(last),
        address: address(0),
    };
    let both: &[Is] = &[Usable, Usable];
    let elsewhere: &[Is] = &[Gone, Usable];
    for out in [Gone, Draining] {
        for (there, cut) in [(both, vec![]), (elsewhere, vec![at(7), at(8)])] {
            let before = Arc::new(service(8, DRAIN, there));
            let api = Arc::new(service(7, DRAIN, there));
            // The two take each other's VIP, and one backend leaves one of them.
            let steps = [
                together(service(7, DRAIN, both), &before),
                together(service(8, DRAIN, both), &api),
                together(service(8, DRAIN, &[out, Usable]), &api),
            ];
            let found = pending_after(&mut Deadlines::default(), &steps);
            assert_eq!(found, [vec![], vec![], cut], "{out:?}");
        }
    }
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
