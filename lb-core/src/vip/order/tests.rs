use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::vip::{Pool, Wanted};

const NOW: Duration = Duration::from_secs(1_000_000);
const QUARANTINE: Duration = Duration::from_secs(600);
/// What operators pinned; one that is yet to come, and one whose service is there.
const PINNED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
const IN_USE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 201);
const UNREADABLE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 202);
const FREE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 203);

fn pin(name: &ServiceName) -> Owner {
    Owner {
        pinned: true,
        ..Owner::new(name.clone(), NOW)
    }
}

fn part() -> ServiceName {
    ServiceName::part("www", "hello")
}

/// With the services `here`, `www`, its part, and `pinned`, after `left` was there; and a pin of `later`.
fn allocator() -> (Allocator, Names) {
    let pool: ipnet::Ipv4Net = "10.0.0.0/24".parse().unwrap();
    let records = BTreeMap::from([
        (PINNED, Some(pin(&ServiceName::whole("later")))),
        (IN_USE, Some(pin(&ServiceName::whole("pinned")))),
        (UNREADABLE, None),
    ]);
    let pool = Pool::try_from(pool).unwrap();
    let mut allocator =
        Allocator::new(pool, "dc1".to_owned(), QUARANTINE, records, BTreeMap::new());
    let names = |names: &[&str]| -> Names {
        let whole = names.iter().map(|it| ServiceName::whole(*it));
        whole.map(|name| (name, None)).collect()
    };
    allocator.allocate(&Wanted::all(names(&["left"])), NOW);
    let mut here = names(&["here", "www", "pinned"]);
    here.insert(part(), None);
    let round = allocator.allocate(&Wanted::all(here.clone()), NOW);
    assert_eq!((round.by_name.len(), round.claims.len()), (4, 0));
    (allocator, here)
}

/// The address that `name` has or had.
fn address_of(allocator: &Allocator, name: &ServiceName) -> Ipv4Addr {
    let known = allocator.known();
    let (address, _) = known.iter().find(|(_, (it, _))| *it == name).unwrap();
    *address
}

#[test]
fn a_reason_is_the_same_word_everywhere() {
    for (how, word) in [
        (How::Hash, "hash"),
        (How::Record, "record"),
        (How::Wish, "wish"),
        (How::Pin, "pin"),
        (How::Kept, "kept"),
        (How::Quarantine, "quarantine"),
        (How::Unreadable, "unreadable"),
    ] {
        assert_eq!((how.as_str(), &*how.to_string()), (word, word));
        assert_eq!(serde_json::to_value(how).unwrap(), word);
    }
}

#[test]
fn a_text_means_a_service_before_a_part_and_what_is_known_before_what_is_to_come() {
    let (allocator, mut names) = allocator();
    let meant = |text, names: &Names| named(text, names, &allocator);
    assert_eq!(meant("here", &names), ServiceName::whole("here"));
    assert_eq!(meant("www.hello", &names), part());
    assert_eq!(meant("left", &names), ServiceName::whole("left"));
    assert_eq!(meant("later", &names), ServiceName::whole("later"));
    assert_eq!(meant("new.one", &names), ServiceName::whole("new.one"));
    names.insert(ServiceName::whole("www.hello"), None);
    let whole = ServiceName::whole("www.hello");
    assert_eq!(meant("www.hello", &names), whole);
}

#[test]
fn a_part_that_left_or_is_recorded_is_meant_by_its_name() {
    let (mut allocator, mut names) = allocator();
    names.remove(&part());
    allocator.allocate(&Wanted::all(names.clone()), NOW);
    assert_eq!(named("www.hello", &names, &allocator), part());
    allocator.record(FREE, pin(&ServiceName::part("api", "v2")));
    let recorded = ServiceName::part("api", "v2");
    assert_eq!(named("api.v2", &names, &allocator), recorded);
}

