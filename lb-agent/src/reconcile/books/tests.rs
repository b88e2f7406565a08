use lb_common::{Be16, Be32, HOST_VIEW, PROTO_TCP};
use proptest::{collection::vec, option, prelude::*};

use super::*;

fn name(n: u8) -> ServiceName {
    ServiceName::whole(format!("s{n}"))
}

fn key(n: u8) -> ServiceKey {
    let vip = Be32::from_host(0xc612_0000 + u32::from(n));
    ServiceKey::new(vip, Be16::from_host(80), PROTO_TCP, HOST_VIEW)
}

fn address(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 80).into()
}

fn service(backends: &[u8]) -> Service {
    let backend = |n: &u8| {
        let key = crate::catalog::InstanceKey::new("n", n.to_string());
        (key, Backend::usable(address(*n)))
    };
    Service {
        vip: None,
        options: Default::default(),
        aliases: Default::default(),
        backends: backends.iter().map(backend).collect(),
    }
}

fn counted(flows: u64) -> Counters {
    Counters {
        flows,
        failed: flows,
        refused: [flows; 4],
        ..Counters::default()
    }
}

fn shaken(index: u32, count: u64) -> Met {
    let mut handshakes = Handshakes {
        micros: count,
        ..Handshakes::default()
    };
    handshakes.buckets[0] = count;
    let generation = 1;
    (BackendId { index, generation }, handshakes)
}

fn flows(books: &Books, of: u8, tables: &[u64]) -> u64 {
    let read = |table: u32| counted(tables[table as usize]);
    let (counters, _) = books.total(&name(of), read, |_| None);
    assert_eq!(counters, counted(counters.flows));
    counters.flows
}

#[test]
fn an_endpoint_that_goes_leaves_what_it_counted() {
    let mut books = Books::default();
    let tables = [0, 5, 7];
    let read = |table: u32| counted(tables[table as usize]);
    books.hold(key(1), Some(1), Some(&name(1)), read);
    books.hold(key(2), Some(2), Some(&name(1)), read);
    assert_eq!(flows(&books, 1, &tables), 12);
    books.hold(key(2), None, None, read);
    assert_eq!(flows(&books, 1, &tables), 12);
    // Another one has its table now.
    assert_eq!(flows(&books, 1, &[0, 6, 0]), 13);
    books.hold(key(2), Some(2), Some(&name(2)), |_| counted(0));
    assert_eq!(flows(&books, 2, &[0, 6, 1]), 1);
    // What nobody wants, but is not gone yet, still counts.
    books.hold(key(1), Some(1), None, read);
    assert_eq!(flows(&books, 1, &[0, 9, 1]), 16);
    books.meet(&name(1), None, false, |_| None);
    assert_eq!(flows(&books, 1, &tables), 0);
}

#[test]
fn an_endpoint_that_changes_hands_counts_for_each_what_was_its_own() {
    let mut books = Books::default();
    books.hold(key(1), Some(1), Some(&name(1)), |_| counted(0));
    books.hold(key(1), Some(1), Some(&name(2)), |_| counted(5));
    assert_eq!(flows(&books, 1, &[0, 8]), 5);
    assert_eq!(flows(&books, 2, &[0, 8]), 3);
    // In another table nothing was there before.
    books.hold(key(1), Some(2), Some(&name(1)), |table| {
        counted(u64::from(table == 1) * 8)
    });
    assert_eq!(flows(&books, 1, &[0, 99, 4]), 9);
    assert_eq!(flows(&books, 2, &[0, 99, 4]), 3);
}

#[test]
fn what_was_there_before_this_agent_counts_and_what_was_there_before_its_service_does_not() {
    let mut books = Books::default();
    let count = |books: &Books, of, met: Met| {
        let (_, handshakes) = books.total(&name(of), |_| counted(0), |_| Some(met));
        assert_eq!(handshakes.micros, handshakes.count());
        handshakes.count()
    };
    books.meet(&name(1), Some(&service(&[1])), true, |_| Some(shaken(1, 4)));
    books.meet(&name(2), Some(&service(&[1])), false, |_| {
        Some(shaken(1, 6))
    });
    assert_eq!(count(&books, 1, shaken(1, 7)), 7);
    assert_eq!(count(&books, 2, shaken(1, 7)), 1);
    // It leaves one service, serves the other, and comes back.
    books.meet(&name(1), Some(&service(&[])), false, |_| Some(shaken(1, 8)));
    assert_eq!(count(&books, 1, shaken(1, 9)), 8);
    books.meet(&name(1), Some(&service(&[1])), false, |_| {
        Some(shaken(1, 10))
    });
    assert_eq!(count(&books, 1, shaken(1, 11)), 9);
    assert_eq!(count(&books, 2, shaken(1, 11)), 5);
    // It was freed in between, and counts from zero.
    assert_eq!(count(&books, 1, shaken(2, 3)), 8 + 3);
}

