//! Containers that cannot be read: what was known of them stays, and who waits for them.

use super::*;

#[test]
fn a_container_that_cannot_be_read_stays_as_it_was_and_is_told() {
    let now = Instant::now();
    let mut table = running(now);
    table.happened(event("a", 20, Action::Other), now);
    let id = table.next().unwrap();
    table.looked(&id, Err("garbage".to_owned()), now);
    assert_eq!(state(&table, "a"), Some(State::Running));
    assert_eq!(table.hitch().as_deref(), Some("container a: garbage"));
    table.pass(now);
    look(&mut table, State::Running, 10, now);
    assert_eq!(table.hitch(), None);
}

/// Lets the next look at `b` fail, and others succeed.
fn look_in_vain(table: &mut Table, now: Instant) {
    while let Some(id) = table.next() {
        let found = match &*id {
            "b" => Err("hangs".to_owned()),
            _ => Ok(Some(inspected(&id, State::Running, 1))),
        };
        table.looked(&id, found, now);
    }
}

#[test]
fn one_of_the_first_list_that_cannot_be_read_is_not_taken_for_gone() {
    let now = Instant::now();
    let mut table = Table::default();
    table.list(&BTreeSet::new(), ids(&["a", "b"]), now);
    look_in_vain(&mut table, now);
    assert_eq!(table.containers(), None);
    assert!(table.lacks_some());
    table.again(now);
    assert_eq!(table.next().as_deref(), Some("b"), "it is looked at again");
    table.looked("b", Ok(Some(inspected("b", State::Running, 1))), now);
    assert_eq!(table.containers().unwrap().len(), 2);
    assert_eq!(table.unread(), BTreeSet::new());
}

#[test]
fn the_others_wait_for_one_that_cannot_be_read_for_a_while_only() {
    let now = Instant::now();
    let mut table = Table::default();
    table.list(&BTreeSet::new(), ids(&["a", "b"]), now);
    look_in_vain(&mut table, now);
    table.again(now + PATIENCE);
    let known = table.containers().unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), ["a"]);
    assert!(!table.lacks_some());
    // That it is there stays known, also while it is looked at once more.
    assert_eq!(table.unread(), ids(&["b"]));
    table.pass(now + PATIENCE);
    assert_eq!(table.unread(), ids(&["b"]));
    look(&mut table, State::Running, 1, now);
    assert_eq!(table.unread(), BTreeSet::new());
    assert_eq!(table.containers().unwrap().len(), 2);
}
