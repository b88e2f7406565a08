//! Whether the agent is ready, and if not, what it waits for.
//!
//! Readiness is a call, never the end of a handle's life: a panic ends lives too. The stages call, the
//! admin stage answers `/ready` from it, and nothing else is decided here.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;
use tracing::{debug, info};

/// The conditions of readiness; every clone speaks of the same ones.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug)]
struct State {
    waiting: BTreeSet<&'static str>,
    stopping: bool,
}

impl State {
    fn ready(&self) -> bool {
        self.waiting.is_empty() && !self.stopping
    }
}

impl Readiness {
    /// Not ready until each of `conditions` was [set](Self::set).
    pub fn new(conditions: impl IntoIterator<Item = &'static str>) -> Self {
        let state = State {
            waiting: conditions.into_iter().collect(),
            stopping: false,
        };
        Self {
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// States that `condition` is met. A second call changes nothing.
    pub fn set(&self, condition: &'static str) {
        let met = self
            .state
            .send_if_modified(|state| state.waiting.remove(condition));
        if met && self.is_ready() {
            info!("ready");
        } else if !met {
            // Either set twice, which is harmless, or a name that `new` was never told of.
            debug!(condition, "this condition of readiness was not waited for");
        }
    }

    /// Ends readiness for good: the agent is on its way out.
    pub fn stop(&self) {
        let changed = self
            .state
            .send_if_modified(|state| !std::mem::replace(&mut state.stopping, true));
        if changed {
            info!("not ready any more: stopping");
        }
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().ready()
    }

    /// Why the agent is not ready, one reason each; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        let state = self.state.borrow();
        let stopping = state.stopping.then(|| "stopping".to_owned());
        let waiting = state
            .waiting
            .iter()
            .map(|name| format!("waiting for {name}"));
        stopping.into_iter().chain(waiting).collect()
    }

    /// Returns once the agent is ready.
    pub async fn ready(&self) {
        // It fails only when the sender is gone, and `self` holds it.
        let _ = self.state.subscribe().wait_for(State::ready).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_only_when_every_condition_was_set() {
        let readiness = Readiness::new(["maps", "listeners"]);
        readiness.clone().set("maps");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reasons(), ["waiting for listeners"]);
        readiness.set("listeners");
        assert!(readiness.is_ready());
        assert!(readiness.reasons().is_empty());
    }

    #[test]
    fn an_unknown_condition_makes_nothing_ready() {
        let readiness = Readiness::new(["maps"]);
        readiness.set("mops");
        assert_eq!(readiness.reasons(), ["waiting for maps"]);
    }

    #[test]
    fn stopping_ends_readiness_for_good() {
        let readiness = Readiness::new([]);
        assert!(readiness.is_ready());
        readiness.stop();
        assert_eq!(readiness.reasons(), ["stopping"]);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_waiter_wakes_at_the_last_condition() {
        let readiness = Readiness::new(["maps"]);
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        readiness.set("maps");
        waiter.await.unwrap();
    }
}
