//! How registration is, as others are told: a value that is sent when it changes, and what changed is logged once.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::seen::Seen;
use crate::catalog::Problem;

/// How registration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The identity of this host, once it is known.
    pub host: Option<String>,
    /// Services that the containers ask for.
    pub services: usize,
    /// Containers that run, of which no port is registered.
    pub left_out: usize,
    /// Every container that runs, by name; `None` until the engine has answered and this host is known. What was last
    /// known stays while Consul is away.
    pub containers: Option<Arc<[Seen]>>,
    /// When Consul last held all of them.
    pub synced: Option<SystemTime>,
    /// Why Consul cannot be asked at the moment.
    pub error: Option<String>,
    /// What somebody has to correct.
    pub problems: Vec<Problem>,
}

/// Where the stage tells how registration is.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// All of it.
    pub status: watch::Sender<Status>,
    /// What somebody has to correct, alone.
    pub problems: watch::Sender<Vec<Problem>>,
}

/// Sends the status; what changed is logged once.
pub(super) fn publish(out: &Outputs, status: Status) {
    out.problems.send_if_modified(|old| {
        let changed = *old != status.problems;
        old.clone_from(&status.problems);
        changed
    });
    out.status.send_if_modified(|old| {
        match (&old.error, &status.error) {
            (before, Some(error)) if before.as_ref() != Some(error) => {
                warn!(%error, "containers cannot be registered");
            }
            (Some(_), None) => info!("containers can be registered again"),
            _ => {}
        }
        for problem in &status.problems {
            if !old.problems.contains(problem) {
                warn!(%problem, "registration");
            }
        }
        let changed = Status {
            synced: old.synced,
            ..status.clone()
        } != *old;
        *old = status;
        changed
    });
}
