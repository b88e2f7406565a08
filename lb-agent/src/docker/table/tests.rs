mod happenings;
mod unread;

use std::net::Ipv4Addr;

use super::{super::Endpoint, *};

fn inspected(id: &str, state: State, started: u64) -> Inspected {
    let endpoint = Endpoint {
        ipv4: Some(Ipv4Addr::new(172, 17, 0, 2)),
        ipv6: None,
    };
    Inspected {
        container: Container {
            id: id.to_owned(),
            name: id.to_owned(),
            image: "web".to_owned(),
            created: 1,
            environment: Vec::new(),
            labels: BTreeMap::new(),
            exposed: BTreeSet::new(),
            published: Vec::new(),
            network: NetworkMode::Networks,
            networks: [("bridge".to_owned(), endpoint)].into(),
            state,
            process: None,
            health: None,
            runtime: String::new(),
        },
        started,
        stop_signal: 3,
        stop_timeout: Duration::from_secs(10),
    }
}

fn ids(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&id| id.to_owned()).collect()
}

fn event(id: &str, time: u64, action: Action) -> Event {
    Event {
        container: id.to_owned(),
        time,
        action,
    }
}

/// Looks at everything that wants it, and finds `state`.
fn look(table: &mut Table, state: State, started: u64, now: Instant) {
    while let Some(id) = table.next() {
        table.looked(&id, Ok(Some(inspected(&id, state, started))), now);
    }
}

/// A table with the running container `a`, started at 10.
fn running(now: Instant) -> Table {
    let mut table = Table::default();
    table.list(&BTreeSet::new(), ids(&["a"]), now);
    look(&mut table, State::Running, 10, now);
    table
}

fn state(table: &Table, id: &str) -> Option<State> {
    table.containers()?.get(id).map(|container| container.state)
}

#[test]
fn nothing_is_known_before_all_of_the_first_list_are() {
    let now = Instant::now();
    let mut table = Table::default();
    assert_eq!(table.containers(), None);
    table.list(&BTreeSet::new(), ids(&["a", "b"]), now);
    let first = table.next().unwrap();
    table.looked(&first, Ok(Some(inspected(&first, State::Running, 1))), now);
    assert_eq!(table.containers(), None);
    look(&mut table, State::Running, 1, now);
    assert_eq!(table.containers().unwrap().len(), 2);
}

#[test]
fn an_engine_without_containers_is_known_to_have_none() {
    let mut table = Table::default();
    table.list(&BTreeSet::new(), BTreeSet::new(), Instant::now());
    assert_eq!(table.containers(), Some(BTreeMap::new()));
}

#[test]
fn a_stop_signal_marks_the_end_before_anybody_looks() {
    let now = Instant::now();
    for (signal, expected) in [
        (15, State::Ending),
        (9, State::Ending),
        (3, State::Ending),
        (1, State::Running),
    ] {
        let mut table = running(now);
        table.happened(event("a", 20, Action::Kill(signal)), now);
        assert_eq!(state(&table, "a"), Some(expected), "{signal}");
        // It still runs when it is looked at, which takes nothing back.
        look(&mut table, State::Running, 10, now);
        assert_eq!(state(&table, "a"), Some(expected), "{signal}");
        let departed = expected == State::Ending;
        assert_eq!(table.departed().contains("a"), departed);
    }
}

#[test]
fn a_signal_to_a_container_that_nobody_has_looked_at_counts_when_somebody_does() {
    let now = Instant::now();
    for (signal, time, expected) in [
        (15, 20, State::Ending),
        (1, 20, State::Running),
        // From before its last start.
        (15, 9, State::Running),
    ] {
        let mut table = Table::default();
        table.list(&BTreeSet::new(), ids(&["a"]), now);
        table.happened(event("a", time, Action::Kill(signal)), now);
        look(&mut table, State::Running, 10, now);
        assert_eq!(state(&table, "a"), Some(expected), "{signal} {time}");
    }
}

#[test]
fn what_was_sent_when_nobody_listened_counts_for_as_long_as_the_container_may_take() {
    // Later than any time of these containers.
    let now = Instant::now() + 2 * SURVIVED;
    let limit = SURVIVED + Duration::from_secs(10);
    let until = 10 + 2 * u64::try_from(limit.as_nanos()).unwrap();
    for (age, expected) in [
        (limit, State::Ending),
        (limit + Duration::from_nanos(1), State::Running),
    ] {
        let time = until - u64::try_from(age.as_nanos()).unwrap();
        let sent = || {
            vec![
                event("a", time, Action::Kill(15)),
                event("a", time, Action::Other),
            ]
        };
        let mut unknown = Table::default();
        unknown.happened_before(until, sent(), now);
        unknown.list(&BTreeSet::new(), ids(&["a"]), now);
        look(&mut unknown, State::Running, 10, now);
        let mut known = running(now);
        known.happened_before(until, sent(), now);
        for mut table in [unknown, known] {
            assert_eq!(state(&table, "a"), Some(expected), "{age:?}");
            // It has no more time than if somebody had listened.
            table.pass(now + limit.saturating_sub(age) + Duration::from_nanos(1));
            assert_eq!(state(&table, "a"), Some(State::Running));
        }
    }
}

