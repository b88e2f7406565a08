//! What the VIP stage owns: the allocator, its two files, and the orders under way, which are in `orders`.

mod clock;
mod file;
mod orders;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::{info, warn};

use self::{
    clock::{Clock, now},
    file::File,
    orders::Change,
};
use super::{
    Config, Error, Names, Vips, Wanted,
    allocator::{Allocator, Claims, Left, Records},
    record::{Known, Owner, Record},
    share::Open,
};
use crate::{catalog::Problem, discover::consul::keys::Keys, state_file};

pub(super) struct Stage {
    pub(super) allocator: Allocator,
    clock: Clock,
    /// Where records are shared.
    pub(super) keys: Option<Arc<Keys>>,
    /// Why records cannot be shared at the moment.
    pub(super) unshared: Option<String>,
    /// Why those of other hosts cannot be read.
    pub(super) unread: Option<String>,
    /// Orders that Consul is busy with.
    pub(super) changes: JoinSet<Change>,
    records: File<BTreeMap<Ipv4Addr, Record>>,
    /// What is in the file of the records.
    saved: Records,
    known: File<BTreeMap<Ipv4Addr, Known>>,
    /// When the file of the known addresses is to be written.
    known_due: Option<Instant>,
    /// The writing of it.
    pub(super) saving: JoinSet<Result<(), state_file::Error>>,
}

