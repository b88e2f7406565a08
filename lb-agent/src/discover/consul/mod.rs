//! The `consul` source: follows every service of a Consul and says what is registered.
//!
//! One blocking query follows the list of services, one each service. Where connections are few, the services
//! beyond them are read when the list of services or the list of all checks says that something changed. An
//! answer is believed only as far as `judge` and `read` allow: unknown is never empty. The source never
//! writes to Consul; the [`crate::vip`] stage does by `keys`, [`crate::announce`] by `lock`, the registrar by `agent`. Only this module knows Consul's
//! JSON. The table of what is known belongs to [`run`] (`source.rs`); the followers send it what they learn.

mod address;
pub(crate) mod agent;
mod answer;
pub(crate) mod backoff;
mod checks;
mod client;
mod config;
mod error;
mod follow;
mod hosts;
mod index;
mod judge;
mod keep;
pub(crate) mod keys;
mod leader;
mod line;
pub(crate) mod lock;
pub(crate) mod look;
mod marks;
mod metrics;
mod pace;
mod parse;
mod read;
mod rights;
mod server;
mod servers;
mod source;
mod table;
mod telling;
mod tls;
mod turns;
mod version;

use std::{sync::Arc, time::Duration};

pub use address::{Address, AddressError, FORMS};
pub use config::{BasicAuth, Config, Token, Warning};
pub use error::{Fault, RequestError, SetupError};
pub use keep::file_in;
pub use metrics::Metrics;
pub use tls::{Tls, TlsError};
use tokio::{
    sync::{mpsc, watch},
    task::JoinError,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    client::Client,
    follow::Shared,
    source::Source,
    telling::{Telling, publish},
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
    /// No client can be made.
    #[error("cannot ask Consul")]
    Client(#[source] SetupError),
    /// A follower ended by a fault of ours.
    #[error("a follower of a Consul service failed")]
    Follower(#[source] JoinError),
}

/// Events that may wait; followers pause when the table falls behind.
const EVENTS: usize = 64;
/// How long Consul has for its first full answer before what was kept on disk is used.
const PATIENCE: Duration = Duration::from_secs(5);
/// Everybody has a turn at least so often, whatever Consul's signals say.
const ROUND: Duration = Duration::from_secs(60);
/// How long the first full answer waits for what host names mean.
const PATIENCE_HOSTS: Duration = Duration::from_secs(5);

/// Follows Consul until `stop`.
///
/// # Errors
/// Only by a fault of the program. A Consul that is away, or answers nonsense, is told in
/// [`SourceState::error`].
pub async fn run(
    config: Config,
    out: watch::Sender<SourceState>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (events, mut news) = mpsc::channel(EVENTS);
    let kept = keep::load(&config).await;
    let keeper = tokio::spawn(keep::run(config.clone(), out.subscribe(), stop.clone()));
    let metrics = config.metrics.clone();
    let client = Client::new(config).map_err(Error::Client)?;
    let shared = Arc::new(Shared::new(client, events));
    let mut source = Source::new(shared.clone(), metrics);
    let kept_at = source.resume(kept);
    let patience = Instant::now() + PATIENCE;
    let mut impatient = false;
    let mut hosts_until = None;
    let mut telling = Telling::default();
    let mut round = Instant::now() + ROUND;
    let mut batch = Vec::new();
    let ended = loop {
        let turn = source.turn_due();
        if source.table.waits_for_hosts() {
            hosts_until.get_or_insert_with(|| Instant::now() + PATIENCE_HOSTS);
        } else {
            hosts_until = None;
        }
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(ended) = source.tasks.join_next() => match ended {
                Err(error) if !error.is_cancelled() => break Err(Error::Follower(error)),
                _ => continue,
            },
            _ = news.recv_many(&mut batch, EVENTS) => {}
            () = sleep_until(turn.unwrap_or(round)), if turn.is_some() => {
                source.take_turn();
                continue;
            }
            () = sleep_until(round) => {
                round += ROUND;
                source.turns.want_all(&source.standings);
                continue;
            }
            () = sleep_until(patience), if !impatient => {
                impatient = true;
                source.table.resume();
            }
            () = sleep_until(hosts_until.unwrap_or(round)), if hosts_until.is_some() => {
                source.table.wait_for_hosts_no_more();
            }
            () = sleep_until(telling.due.unwrap_or(round)), if telling.due.is_some() => {}
        }
        let mut heard = false;
        for event in batch.drain(..) {
            heard |= source.take_in(event);
        }
        source.count();
        publish(&out, &mut source.table, heard, kept_at, &mut telling);
    };
    // It ends with `stop`, after its last word.
    if ended.is_ok() {
        let _ = keeper.await;
    } else {
        keeper.abort();
    }
    ended
}
