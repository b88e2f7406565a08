//! The `consul` source: follows every service of a Consul and says what is registered.
//!
//! One blocking query follows the list of services, one each service. An answer is believed only as far as
//! `judge` and `read` allow: unknown is never empty. It never writes to Consul, except for the keys that the
//! [`crate::vip`] stage records. Only this module knows Consul's JSON. The table of what is known belongs to
//! [`run`]; the followers send it what they learn.

pub(crate) mod backoff;
mod client;
mod config;
mod error;
mod follow;
mod index;
mod judge;
pub(crate) mod keys;
mod metrics;
mod pace;
mod parse;
mod read;
mod table;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

pub use config::{Address, AddressError, Config, Token};
pub use error::RequestError;
pub use metrics::Metrics;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    client::Client,
    follow::{Event, Shared},
    table::{Hitch, Table, Task},
};
use crate::catalog::SourceState;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

/// Key of [`crate::catalog::Instance::meta`] under which the tagged address `virtual`, which a user may set,
/// is passed on. Consul allows no colon in a user's own keys.
pub const VIRTUAL_ADDRESS: &str = "consul:virtual";

/// Why the source ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// A follower ended by a fault of ours.
    #[error("a follower of a Consul service failed")]
    Follower(#[source] JoinError),
}

/// Events that may wait; followers pause when the table falls behind.
const EVENTS: usize = 64;

/// Follows Consul until `stop`.
///
/// # Errors
/// Only by a fault of the program. A Consul that is away, or answers nonsense, is told in
/// [`SourceState::error`].
pub async fn run(
    config: Config,
    out: watch::Sender<SourceState>,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (events, mut news) = mpsc::channel(EVENTS);
    let client = Client::new(config, metrics.clone()).map_err(Error::Client)?;
    let shared = Arc::new(Shared::new(client, events));
    let max_watches = shared.watches.available_permits();
    // Dropped at the end, and its tasks with it.
    let mut followers = JoinSet::new();
    followers.spawn(follow::names(shared.clone()));
    let mut by_service: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let mut table = Table::default();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(ended) = followers.join_next() => match ended {
                Err(error) if !error.is_cancelled() => return Err(Error::Follower(error)),
                _ => continue,
            },
            _ = news.recv_many(&mut batch, EVENTS) => {}
        }
        let mut heard = false;
        for event in batch.drain(..) {
            if let Event::Names(read) = &event {
                metrics.up.set(read.is_ok().into());
            }
            let (tasks, good) = take_in(&mut table, event);
            heard |= good;
            for task in tasks {
                match task {
                    Task::Follow(service) => {
                        let follower = follow::service(shared.clone(), service.clone());
                        by_service.insert(service, followers.spawn(follower));
                    }
                    Task::Leave(service) => {
                        if let Some(follower) = by_service.remove(&service) {
                            follower.abort();
                        }
                    }
                }
            }
        }
        let watched = max_watches - shared.watches.available_permits();
        let polled = table.len().saturating_sub(watched);
        metrics
            .watches
            .set(i64::try_from(watched).unwrap_or(i64::MAX));
        metrics
            .polled
            .set(i64::try_from(polled).unwrap_or(i64::MAX));
        publish(&out, &mut table, heard);
    }
}

/// Updates the table; also says whether the event was an answer.
fn take_in(table: &mut Table, event: Event) -> (Vec<Task>, bool) {
    match event {
        Event::Names(Ok(read)) => (table.name(read.value, read.stale), true),
        Event::Names(Err(trouble)) => {
            table.name_failed(trouble.explain());
            (Vec::new(), false)
        }
        Event::Listing(service, Ok(read)) => (table.list(&service, read.value, read.stale), true),
        Event::Listing(service, Err(trouble)) => {
            let hitch = Hitch {
                text: trouble.explain(),
                is_final: trouble.is_final(),
            };
            (table.list_failed(&service, hitch), false)
        }
    }
}

fn publish(out: &watch::Sender<SourceState>, table: &mut Table, heard: bool) {
    let catalog = table.catalog();
    let error = table.error();
    out.send_if_modified(|state| {
        let changed = catalog.as_ref() != state.catalog.as_deref();
        if changed {
            state.catalog = catalog.map(Arc::new);
        }
        // Before the first full answer there is nothing whose age could be told. A later one that says
        // nothing new wakes nobody: with many services there are dozens a second.
        let first = state.updated.is_none();
        if state.catalog.is_some() && (first || heard && error.is_none()) {
            state.updated = Some(SystemTime::now());
        }
        let turned = state.error != error;
        match (&state.error, &error) {
            (_, Some(now)) if turned => warn!(error = %now, "Consul cannot be read"),
            (Some(_), None) => info!("Consul can be read again"),
            _ => {}
        }
        state.error = error;
        changed || turned
    });
}