impl Stage {
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        let records = config.records.clone();
        let known = records.with_file_name(KNOWN);
        let (records, stored) = File::open(
            records,
            "VIP records",
            "VIPs that collide or are pinned may change at the next start",
        )
        .await?;
        let (known, given) = File::open(
            known,
            "VIP quarantine",
            "after the next start, VIPs of services that left may be given to others at once",
        )
        .await?;
        let stored: BTreeMap<Ipv4Addr, Record> = stored.unwrap_or_default();
        let given: BTreeMap<Ipv4Addr, Known> = given.unwrap_or_default();
        let clock = Clock::new();
        let allocator = allocator(config, stored, given, clock.now());
        Ok(Self {
            clock,
            saved: allocator.records().clone(),
            allocator,
            keys: None,
            unshared: None,
            unread: None,
            changes: JoinSet::new(),
            records,
            known,
            known_due: None,
            saving: JoinSet::new(),
        })
    }

    /// Publishes the VIPs of the names `wanted`, and returns the names that wait for a record.
    pub(super) fn publish(
        &mut self,
        wanted: &Wanted,
        out: &watch::Sender<Option<Arc<Vips>>>,
    ) -> Claims {
        let round = self.allocator.allocate(wanted, self.clock.now());
        let mut problems = round.problems;
        problems.extend(self.records.problem.clone());
        problems.extend(self.known.problem.clone());
        if let Some(why) = self.unread.as_ref().or(self.unshared.as_ref()) {
            let unshared = self.allocator.unshared(&wanted.names);
            problems.extend(unshared.into_iter().map(|(address, owner)| {
                Problem::new(
                    format!("service {}", owner.name),
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
        let changed = out.send_if_modified(|published| {
            let before = published.as_deref();
            if before == Some(&vips) {
                return false;
            }
            tell(before, &vips);
            *published = Some(Arc::new(vips));
            true
        });
        if changed {
            self.known_due.get_or_insert(Instant::now() + SAVE_WITHIN);
        }
        round.claims
    }

    /// What other hosts should know: records of this one, and what names wait for.
    pub(super) fn open_claims(&self, names: &Names, pending: Claims, filed: &Open) -> Open {
        let mut open = self.allocator.unshared(names);
        for (address, name) in pending {
            // The same claim is not a new one a moment later.
            let same = filed.get(&address).filter(|owner| owner.name == name);
            let owner = same.cloned();
            open.insert(address, owner.unwrap_or_else(|| Owner::new(name, now())));
        }
        open
    }

    /// When there is something to do though nobody asks; no quarantine ends before every source has `answered`.
    pub(super) fn wake(&self, answered: bool) -> Option<Instant> {
        let end = self.allocator.next_end().filter(|_| answered);
        let end = end.map(|end| {
            // Many end at nearly the same time: one round is enough.
            let wait = end.saturating_sub(self.clock.now()).max(ROUND_EVERY);
            Instant::now() + wait
        });
        // The end of a write wakes, too.
        let due = self.known_due.filter(|_| self.saving.is_empty());
        end.into_iter().chain(due).min()
    }

    pub(super) async fn record(&mut self, owners: Open) -> Result<(), Error> {
        for (address, owner) in owners {
            self.allocator.record(address, owner);
        }
        self.save().await
    }

    pub(super) async fn learn(&mut self, shared: Records, index: u64) -> Result<(), Error> {
        self.allocator.learn(shared, index, self.clock.now());
        self.save().await
    }

    /// Before an address is used: after a crash it must be found again.
    async fn save(&mut self) -> Result<(), Error> {
        let records = self.allocator.records();
        if self.saved == *records {
            return Ok(());
        }
        let records = records.clone();
        let readable = records.iter().filter_map(|(address, owner)| {
            let record = Record::own(owner.as_ref()?);
            Some((*address, record))
        });
        if self.records.save(readable.collect()).await? {
            self.saved = records;
        }
        Ok(())
    }

    /// Begins to write the known addresses. Nobody waits for that: it is only read at the next start.
    pub(super) fn save_known_if_due(&mut self) {
        let due = self.known_due.is_some_and(|due| due <= Instant::now());
        if due && self.saving.is_empty() {
            self.known_due = None;
            let (path, known) = (self.known.path.clone(), self.known());
            self.saving
                .spawn_blocking(move || state_file::save(&path, VERSION, &known));
        }
    }

    /// Takes in how that went.
    pub(super) fn saved_known(&mut self, done: Saved) -> Result<(), Error> {
        let result = done.map_err(|error| Error::Task("writes VIPs", error))?;
        self.known.saved(result);
        Ok(())
    }

    fn known(&self) -> BTreeMap<Ipv4Addr, Known> {
        let known = self.allocator.known().into_iter();
        known
            .map(|(address, (name, left))| (address, Known::new(name, left)))
            .collect()
    }

    /// Leaves to the next agent what it needs.
    pub(super) async fn close(mut self) -> Result<(), Error> {
        while let Some(done) = self.saving.join_next().await {
            self.saved_known(done)?;
        }
        let known = self.known();
        self.known.save(known).await?;
        // Nobody reads it as a value any more.
        if let Some(problem) = &self.known.problem {
            warn!(%problem, "VIP problem");
        }
        Ok(())
    }
}

/// The allocator that goes on with what the files of an earlier agent say.
pub(super) fn allocator(
    config: &Config,
    records: BTreeMap<Ipv4Addr, Record>,
    known: BTreeMap<Ipv4Addr, Known>,
    now: Duration,
) -> Allocator {
    let records = records.into_iter();
    let records = records.map(|(address, record)| (address, Some(record.into())));
    let left = known.into_iter().map(|(address, known)| {
        let (name, left) = known.into_parts();
        // Who was there when the agent ended may have left since.
        let since = left.unwrap_or(now);
        (address, Left { name, since })
    });
    Allocator::new(
        config.pool,
        config.datacenter.clone(),
        config.quarantine,
        records.collect(),
        left.collect(),
    )
}

/// How writing a file went.
type Saved = Result<Result<(), state_file::Error>, tokio::task::JoinError>;

/// The owners that claims name.
pub(super) fn owners(claims: Claims) -> Open {
    let now = now();
    let owners = claims.into_iter();
    owners
        .map(|(address, name)| (address, Owner::new(name, now)))
        .collect()
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

/// Of both files.
pub(super) const VERSION: u32 = 1;
/// The file of the addresses that names have or had, beside that of the records.
const KNOWN: &str = "vips-known.json";
/// How soon that is written: many changes at once are one.
const SAVE_WITHIN: Duration = Duration::from_secs(5);
/// Time between two rounds for ends of quarantines.
const ROUND_EVERY: Duration = Duration::from_millis(500);
