//! Since when each backend is in its state.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    catalog::InstanceKey,
    cow_map::CowMap,
    snapshot::{self, Service, ServiceName, Snapshot, State},
};

/// Since when each backend is in its state.
#[derive(Debug, Default)]
pub(super) struct States {
    before: CowMap<ServiceName, std::sync::Arc<Service>>,
    pub(super) since: HashMap<String, BTreeMap<InstanceKey, (State, Option<u64>)>>,
    /// Whether a first snapshot was seen: what is in that has been so for nobody knows how long.
    begun: bool,
}

impl States {
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now_unix: u64) -> usize {
        let since = self.begun.then_some(now_unix);
        let mut changed = 0;
        for (name, _, after) in snapshot::changes(&self.before, &snapshot.services) {
            let there = after.map_or(&self.before, |_| &snapshot.services);
            let label = snapshot::label(there, name).to_string();
            let Some(after) = after else {
                self.since.remove(&label);
                continue;
            };
            let known = self.since.entry(label).or_default();
            let there: HashSet<&InstanceKey> = after.backends.keys().collect();
            known.retain(|key, _| there.contains(key));
            for (key, backend) in &after.backends {
                let state = backend.state();
                let known = known.entry(key.clone()).or_insert((state, since));
                if known.0 != state {
                    *known = (state, since);
                    changed += 1;
                }
            }
        }
        self.before = snapshot.services.clone();
        self.begun |= snapshot.is_known();
        changed
    }
}
