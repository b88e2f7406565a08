//! What operators are shown of every address.

use super::*;
use crate::vip::How;

#[test]
fn every_address_is_listed_with_its_reason() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let (a, b, _) = twins(&allocator);
    let mut wanted = names([a, b, 7]);
    let (wish, pinned) = (Ipv4Addr::new(10, 0, 0, 200), Ipv4Addr::new(10, 0, 0, 201));
    let broken = Ipv4Addr::new(10, 0, 0, 202);
    wanted.insert(name(8), Some(wish));
    allocator.record(pinned, pin(9));
    allocator.records.insert(broken, None);
    settled(&mut allocator, &wanted);
    wanted.remove(&name(7));
    settled(&mut allocator, &wanted);
    let listed = allocator.list(&wanted).into_iter();
    let mut listed: Vec<_> = listed
        .map(|it| (it.how, it.in_use, it.service, it.until_unix.is_some()))
        .collect();
    listed.sort_by_key(|(how, ..)| how.as_str());
    let of = |n: u32| Some(format!("s{n}"));
    assert_eq!(
        listed,
        [
            (How::Hash, true, of(a), false),
            (How::Pin, false, of(9), false),
            (How::Quarantine, false, of(7), true),
            (How::Record, true, of(b), false),
            (How::Unreadable, false, None, false),
            (How::Wish, true, of(8), false),
        ]
    );
}

/// How `n` came to its address.
fn how(allocator: &Allocator, wanted: &Names, n: u32) -> How {
    let listed = allocator.list(wanted).into_iter();
    let mut of_it = listed.filter(|it| it.service == Some(format!("s{n}")) && it.in_use);
    of_it.next().unwrap().how
}

#[test]
fn a_wish_is_the_reason_only_where_it_was_granted() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let beyond = Names::from([(name(1), Some(Ipv4Addr::new(10, 0, 1, 7)))]);
    settled(&mut allocator, &beyond);
    assert_eq!(how(&allocator, &beyond, 1), How::Hash);
    // Nor does a record hide it.
    let wish = Ipv4Addr::new(10, 0, 0, 77);
    let wanted = Names::from([(name(1), Some(wish)), (name(2), None)]);
    allocator.record(wish, owner(1));
    allocator.record(Ipv4Addr::new(10, 0, 0, 78), owner(2));
    settled(&mut allocator, &wanted);
    assert_eq!(how(&allocator, &wanted, 1), How::Wish);
    assert_eq!(how(&allocator, &wanted, 2), How::Record);
}

#[test]
fn an_address_whose_reason_has_gone_is_kept() {
    let mut allocator = allocator("10.0.0.0/24", Records::new());
    let wish = Ipv4Addr::new(10, 0, 0, 77);
    assert_ne!(allocator.pool.home("dc1", &name(1)), wish);
    settled(&mut allocator, &Names::from([(name(1), Some(wish))]));
    let round = settled(&mut allocator, &names([1]));
    assert_eq!(round.by_name[&name(1)], wish);
    assert_eq!(how(&allocator, &names([1]), 1), How::Kept);
}
