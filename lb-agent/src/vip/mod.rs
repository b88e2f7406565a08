//! Virtual addresses: gives every service the one that it has on every host, today and after a restart.
//!
//! Almost every name gets its address from a hash, at once and without asking anybody. Two names that want
//! the same one need a record: in Consul's key-value store where there is a Consul, and always in the state
//! directory. So does an address that an operator pinned. The address of a service that left is in quarantine
//! before another has it. Who has which is decided by [`lb_core::vip`]; what that knows belongs to [`run`]. This stage
//! never touches the data plane.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod share;
mod stage;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use lb_core::vip::{
    Entry, How, Names, Order, Pool, Pool6, Pool6Error, PoolError, Pools, Vips, Wanted, v4_of, v6_of,
};
use lb_core::vip::{allocator, order, record};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    share::{News, Open},
    stage::Stage,
};
use crate::discover::consul::{self, keys::Keys};

/// Where VIPs come from and where their records are.
#[derive(Clone, Debug)]
pub struct Config {
    /// The range.
    pub pool: Pool,
    /// Part of every hash, so that datacenters differ.
    pub datacenter: String,
    /// How long the address of a service that left is kept from others.
    pub quarantine: Duration,
    /// The file of the records, in the state directory.
    pub records: PathBuf,
    /// The Consul that shares the records among hosts.
    pub consul: Option<consul::Config>,
}

/// An order and where its answer goes.
#[derive(Debug)]
pub struct Request {
    /// What is wanted.
    pub order: Order,
    /// The addresses concerned, or why nothing was done.
    pub reply: oneshot::Sender<Result<Vec<Entry>, String>>,
}

/// Why the stage ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] consul::SetupError),
    /// A task ended by a fault of ours.
    #[error("the task that {0} failed")]
    Task(&'static str, #[source] JoinError),
}

/// Gives the names that are `asked` for their VIPs and carries out `orders` until `stop`.
///
/// # Errors
/// Only by a fault of the program; what a user can mend is told in [`Vips::problems`].
pub async fn run(
    config: Config,
    mut asked: watch::Receiver<Option<Wanted>>,
    out: watch::Sender<Option<Arc<Vips>>>,
    mut orders: mpsc::Receiver<Request>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut stage = Stage::open(&config).await?;
    let (claims, open_claims) = watch::channel(Open::new());
    let (news, mut heard) = mpsc::channel(NEWS);
    // Dropped at the end, and the task with it.
    let mut sharing = JoinSet::new();
    if let Some(consul) = config.consul {
        let keys = Arc::new(Keys::new(consul, record::PREFIX).map_err(Error::Client)?);
        stage.keys = Some(Arc::clone(&keys));
        sharing.spawn(async move { share::run(&keys, open_claims, news).await });
    }
    loop {
        let wanted = asked.borrow_and_update().clone();
        if let Some(wanted) = &wanted {
            let pending = stage.publish(wanted, &out);
            if stage.keys.is_some() {
                let open = stage.open_claims(&wanted.names, pending, &claims.borrow());
                claims.send_if_modified(|claims| {
                    let changed = *claims != open;
                    *claims = open;
                    changed
                });
            } else if !pending.is_empty() {
                stage.record(stage::owners(pending)).await?;
                stage.publish(wanted, &out);
            }
        }
        let wanted = wanted.unwrap_or_default();
        let wake = stage.wake(wanted.answered);
        tokio::select! {
            () = stop.cancelled() => return stage.close().await,
            changed = asked.changed() => if changed.is_err() {
                // Nobody will ask for more; the VIPs given stay valid.
                stop.cancelled().await;
                return stage.close().await;
            },
            Some(ended) = sharing.join_next() => {
                ended.map_err(|error| Error::Task("shares VIP records", error))?;
            }
            Some(news) = heard.recv() => match news {
                News::Records(records, index) => {
                    stage.unread = None;
                    stage.learn(records, index).await?;
                }
                News::Granted(address, owner) => {
                    stage.record(Open::from([(address, owner)])).await?;
                    stage.unshared = None;
                }
                News::Failed(why) => {
                    stage.unshared = Some(why);
                    let open = claims.borrow().clone();
                    stage.record(open).await?;
                }
                News::Unreadable(why) => {
                    stage.unread = Some(why);
                    let open = claims.borrow().clone();
                    stage.record(open).await?;
                }
            },
            Some(request) = orders.recv() => {
                stage.take(request, &wanted).await?;
            }
            Some(done) = stage.changes.join_next() => {
                let change = done.map_err(|error| Error::Task("changes VIP records", error))?;
                stage.carry_out(change, &wanted).await?;
            }
            Some(done) = stage.saving.join_next() => stage.saved_known(done)?,
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                stage.save_known_if_due();
            }
        }
    }
}

const NEWS: usize = 16;

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
