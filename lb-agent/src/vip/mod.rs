//! Virtual addresses: gives every service the one that it has on every host, today and after a restart.
//!
//! Almost every name gets its address from a hash, at once and without asking anybody. Two names that want
//! the same one need a record: in Consul's key-value store where there is a Consul, and always in the state
//! directory. This stage never touches the data plane. The allocator belongs to [`run`].

mod allocator;
mod pool;
mod share;

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, sync::Arc};

pub use pool::{Pool, PoolError};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    allocator::{Allocator, Claims, Records},
    share::News,
};
use crate::{
    catalog::Problem,
    discover::consul::{self, keys::Keys},
    snapshot::ServiceName,
    state_file,
};

/// The names that want a VIP, each with the address that its registration asks for.
pub type Names = BTreeMap<ServiceName, Option<Ipv4Addr>>;

/// The VIPs of all current names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vips {
    /// By name. A name without one is in `problems`, or waits for a moment for its record.
    pub by_name: BTreeMap<ServiceName, Ipv4Addr>,
    /// What is wrong with VIPs.
    pub problems: Vec<Problem>,
}

/// Where VIPs come from and where their records are.
#[derive(Clone, Debug)]
pub struct Config {
    /// The range.
    pub pool: Pool,
    /// Part of every hash, so that datacenters differ.
    pub datacenter: String,
    /// The file of the records, in the state directory.
    pub records: PathBuf,
    /// The Consul that shares the records among hosts.
    pub consul: Option<consul::Config>,
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

/// Version of the file of the records.
const VERSION: u32 = 1;
const NEWS: usize = 16;

/// One record in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    service: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<Arc<str>>,
}

