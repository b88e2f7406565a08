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
    assert!(moves.is_due(met(0, 0), start));
    moves.count(&BTreeMap::new(), &owners, met(0, 0), start);
    assert!(!moves.is_due(met(0, 0), start));
    moves.changed();
    assert!(moves.is_due(met(0, 0), start));
    let nothing = BTreeMap::from([(key(1, 0), census(7, 0, 0))]);
    moves.count(&nothing, &owners, met(0, 0), start);
    assert!(!moves.is_due(met(0, 0), later));
    // Who is told that there is no flow has none.
    assert!(!moves.is_due(met(0, 3), later));
    // Such packets may come all the time.
    assert!(!moves.is_due(met(1, 3), start));
    assert!(moves.is_due(met(1, 3), later));
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
fn flows_whose_service_is_not_known_yet_are_counted_again() {
    let (mut moves, start) = (Moves::default(), Instant::now());
    let found = BTreeMap::from([(key(1, 0), census(7, 0, 0))]);
    moves.count(&found, &BTreeMap::new(), met(0, 0), start);
    assert!(!moves.is_due(met(0, 0), start));
    assert!(moves.is_due(met(0, 0), start + AGAIN));
    let owners = BTreeMap::from([(key(1, 0), ServiceName::whole("www"))]);
    moves.count(&found, &owners, met(0, 0), start);
    assert!(!moves.is_due(met(0, 0), start + AGAIN));
}

#[test]
fn what_came_of_a_takeover_is_what_came_since() {
    let (mut moves, start) = (Moves::default(), Instant::now());
    let owners = BTreeMap::new();
    let found = |adopted| BTreeMap::from([(key(1, 0), census(9, 0, adopted))]);
    moves.count(&found(4), &owners, met(5, 5), start);
    moves.own(true, met(5, 5), start);
    let taken = moves.taken.unwrap();
    assert_eq!(
        (taken.adopted, taken.met, taken.is_sure),
        (4, met(5, 5), false)
    );
    // After a restart nothing may have been taken over.
    let nothing = Came::default();
    assert_eq!(nothing.words(false), None);
    let some = Came {
        adopted: 1,
        ..nothing
    };
    assert!(
        some.words(false)
            .unwrap()
            .starts_with("has the VIPs since its start")
    );
    for came in [nothing, some] {
        assert!(came.words(true).unwrap().starts_with("took the VIPs over"));
    }
    moves.own(false, met(5, 5), start);
    moves.own(true, met(5, 5), start);
    assert!(moves.taken.unwrap().is_sure);
    let mut after_another = Moves::default();
    after_another.others();
    after_another.own(true, met(0, 0), start);
    assert!(after_another.taken.unwrap().is_sure);
}

#[test]
fn a_takeover_is_over_after_a_while_or_when_the_vips_go_again() {
    let (mut moves, start) = (Moves::default(), Instant::now());
    assert!(!moves.is_news(false));
    moves.own(true, met(4, 4), start);
    assert!(moves.is_news(false) && !moves.is_news(true));
    let nothing = BTreeMap::new();
    moves.count(&nothing, &BTreeMap::new(), met(5, 5), start + SETTLED / 2);
    moves.look(met(5, 5), start + SETTLED / 2);
    assert!(moves.taken.is_some());
    // What is told is what is there then.
    assert!(moves.is_due(met(5, 5), start + SETTLED));
    moves.look(met(5, 5), start + SETTLED);
    assert!(moves.taken.is_none());
    moves.own(false, met(6, 6), start);
    moves.own(true, met(6, 6), start);
    assert!(moves.taken.is_some());
    moves.own(false, met(6, 6), start);
    assert!(moves.taken.is_none());
    assert_eq!(met(9, 7).since(met(6, 6)), met(3, 1));
}
