//! Announcing VIPs: of all hosts on a network one answers for them, so that clients beyond the agents' hosts reach them.
//!
//! Who that is, is elected through a lock of Consul (`elect`), or said by the operator. The one that is answers ARP and
//! neighbour discovery on the chosen devices and tells neighbours when it takes over (`voice`), and runs a program
//! of the operator, for routers (`hook`). This stage forwards no packet and gives no device an address. What is shown of
//! it is one [`Status`], to which each of the three adds; whoever acts on [`Announcing`] asks [`Announcing::holds`] first.

mod device;
mod elect;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod groups;
mod hook;
mod kept;
mod lease;
mod moment;
mod schedule;
mod teller;
mod value;
mod voice;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use device::{Devices, Link, links, trouble};
pub use moment::Moment;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
pub use value::{Announcing, Status};

use self::{
    elect::{Election, Me},
    hook::Hook,
    teller::Teller,
    voice::Voice,
};
use crate::{
    admin::Events,
    catalog::Problem,
    discover::consul::{self, lock::Lock},
    snapshot::Snapshot,
    vip::Pools,
};

/// Who announces, where, and how it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The devices on whose networks VIPs are announced.
    pub devices: Vec<String>,
    /// The part of Consul's store in which the lock is: hosts with the same one have one owner.
    pub key: String,
    /// A program that is told of each VIP that this host takes or releases.
    pub hook: Option<PathBuf>,
    /// Who is the owner.
    pub owner: Owner,
    /// How long an owner that says nothing stays the owner.
    pub ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            key: "lb-agent/announce".to_owned(),
            hook: None,
            owner: Owner::default(),
            ttl: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Whether there is anything to do.
    pub fn is_on(&self) -> bool {
        !self.devices.is_empty() || self.hook.is_some()
    }
}

/// Who answers for the VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// One of all hosts with the same key, by a lock of Consul.
    #[default]
    Elected,
    /// This host, whatever others do.
    Always,
}

/// Figures of the stage.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Times that this host became the owner.
    pub takeovers: AtomicU64,
    /// Questions of ARP that were answered.
    pub arp_answers: AtomicU64,
    /// Questions of neighbour discovery that were answered.
    pub ndp_answers: AtomicU64,
    /// Announcements by ARP.
    pub arp_announcements: AtomicU64,
    /// Announcements by neighbour discovery.
    pub ndp_announcements: AtomicU64,
    /// Frames that the kernel did not take.
    pub unsent: AtomicU64,
    /// Announcements of others for what this host answers for.
    pub conflicts: AtomicU64,
    /// Runs of the operator's program that succeeded.
    pub hooks: AtomicU64,
    /// Runs of it that failed.
    pub failed_hooks: AtomicU64,
}

/// What the stage reads and writes.
pub struct Channels {
    /// Says which VIPs there are.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Who announces them.
    pub announcing: watch::Sender<Announcing>,
    /// What is shown.
    pub status: watch::Sender<Status>,
    /// What is wrong.
    pub problems: watch::Sender<Vec<Problem>>,
    /// Hears of each takeover and loss.
    pub events: Events,
}