/// Gives `names` their VIPs until `stop`.
///
/// # Errors
/// Only by a fault of the program; what a user can mend is told in [`Vips::problems`].
pub async fn run(
    config: Config,
    mut names: watch::Receiver<Option<Arc<Names>>>,
    out: watch::Sender<Option<Arc<Vips>>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut stage = Stage::open(&config).await?;
    let (claims, open_claims) = watch::channel(Claims::new());
    let (news, mut heard) = mpsc::channel(NEWS);
    // Dropped at the end, and the task with it.
    let mut sharing = JoinSet::new();
    let shares = config.consul.is_some();
    if let Some(consul) = config.consul {
        let keys = Keys::new(consul, share::PREFIX).map_err(Error::Client)?;
        sharing.spawn(share::run(keys, open_claims, news));
    }
    loop {
        let wanted = names.borrow_and_update().clone();
        if let Some(wanted) = &wanted {
            let pending = stage.publish(wanted, &out);
            if shares {
                let mut open = stage.allocator.unshared(wanted);
                open.extend(pending);
                claims.send_if_modified(|claims| {
                    let changed = *claims != open;
                    *claims = open;
                    changed
                });
            } else if !pending.is_empty() {
                stage.record(pending).await?;
                stage.publish(wanted, &out);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = names.changed() => if changed.is_err() {
                // Nobody will ask for more; the VIPs given stay valid.
                stop.cancelled().await;
                return Ok(());
            },
            Some(ended) = sharing.join_next() => {
                ended.map_err(|error| Error::Task("shares VIP records", error))?;
            }
            Some(news) = heard.recv() => match news {
                News::Records(records) => {
                    stage.unread = None;
                    stage.learn(records).await?;
                }
                News::Granted(address, name) => {
                    stage.record(Claims::from([(address, name)])).await?;
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
            }
        }
    }
}

/// What the stage owns.
struct Stage {
    allocator: Allocator,
    file: PathBuf,
    /// What is in the file.
    saved: Records,
    /// What is wrong with the file.
    file_problem: Option<Problem>,
    /// Why records cannot be shared at the moment.
    unshared: Option<String>,
    /// Why those of other hosts cannot be read.
    unread: Option<String>,
}

impl Stage {
    async fn open(config: &Config) -> Result<Self, Error> {
        let file = config.records.clone();
        let path = file.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            state_file::load::<BTreeMap<Ipv4Addr, Record>>(&path, VERSION)
        })
        .await
        .map_err(|error| Error::Task("reads VIP records", error))?;
        let mut file_problem = None;
        let records = loaded.unwrap_or_else(|error| {
            file_problem = Some(file_trouble(&file, &error));
            None
        });
        let saved: Records = records
            .unwrap_or_default()
            .into_iter()
            .map(|(address, Record { service, tag })| (address, Some(ServiceName { service, tag })))
            .collect();
        let allocator = Allocator::new(config.pool, config.datacenter.clone(), saved.clone());
        Ok(Self {
            allocator,
            file,
            saved,
            file_problem,
            unshared: None,
            unread: None,
        })
    }

    /// Publishes the VIPs of `names`, and returns the names that wait for a record.
    fn publish(&mut self, names: &Names, out: &watch::Sender<Option<Arc<Vips>>>) -> Claims {
        let round = self.allocator.allocate(names);
        let mut problems = round.problems;
        problems.extend(self.file_problem.clone());
        if let Some(why) = self.unread.as_ref().or(self.unshared.as_ref()) {
            let unshared = self.allocator.unshared(names);
            problems.extend(unshared.into_iter().map(|(address, name)| {
                Problem::new(
                    format!("service {name}"),
                    format!(
                        "its VIP {address} had to be chosen because another service wants the same one, \
                         and other hosts may choose differently because it cannot be recorded: {why}"
                    ),
                )
            }));
        }
        problems.sort();
        let vips = Vips {
            by_name: round.by_name,
            problems,
        };
        out.send_if_modified(|published| {
            let before = published.as_deref();
            if before == Some(&vips) {
                return false;
            }
            tell(before, &vips);
            *published = Some(Arc::new(vips));
            true
        });
        round.claims
    }

    async fn record(&mut self, claims: Claims) -> Result<(), Error> {
        for (address, name) in claims {
            self.allocator.record(address, name);
        }
        self.save().await
    }

    async fn learn(&mut self, shared: Records) -> Result<(), Error> {
        self.allocator.learn(shared);
        self.save().await
    }

    /// Before an address is used: after a crash it must be found again.
    async fn save(&mut self) -> Result<(), Error> {
        if self.saved == *self.allocator.records() {
            return Ok(());
        }
        let records = self.allocator.records().clone();
        let readable: BTreeMap<_, _> = records
            .iter()
            .filter_map(|(address, owner)| {
                let ServiceName { service, tag } = owner.clone()?;
                Some((*address, Record { service, tag }))
            })
            .collect();
        let path = self.file.clone();
        let saving =
            tokio::task::spawn_blocking(move || state_file::save(&path, VERSION, &readable));
        match saving
            .await
            .map_err(|error| Error::Task("writes VIP records", error))?
        {
            Ok(()) => {
                self.saved = records;
                self.file_problem = None;
            }
            Err(error) => self.file_problem = Some(file_trouble(&self.file, &error)),
        }
        Ok(())
    }
}

fn file_trouble(file: &std::path::Path, error: &state_file::Error) -> Problem {
    use std::error::Error as _;
    let source = error.source().map(|source| format!(": {source}"));
    Problem::new(
        format!("VIP records {}", file.display()),
        format!(
            "{error}{}; see to the state directory, or VIPs that collide may change at the next start",
            source.unwrap_or_default()
        ),
    )
}

fn tell(before: Option<&Vips>, now: &Vips) {
    for (name, address) in &now.by_name {
        match before.and_then(|before| before.by_name.get(name)) {
            None => info!(service = %name, vip = %address, "VIP given"),
            Some(old) if old != address => {
                warn!(service = %name, from = %old, to = %address, "VIP moved");
            }
            Some(_) => {}
        }
    }
    for problem in &now.problems {
        if before.is_none_or(|before| !before.problems.contains(problem)) {
            warn!(%problem, "VIP problem");
        }
    }
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
