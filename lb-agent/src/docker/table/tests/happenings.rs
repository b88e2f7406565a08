//! Whatever happens, in whatever order, the table comes to what the engine holds.

use proptest::prelude::*;

use super::*;

/// What the engine does, and when the follower gets to look.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start(u8),
    Kill(u8),
    Die(u8),
    Destroy(u8),
    Look,
    Finish,
    List,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..3_u8;
    prop_oneof![
        id.clone().prop_map(Step::Start),
        id.clone().prop_map(Step::Kill),
        id.clone().prop_map(Step::Die),
        id.prop_map(Step::Destroy),
        Just(Step::Look),
        Just(Step::Finish),
        Just(Step::List),
        Just(Step::Reconnect),
    ]
}

proptest! {
    /// However events, looks and lists interleave: when all is read, the table holds what the engine holds.
    #[test]
    fn the_table_ends_as_the_engine_is(steps in proptest::collection::vec(step(), 0..60)) {
        let now = Instant::now();
        let mut engine: BTreeMap<String, Inspected> = BTreeMap::new();
        let mut table = Table::default();
        table.list(&BTreeSet::new(), BTreeSet::new(), now);
        let mut under_way: Vec<(String, Option<Inspected>)> = Vec::new();
        for (time, step) in (1_u64..).zip(steps) {
            let name = |id: u8| format!("c{id}");
            match step {
                Step::Start(id) => {
                    engine.insert(name(id), inspected(&name(id), State::Running, time));
                    table.happened(event(&name(id), time, Action::Other), now);
                }
                Step::Kill(id) => table.happened(event(&name(id), time, Action::Kill(9)), now),
                Step::Die(id) => if let Some(it) = engine.get_mut(&name(id)) {
                    it.container.state = State::Exited(1);
                    table.happened(event(&name(id), time, Action::Die(1)), now);
                },
                Step::Destroy(id) => {
                    engine.remove(&name(id));
                    table.happened(event(&name(id), time, Action::Destroy), now);
                }
                Step::Look => if let Some(id) = table.next() {
                    let found = engine.get(&id).cloned();
                    under_way.push((id, found));
                },
                Step::Finish => if let Some((id, found)) = under_way.pop() {
                    table.looked(&id, Ok(found), now);
                },
                Step::List => {
                    let before = table.ids();
                    table.list(&before, engine.keys().cloned().collect(), now);
                }
                Step::Reconnect => {
                    under_way.clear();
                    table.disconnected();
                    let before = table.ids();
                    table.list(&before, engine.keys().cloned().collect(), now);
                }
            }
        }
        for (id, found) in under_way {
            table.looked(&id, Ok(found), now);
        }
        while let Some(id) = table.next() {
            table.looked(&id, Ok(engine.get(&id).cloned()), now);
        }
        let shown = table.containers().unwrap();
        prop_assert_eq!(shown.keys().collect::<Vec<_>>(), engine.keys().collect::<Vec<_>>());
        for (id, it) in &engine {
            // A signal may have been sent to one that has not ended yet.
            let as_is = shown[id].state == it.container.state;
            prop_assert!(as_is || shown[id].state == State::Ending, "{id}: {:?}", shown[id].state);
        }
    }
}