/// Why the stage did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket for frames.
    #[error(
        "[announce] cannot open a socket for ARP and neighbour discovery; the agent needs CAP_NET_RAW, or leave out \
         `devices`"
    )]
    Socket(#[source] io::Error),
    /// The configuration asks for an election, and there is nobody to hold it.
    #[error("[announce] has no Consul to elect an owner through")]
    NoConsul,
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] consul::SetupError),
    /// A socket cannot be waited for.
    #[error("cannot wait for frames")]
    Wait(#[source] io::Error),
    /// A task ended by a fault of ours.
    #[error("a task that announces VIPs failed")]
    Task(#[source] JoinError),
}

/// What else the stage is made of.
pub struct Place {
    /// The sockets, opened while the agent could.
    pub devices: Devices,
    /// The pools of the VIPs.
    pub pools: Pools,
    /// Where owners are elected.
    pub consul: Option<consul::Config>,
    /// Where a session is remembered for an agent that follows.
    pub state_dir: PathBuf,
    /// Cancelled before the end where another agent follows at once: then this host stays the owner.
    pub keep: CancellationToken,
}

/// Announces until `stop`; then this host is no owner any more, unless another agent of it follows.
///
/// # Errors
/// Without a Consul where one is needed, and by faults of the program. What an operator can mend is told in [`Status`].
pub async fn run(
    config: Config,
    place: Place,
    channels: Channels,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let me = me(&config.devices);
    let (able, is_able) = watch::channel(config.devices.is_empty());
    let Channels {
        snapshots,
        announcing: owner,
        status,
        problems,
        events,
    } = channels;
    let announcing = owner.subscribe();
    let teller = Teller::new(owner, events, metrics.clone(), status.clone());
    let pools = place.pools;
    let (vips_in, vips) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(snapshots, vips_in, stop.clone()));
    match (config.owner, place.consul) {
        (Owner::Always, _) => {
            tasks.spawn(elect::always(
                me,
                teller,
                is_able,
                stop.clone(),
                place.keep.clone(),
            ));
        }
        (Owner::Elected, None) => return Err(Error::NoConsul),
        (Owner::Elected, Some(consul)) => {
            let key = format!("{}/owner", config.key);
            let lock = Lock::new(consul, key).map_err(Error::Client)?;
            let file = place.state_dir.join(SESSION);
            let election = Election::new(lock, config.key, file, config.ttl, me);
            tasks.spawn(election.run(teller, is_able, stop.clone(), place.keep.clone()));
        }
    }
    if let Some(program) = config.hook {
        let hook = Hook {
            program,
            pools,
            announcing: announcing.clone(),
            vips: vips.clone(),
            status: status.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(hook.run(stop.clone(), place.keep));
    }
    let voice = Voice::new(place.devices, pools, announcing, vips, metrics)?;
    tasks.spawn(voice.run(status.clone(), able, stop));
    let mut shown = status.subscribe();
    drop(status);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(ended) => ended.map_err(Error::Task)?,
            },
            Ok(()) = shown.changed() => {
                let now = shown.borrow_and_update().problems();
                problems.send_if_modified(|old| {
                    let changed = *old != now;
                    *old = now;
                    changed
                });
            }
        }
    }
}

/// Which VIPs there are, whenever that changes; `None` before any is known.
type Vips = Option<Arc<BTreeSet<Ipv4Addr>>>;

/// Tells which VIPs there are.
async fn follow(
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    out: watch::Sender<Vips>,
    stop: CancellationToken,
) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            let services = snapshot.services.iter();
            let vips = services.filter_map(|(_, service)| service.vip).collect();
            out.send_if_modified(|old| {
                let changed = old.as_deref() != Some(&vips);
                if changed {
                    *old = Some(Arc::new(vips));
                }
                changed
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() {
                // The VIPs that were given stay.
                return stop.cancelled().await;
            }
        }
    }
}

/// A VIP in all forms that this host serves.
fn both(pools: Pools, vip: Ipv4Addr) -> impl Iterator<Item = IpAddr> {
    let twin = pools.twin(vip).map(IpAddr::V6);
    std::iter::once(IpAddr::V4(vip)).chain(twin)
}

/// The file of the session, in the state directory.
const SESSION: &str = "announce.json";

/// This host, as others read it: its name, and an address on the network that it announces on.
fn me(devices: &[String]) -> Me {
    let name = nix::sys::utsname::uname().ok();
    let name = name.and_then(|it| Some(it.nodename().to_str()?.to_owned()));
    let links = links().unwrap_or_default();
    let address = devices.iter().find_map(|it| links.get(it)?.address);
    Me {
        node: name.unwrap_or_else(|| "unknown".to_owned()),
        address,
    }
}