#[test]
fn a_service_may_be_pinned_to_what_is_free_or_its_own() {
    let (allocator, _) = allocator();
    let may = |name: &str, address| may_pin(&ServiceName::whole(name), address, &allocator);
    let own = |name: &str| address_of(&allocator, &ServiceName::whole(name));
    assert_eq!(may("here", FREE), Ok(()));
    assert_eq!(may("new", FREE), Ok(()));
    assert_eq!(may("here", own("here")), Ok(()));
    assert_eq!(may("left", own("left")), Ok(()));
    assert_eq!(may("later", PINNED), Ok(()));
    assert_eq!(may("pinned", IN_USE), Ok(()));
}

#[test]
fn a_pin_that_would_take_an_address_from_somebody_is_refused_with_the_remedy() {
    let (allocator, _) = allocator();
    let own = |name: &str| address_of(&allocator, &ServiceName::whole(name));
    for (name, address, why) in [
        ("", FREE, "a service has a name"),
        ("new", Ipv4Addr::new(10, 0, 0, 1), "the agent's own address"),
        (
            "new",
            Ipv4Addr::new(10, 0, 1, 7),
            "is not one that services may have in the pool 10.0.0.0/24",
        ),
        (
            "new",
            UNREADABLE,
            "the record of 10.0.0.202 cannot be read: `lb-agent vip release 10.0.0.202`",
        ),
        ("new", PINNED, "recorded for service later: release that"),
        ("here", IN_USE, "recorded for service pinned: release that"),
        ("new", own("here"), "in use by service here: choose another"),
        ("new", own("left"), "service left had"),
    ] {
        let refused = may_pin(&ServiceName::whole(name), address, &allocator).unwrap_err();
        assert!(refused.contains(why), "{refused} lacks {why}");
    }
}

#[test]
fn what_nobody_uses_and_what_an_operator_ordered_may_be_released() {
    let (allocator, names) = allocator();
    let own = |name: &str| address_of(&allocator, &ServiceName::whole(name));
    for (target, address, how) in [
        ("10.0.0.200", PINNED, How::Pin),
        ("later", PINNED, How::Pin),
        ("10.0.0.201", IN_USE, How::Pin),
        ("pinned", IN_USE, How::Pin),
        ("10.0.0.202", UNREADABLE, How::Unreadable),
        ("left", own("left"), How::Quarantine),
        (&own("left").to_string(), own("left"), How::Quarantine),
    ] {
        let entry = may_release(target, &names, &allocator).unwrap();
        assert_eq!((entry.address, entry.how), (address, how), "{target}");
    }
}

#[test]
fn what_is_in_use_or_kept_for_nobody_is_not_released() {
    let (allocator, names) = allocator();
    for (target, why) in [
        ("here", "in use by service here: it is released when"),
        ("www.hello", "in use by service www.hello: it is released"),
        ("10.0.0.203", "nothing is kept for 10.0.0.203"),
        ("new", "nothing is kept for new: `lb-agent vip list`"),
    ] {
        let refused = may_release(target, &names, &allocator).unwrap_err();
        assert!(refused.contains(why), "{refused} lacks {why}");
    }
}

#[test]
fn of_what_is_kept_for_a_service_that_is_released_first_which_lasts() {
    let (mut allocator, mut names) = allocator();
    // It moves to a pin, and leaves a quarantine behind.
    let here = ServiceName::whole("here");
    let before = address_of(&allocator, &here);
    allocator.record(FREE, pin(&here));
    allocator.allocate(&Wanted::all(names.clone()), NOW);
    let released = |names: &Names, allocator: &Allocator| {
        let entry = may_release("here", names, allocator).unwrap();
        (entry.address, entry.how)
    };
    assert_eq!(released(&names, &allocator), (FREE, How::Pin));
    // And after that what rests, while the service has an address by its hash.
    allocator.release(FREE, NOW);
    allocator.allocate(&Wanted::all(names.clone()), NOW);
    assert_eq!(allocator.known()[&before], (&here, None));
    assert_eq!(released(&names, &allocator), (FREE, How::Quarantine));
    // Without the service, its pin is there still.
    allocator.record(PINNED, pin(&here));
    names.remove(&here);
    allocator.allocate(&Wanted::all(names.clone()), NOW);
    assert_eq!(released(&names, &allocator), (PINNED, How::Pin));
}
