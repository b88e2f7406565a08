//! What an agent makes of the maps of an earlier one.

use super::*;
use crate::book::Found;

#[test]
fn what_an_earlier_agent_wrote_is_known_and_goes_when_nobody_wants_it() {
    let now = Instant::now();
    let desired = Desired {
        vips: [Ipv4Addr::new(198, 18, 0, 1)].into(),
        hosts: [Ipv4Addr::new(192, 0, 2, 1).into()].into(),
        settings: Settings {
            flood: 7,
            ..Settings::default()
        },
        ..only(&[(1, 1), (2, 1)])
    };
    let mut kernel = Kernel::default();
    for step in plan(&Book::empty(LIMITS), &desired, now).steps {
        kernel.take(&step, now);
    }
    let mut book = kernel.found(LIMITS, now);
    // Which members its table has is all that is not in the maps.
    let again = plan(&book, &desired, now);
    assert!(
        matches!(again.steps[..], [Step::Recognise { .. }]),
        "{:?}",
        again.steps
    );
    carry_out(&mut book, &desired, &again, now);
    assert!(plan(&book, &desired, now).steps.is_empty());
    let nothing = Desired::default();
    let gone = plan(&book, &nothing, now);
    let [
        Step::PutSettings(settings),
        Step::RemoveEndpoint(endpoint),
        Step::RemoveVip(vip),
        Step::RemoveHost(host),
    ] = gone.steps[..]
    else {
        panic!("{:?}", gone.steps);
    };
    assert_eq!((settings, endpoint), (nothing.settings, key(1, 0)));
    assert!(desired.vips.contains(&vip) && desired.hosts.contains(&host));
    // Programs may read the table for a while yet.
    assert_eq!(gone.again, Some(now + REST));
    carry_out(&mut book, &nothing, &gone, now);
    let freed = plan(&book, &nothing, now + REST);
    assert!(
        matches!(
            freed.steps[..],
            [Step::FreeTarget { .. }, Step::FreeTarget { .. }]
        ),
        "{:?}",
        freed.steps
    );
}

#[test]
fn an_index_is_free_that_has_no_backend_and_that_no_table_names() {
    let now = Instant::now();
    let address = member(1, 1).address;
    let placed = Placed {
        endpoint: Endpoint {
            service: 2,
            table: 5,
            flags: 0,
            generation: 9,
        },
        digest: 0,
        named: [3].into(),
        members: None,
    };
    let there = Home {
        index: 1,
        target: target(address, Place::default(), 4),
    };
    let found = Found {
        endpoints: [(key(1, 0), placed)].into(),
        targets: [(address, there)].into(),
        generations: [(1, 4), (3, 1)].into(),
        ..Found::default()
    };
    let limits = Limits {
        services: 3,
        backends: 4,
        flows: 1,
    };
    let mut book = Book::found(found, limits, now);
    let later = now + REST;
    // Nobody ever had these.
    assert_eq!(book.free_targets.take(now), Some(2));
    assert_eq!(book.free_targets.take(later), Some(4));
    assert_eq!(book.free_targets.take(later), None);
    assert_eq!(book.free_services.take(now), None);
    let services: BTreeSet<_> = std::iter::from_fn(|| book.free_services.take(later)).collect();
    assert_eq!(services, [1, 3].into());
    assert_eq!(book.published, 9);
    // Once no table names it, it rests and is free.
    book.note(&Step::RemoveEndpoint(key(1, 0)), later);
    assert_eq!(book.free_targets.take(later), None);
    assert_eq!(book.free_targets.take(later + REST), Some(3));
}