#[test]
fn a_restarted_container_is_back() {
    let now = Instant::now();
    let mut table = running(now);
    table.happened(event("a", 20, Action::Kill(15)), now);
    table.happened(event("a", 21, Action::Die(0)), now);
    assert_eq!(state(&table, "a"), Some(State::Exited(0)));
    table.happened(event("a", 30, Action::Other), now);
    look(&mut table, State::Running, 30, now);
    assert_eq!(state(&table, "a"), Some(State::Running));
    assert_eq!(table.departed(), BTreeSet::new());
}

#[test]
fn an_event_from_before_the_last_start_is_history() {
    let now = Instant::now();
    let mut table = running(now);
    table.happened(event("a", 9, Action::Kill(15)), now);
    table.happened(event("a", 9, Action::Die(1)), now);
    assert_eq!(state(&table, "a"), Some(State::Running));
}

#[test]
fn a_look_from_before_an_event_is_made_again() {
    let now = Instant::now();
    let mut table = running(now);
    table.happened(event("a", 20, Action::Other), now);
    assert_eq!(table.next().as_deref(), Some("a"));
    table.happened(event("a", 21, Action::Die(1)), now);
    assert_eq!(table.next(), None);
    table.looked("a", Ok(Some(inspected("a", State::Running, 10))), now);
    assert_eq!(state(&table, "a"), Some(State::Exited(1)));
    assert_eq!(table.next().as_deref(), Some("a"));
}

#[test]
fn a_removed_container_is_remembered_until_many_others_were_removed() {
    let now = Instant::now();
    let mut table = running(now);
    table.happened(event("a", 20, Action::Destroy), now);
    look_absent(&mut table, now);
    assert_eq!(table.containers(), Some(BTreeMap::new()));
    // Consul may be away for days, and then still name it.
    table.pass(now + Duration::from_secs(3 * 86_400));
    assert_eq!(table.departed(), ids(&["a"]));
    for n in 1..=REMEMBERED {
        assert!(table.departed().contains("a"), "{n}");
        let (id, later) = (n.to_string(), now + Duration::from_secs(1));
        table.looked(&id, Ok(Some(inspected(&id, State::Running, 1))), later);
        table.happened(event(&id, 20, Action::Destroy), later);
    }
    assert!(!table.departed().contains("a"));
    assert_eq!(table.departed().len(), REMEMBERED);
}

fn look_absent(table: &mut Table, now: Instant) {
    while let Some(id) = table.next() {
        table.looked(&id, Ok(None), now);
    }
}

#[test]
fn what_a_new_list_lacks_is_gone_unless_it_is_newer_than_the_list() {
    let now = Instant::now();
    let mut table = running(now);
    let before = table.ids();
    table.happened(event("b", 20, Action::Other), now);
    look(&mut table, State::Running, 20, now);
    table.list(&before, BTreeSet::new(), now);
    assert_eq!(table.ids(), ids(&["b"]));
    assert_eq!(table.departed(), ids(&["a"]));
}

#[test]
fn a_container_without_any_network_left_takes_nothing_new() {
    let now = Instant::now();
    let mut table = running(now);
    let left = Action::Disconnect("bridge".to_owned());
    table.happened(event("a", 20, left), now);
    assert_eq!(state(&table, "a"), Some(State::Running));
    assert_eq!(table.departed(), ids(&["a"]));
    look(&mut table, State::Running, 10, now);
    assert_eq!(table.departed(), BTreeSet::new());
}

#[test]
fn a_container_that_survives_its_signal_is_believed_after_a_while() {
    let now = Instant::now();
    let mut table = running(now);
    table.happened(event("a", 20, Action::Kill(15)), now);
    table.pass(now + Duration::from_secs(10));
    assert_eq!(state(&table, "a"), Some(State::Ending));
    table.pass(now + SURVIVED + Duration::from_secs(11));
    assert_eq!(state(&table, "a"), Some(State::Running));
}

#[test]
fn what_stays_the_same_keeps_its_allocation() {
    let now = Instant::now();
    let mut table = running(now);
    let before = table.containers().unwrap()["a"].clone();
    table.happened(event("a", 20, Action::Other), now);
    look(&mut table, State::Running, 10, now);
    assert!(Arc::ptr_eq(&before, &table.containers().unwrap()["a"]));
}