#[test]
fn an_address_that_no_view_needs_any_more_leaves_what_was_counted_there() {
    let mut books = Books::default();
    let total = |books: &Books, met: Option<Met>| {
        let (_, handshakes) = books.total(&name(1), |_| counted(0), |_| met);
        handshakes.count()
    };
    let gone = |met| BTreeMap::from([(address(1), (met, 2))]);
    books.meet(&name(1), Some(&service(&[1, 2])), false, |_| {
        Some(shaken(1, 4))
    });
    books.free(&gone(shaken(1, 9)));
    assert_eq!(total(&books, None), 5);
    // The instance shows all that was counted at its address.
    let freed = books.freed(&name(1), address(1)).unwrap();
    assert_eq!((freed.failed, freed.handshakes.count()), (2, 9));
    assert_eq!(books.freed(&name(1), address(2)), None);
    // It is needed again, and not once more.
    books.free(&gone(shaken(2, 3)));
    assert_eq!(total(&books, None), 5 + 3);
    let freed = books.freed(&name(1), address(1)).unwrap();
    assert_eq!((freed.failed, freed.handshakes.count()), (4, 12));
    books.meet(&name(1), Some(&service(&[2])), false, |_| None);
    assert_eq!(total(&books, None), 5 + 3);
    assert_eq!(books.freed(&name(1), address(1)), None);
}

#[derive(Clone, Debug)]
enum Event {
    /// Through an endpoint.
    Flow(usize),
    /// With a backend.
    Handshake(usize),
    /// The endpoint is this service's now, or nobody's.
    Hold(usize, Option<u8>),
    /// These are behind the service now.
    Meet(u8, Vec<u8>),
    /// Nobody needed the address for a while.
    Free(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    let service = || 0..2_u8;
    prop_oneof![
        (0..3_usize).prop_map(Event::Flow),
        (0..3_usize).prop_map(Event::Handshake),
        (0..3_usize, option::of(service())).prop_map(|(n, of)| Event::Hold(n, of)),
        (service(), vec(0..3_u8, 0..3)).prop_map(|(of, all)| Event::Meet(of, all)),
        (0..3_usize).prop_map(Event::Free),
    ]
}

proptest! {
    /// Each flow counts for whoever had the endpoint then, and each handshake for everybody who had the backend.
    #[test]
    fn every_count_is_kept_for_whose_it_was(events in vec(any_event(), 0..40)) {
        let mut books = Books::default();
        let (mut tables, mut backends) = ([0_u64; 3], [(1, 0_u64); 3]);
        let mut owners: [Option<u8>; 3] = [None; 3];
        let mut behind: [Vec<u8>; 2] = Default::default();
        let mut expect = [(0, 0); 2];
        for of in [0, 1] {
            books.meet(&name(of), Some(&service(&[])), false, |_| None);
        }
        for event in events {
            match event {
                Event::Flow(n) => if let Some(of) = owners[n] {
                    tables[n] += 1;
                    expect[usize::from(of)].0 += 1;
                },
                Event::Handshake(n) => {
                    backends[n].1 += 1;
                    for (of, behind) in behind.iter().enumerate() {
                        expect[of].1 += u64::from(behind.iter().any(|it| usize::from(*it) == n));
                    }
                }
                Event::Hold(n, of) => {
                    if owners[n].is_none() && of.is_some() {
                        // A table that is given out anew is cleared.
                        tables[n] = 0;
                    }
                    owners[n] = of;
                    let table = u32::try_from(n).unwrap();
                    let read = |table: u32| counted(tables[table as usize]);
                    let wanted = of.map(name);
                    books.hold(key(u8::try_from(n).unwrap()), of.map(|_| table), wanted.as_ref(), read);
                }
                Event::Meet(of, all) => {
                    books.meet(&name(of), Some(&service(&all)), false, |at| shaken_at(at, &backends));
                    behind[usize::from(of)] = all;
                }
                Event::Free(n) => {
                    let at = address(u8::try_from(n).unwrap());
                    let met = shaken_at(at, &backends).unwrap();
                    books.free(&BTreeMap::from([(at, (met, 0))]));
                    // Its next one is another.
                    backends[n] = (backends[n].0 + 1, 0);
                }
            }
            for (of, expect) in (0..).zip(expect) {
                let read = |table: u32| counted(tables[table as usize]);
                let (counters, handshakes) = books.total(&name(of), read, |at| shaken_at(at, &backends));
                prop_assert_eq!((counters.flows, handshakes.count()), expect);
            }
        }
    }
}

/// The generation and the count of each.
fn shaken_at(at: SocketAddr, backends: &[(u32, u64)]) -> Option<Met> {
    let found = (0..).zip(backends).find(|(n, _)| address(*n) == at);
    found.map(|(n, &(generation, count))| {
        let (id, handshakes) = shaken(n.into(), count);
        (BackendId { generation, ..id }, handshakes)
    })
}
