//! The doors of the fuzz targets to what only this module knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    Container, Containers,
    event::{self, Told},
    inspect::{self, Inspected},
    table::Table,
};

/// A container, by an answer of `/containers/<id>/json`; `None` if it is no answer.
pub(crate) fn container(text: &[u8]) -> Option<Container> {
    inspect::parse(text).ok().map(|it| it.container)
}

/// What is known in the end of an engine that says these things, each an event or a container as it is from then on: as
/// it is shown, and those that nothing new may be sent to. Beside it the containers as the engine has them.
pub(crate) fn follow<'t>(
    said: impl Iterator<Item = &'t [u8]>,
) -> (Containers, BTreeSet<String>, BTreeMap<String, Container>) {
    let now = Instant::now();
    let mut engine: BTreeMap<String, Inspected> = BTreeMap::new();
    let mut table = Table::default();
    for (n, text) in said.enumerate() {
        if let Ok(found) = inspect::parse(text) {
            engine.insert(found.container.id.clone(), found);
        } else if let Ok(Some(Told::Container(event))) = event::parse(text) {
            match n % 2 {
                0 => table.happened(event, now),
                _ => table.happened_before(event.time, vec![event], now),
            }
        }
        // Now and then somebody looks.
        if n % 3 == 0 {
            look(&mut table, &engine, now);
        }
    }
    table.pass(now + Duration::from_secs(3600));
    let before = table.ids();
    table.list(&before, engine.keys().cloned().collect(), now);
    look(&mut table, &engine, now);
    let engine = engine.into_iter().map(|(id, it)| (id, it.container));
    let shown = table.containers().unwrap_or_default();
    (shown, table.departed(), engine.collect())
}

fn look(table: &mut Table, engine: &BTreeMap<String, Inspected>, now: Instant) {
    while let Some(id) = table.next() {
        table.looked(&id, Ok(engine.get(&id).cloned()), now);
    }
}
