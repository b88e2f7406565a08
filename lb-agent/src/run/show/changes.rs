//! Counts what happens to the agent from outside and has no stage of its own to count it: changes of backends' state, and
//! SIGHUP.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_agent::{
    admin::{Figure, Figures, Sample},
    snapshot::{Snapshot, changes},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What was counted. No service stays in it that has left.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// By service and what a backend of it became.
    states: Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>,
    reloads: AtomicU64,
}

/// Counts until `stop`. What a snapshot changes that was replaced before anybody looked is not seen.
pub(crate) async fn follow(
    counted: Arc<Changes>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    mut reload: watch::Receiver<()>,
    stop: CancellationToken,
) {
    let mut before = snapshots.borrow_and_update().clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = snapshots.changed() => {
                let after = snapshots.borrow_and_update().clone();
                if let (Some(before), Some(after)) = (&before, &after) {
                    counted.count(before, after);
                }
                before = after;
            }
            Ok(()) = reload.changed() => {
                counted.reloads.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Changes {
    fn count(&self, before: &Snapshot, after: &Snapshot) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, old, new) in changes(&before.services, &after.services) {
            // The whole service tells it; its parts would say it again.
            if name.tag.is_some() {
                continue;
            }
            let (Some(old), Some(new)) = (old, new) else {
                states.remove(&*name.service);
                continue;
            };
            for (instance, backend) in &new.backends {
                let to = backend.state().as_str();
                let from = old.backends.get(instance).map(|it| it.state().as_str());
                if from.is_some_and(|from| from != to) {
                    *states
                        .entry(name.service.to_string())
                        .or_default()
                        .entry(to)
                        .or_default() += 1;
                }
            }
        }
    }

    /// As metrics.
    pub(crate) fn figures(
        self: Arc<Self>,
    ) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
        Figures::new(move || {
            let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            let states = states.iter().flat_map(|(service, counts)| {
                counts.iter().map(move |(to, count)| {
                    let labels = [("service", service.as_str()), ("to", *to)];
                    Sample::labelled(labels, super::figures::for_people(*count))
                })
            });
            vec![
                Figure::counter(
                    "backend_state_changes",
                    "Times that a backend of the service became something else, by what it became.",
                    states.collect(),
                ),
                Figure::counter(
                    "config_reloads",
                    "Times that SIGHUP made the agent read tokens and certificates again.",
                    vec![Sample::plain(super::figures::value(&self.reloads))],
                ),
            ]
        })
    }
}
