//! When it looks again: until nothing is found, and what cannot be ended.

use super::*;

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
