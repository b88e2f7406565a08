//! The door of the fuzz targets to what would be asked of a Consul agent.

use std::collections::BTreeSet;

use super::{
    plan::{Memory, Ownership, Step, plan},
    settings::Settings,
    wish::{Deregister, wishes},
};
use crate::{catalog::Problem, discover::consul::agent::Held, docker::Containers};

/// What would be done.
pub(crate) struct Outcome {
    /// The ids of the services that the containers ask for.
    pub(crate) wished: BTreeSet<String>,
    /// The ids of the services that would be put in or out of maintenance or registered.
    pub(crate) changed: BTreeSet<String>,
    /// The ids of the services that would be removed.
    pub(crate) removed: BTreeSet<String>,
    pub(crate) problems: Vec<Problem>,
}

/// Leads from what a Consul agent holds to what `containers` ask for.
pub(crate) fn lead(held: &Held, containers: &Containers, settings: &Settings) -> Outcome {
    let wished = wishes(
        containers,
        &BTreeSet::new(),
        &BTreeSet::new(),
        settings,
        Deregister::OnSuccess,
    );
    let mut memory = Memory::default();
    memory.look(&wished, held);
    let owner = Ownership {
        host: &settings.host,
        adopt: &BTreeSet::new(),
    };
    let (steps, problems) = plan(&wished, held, owner, &memory);
    let mut outcome = Outcome {
        wished: wished.services.into_keys().collect(),
        changed: BTreeSet::new(),
        removed: BTreeSet::new(),
        problems,
    };
    for step in steps {
        match step {
            Step::Maintain { id, .. } | Step::Resume { id } => drop(outcome.changed.insert(id)),
            Step::Register(it) => drop(outcome.changed.insert(it.id)),
            Step::Deregister { id } => drop(outcome.removed.insert(id)),
            // Of a check, which is a service's own.
            Step::Report { .. } => {}
        }
    }
    outcome
}
