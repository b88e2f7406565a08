//! The log of what changed from one snapshot to the next: each change once, with from and to.

use std::{collections::BTreeSet, sync::Arc};

use tracing::{debug, info, warn};

use crate::{
    catalog::Problem,
    snapshot::{Service, ServiceName, Snapshot, changes},
};

/// Logs how `after` differs from `before`; of the first snapshot only its size and its problems.
pub(super) fn record(before: Option<&Snapshot>, after: &Snapshot) {
    let known: BTreeSet<&Problem> = before.into_iter().flat_map(|it| &it.problems).collect();
    for problem in &after.problems {
        if !known.contains(problem) {
            let (subject, message) = (&problem.subject, &problem.message);
            warn!(subject, message, "problem");
        }
    }
    match before {
        None => {
            let backends = |service: &Arc<Service>| service.backends.len();
            let backends: usize = after.services.values().map(backends).sum();
            info!(services = after.services.len(), backends, "first snapshot");
        }
        Some(before) => record_services(before, after),
    }
    if after.complete && !before.is_some_and(|it| it.complete) {
        info!("every source has answered and every backend was probed");
    }
}

fn record_services(before: &Snapshot, after: &Snapshot) {
    for (name, old, new) in changes(&before.services, &after.services) {
        match (old, new) {
            (Some(old), Some(new)) => record_service(name, old, new),
            (None, Some(new)) => {
                info!(service = %name, backends = new.backends.len(), "service appeared");
            }
            (_, None) => info!(service = %name, "service left"),
        }
    }
}

fn record_service(name: &ServiceName, before: &Service, after: &Service) {
    // The whole service tells it; its parts would say it again.
    if name.tag.is_some() {
        return;
    }
    let service = &*name.service;
    for (instance, backend) in &after.backends {
        let to = backend.state().as_str();
        let Some(old) = before.backends.get(instance) else {
            info!(service, %instance, address = %backend.address, state = to, "backend appeared");
            continue;
        };
        let from = old.state().as_str();
        if from != to {
            let why = backend.probe.error.as_deref().unwrap_or_default();
            info!(service, %instance, from, to, why, "backend changed");
        } else if old.address != backend.address {
            let (from, to) = (old.address, backend.address);
            info!(service, %instance, %from, %to, "backend moved");
        } else if old != backend {
            debug!(service, %instance, "backend has new details");
        }
    }
    for instance in before.backends.keys() {
        if !after.backends.contains_key(instance) {
            info!(service, %instance, "backend left");
        }
    }
}
