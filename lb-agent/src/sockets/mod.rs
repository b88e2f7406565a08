//! The clients' sockets behind VIPs, in every network namespace of the host: listing and ending them.
//!
//! One thread of its own does it, because a network namespace belongs to a thread; it is the only one that enters
//! those of others. It decides nothing: whose sockets are to end is [`crate::removal`]'s word. A socket is known by
//! the record that the kernel programs left at it, so one that was connected past the VIP is never touched.

mod asked;
mod diag;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod namespaces;
mod process;
mod untold;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    thread,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};

use self::{
    asked::{Asked, Look, Reply, Request},
    diag::{Blind, Diag, Ended},
    namespaces::Home,
    process::Wanted,
    wire::{ESTABLISHED, Found, Message, Socket, UDP},
};
pub use self::{namespaces::Sight, process::Process, wire::Origin};

/// The flows through one VIP to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The VIP that was connected to.
    pub vip: Ipv4Addr,
    /// Where its flows go.
    pub address: SocketAddr,
}

/// A client's open flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The inode of the client's network namespace.
    pub netns: u64,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The state of its socket, in lower case as `ss` says it.
    pub state: &'static str,
    /// The user that its socket belongs to.
    pub uid: u32,
    /// The client's end.
    pub local: SocketAddr,
    /// What it connected to, and where that goes.
    pub origin: Origin,
    /// Since the connect.
    pub age: Duration,
    /// One process that has it open, if any can be seen.
    pub process: Option<Process>,
}

/// Open flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// The first [`LISTED`] of them that were found.
    pub listed: Vec<Flow>,
    /// How many more there are.
    pub left_out: u64,
    /// Where they were looked for.
    pub sight: Sight,
}

/// What came of ending flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sockets that were ended, by what they were ended for.
    pub ended: BTreeMap<Target, u64>,
    /// Targets that still have one which could not be ended.
    pub failed: BTreeSet<Target>,
    /// Why.
    pub error: Option<Failure>,
    /// Where they were looked for.
    pub sight: Sight,
}

/// Why a socket could not be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This kernel ends no sockets.
    Unsupported,
    /// It may be another time.
    Refused(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not list sockets.
    #[error(
        "the kernel does not list the sockets; it needs CONFIG_INET_TCP_DIAG, and the agent CAP_BPF"
    )]
    List(#[from] io::Error),
    /// The thread is gone.
    #[error("the thread that lists sockets has ended")]
    Gone,
}

/// Asks the thread. It ends when the last of these is gone.
#[derive(Clone, Debug)]
pub struct Sockets(mpsc::Sender<Request>);

impl Sockets {
    /// Starts the thread. `records` is the map `RECORDS`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(records: OwnedFd) -> io::Result<Self> {
        let (asking, asked) = mpsc::channel(WAITING);
        let home = Home::here()?;
        thread::Builder::new()
            .name("lb-sockets".to_owned())
            .spawn(move || serve(home, &records, asked))?;
        Ok(Self(asking))
    }

    /// For tests of who asks: a thread that lists what `tell` says, whatever the kernel has, and answers nothing else.
    ///
    /// # Errors
    /// When there can be no more threads.
    #[doc(hidden)]
    pub fn played(
        mut tell: impl FnMut(Option<BTreeSet<Ipv4Addr>>) -> Flows + Send + 'static,
    ) -> io::Result<Self> {
        let (asking, mut asked) = mpsc::channel(WAITING);
        thread::Builder::new().spawn(move || {
            while let Some(request) = asked.blocking_recv() {
                if let Request::List(vips, reply) = request {
                    drop(reply.send(Ok(tell(vips))));
                }
            }
        })?;
        Ok(Self(asking))
    }

    /// What there are flows to.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn targets(&self) -> Result<(BTreeSet<Target>, Sight), Error> {
        self.ask(Request::Targets).await
    }

    /// Ends the flows to `targets`.
    ///
    /// # Errors
    /// When the kernel does not tell which there are.
    pub async fn end(&self, targets: BTreeSet<Target>) -> Result<Outcome, Error> {
        self.ask(|reply| Request::End(targets, reply)).await
    }

    /// The open flows, or those through `vips`.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn list(&self, vips: Option<BTreeSet<Ipv4Addr>>) -> Result<Flows, Error> {
        self.ask(|reply| Request::List(vips, reply)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(request(reply)).await;
        sent.map_err(|_| Error::Gone)?;
        Ok(answer.await.map_err(|_| Error::Gone)??)
    }
}

fn serve(mut home: Home, records: &OwnedFd, mut queue: mpsc::Receiver<Request>) {
    let mut asked = Asked::default();
    while let Some(look) = asked.next(&mut queue) {
        let home = &mut home;
        match look {
            Look::Targets(reply) => {
                let told = targets(home, records);
                answer(home, reply, told);
            }
            Look::End(targets, reply) => {
                let told = end(home, records, &targets);
                answer(home, reply, told);
            }
            Look::List(lists) => {
                let told = list(home, records, lists.vips.as_ref());
                if !home.away {
                    lists.tell(&told);
                }
            }
        }
        if home.away {
            tracing::error!(
                "the thread that lists sockets cannot go back to its network namespace"
            );
            return;
        }
    }
}

/// Answers whoever waits, unless the thread could not come back: that it ends is then the answer.
fn answer<T>(home: &Home, reply: Reply<T>, told: io::Result<T>) {
    if !home.away {
        drop(reply.send(told));
    }
}

/// Tells every flow of one namespace, and the sockets that may be one.
fn look(
    diag: &mut Diag,
    records: &OwnedFd,
    mut tell: impl FnMut(Found),
    mut ask: impl FnMut(Socket),
) -> io::Result<Blind> {
    diag.list(records.as_fd(), |message| match message {
        Message::Found(found) if goes_there(&found) => tell(found),
        Message::Untold(socket) => ask(socket),
        _ => {}
    })
}

/// A record stays at a socket that was connected elsewhere since, past the VIP.
fn goes_there(found: &Found) -> bool {
    found.socket.peer == found.origin.address
}

fn targets(home: &mut Home, records: &OwnedFd) -> io::Result<(BTreeSet<Target>, Sight)> {
    let mut targets = BTreeSet::new();
    let mut untold = Vec::new();
    let mut sight = namespaces::each(home, Path::new(PROC), |_| {
        let tell = |found| {
            targets.insert(target(&found));
        };
        let ask = |socket| untold.push(((), socket));
        look(&mut Diag::open()?, records, tell, ask)
    })?;
    let asked = untold::ask(records, untold, Path::new(PROC), &mut sight);
    let asked = asked.iter().filter(|(_, found)| goes_there(found));
    targets.extend(asked.map(|(_, found)| target(found)));
    Ok((targets, sight))
}

fn end(home: &mut Home, records: &OwnedFd, targets: &BTreeSet<Target>) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let addresses: BTreeSet<_> = targets.iter().map(|it| it.address).collect();
    // A conversation is with one namespace, wherever this thread is.
    let mut diags = Vec::new();
    let mut untold = Vec::new();
    let mut asked = Sight::default();
    let mut sight = namespaces::each(home, Path::new(PROC), |_| {
        let mut diag = Diag::open()?;
        let mut found = Vec::new();
        let known = untold.len();
        let ask = |socket: Socket| {
            if addresses.contains(&socket.peer) {
                untold.push((diags.len(), socket));
            }
        };
        let blind = look(&mut diag, records, |it| found.push(it), ask)?;
        for it in found {
            outcome.end(&mut diag, &it, targets);
        }
        if untold.len() > known {
            diags.push(diag);
        }
        if diags.len() >= TALKING {
            let untold = std::mem::take(&mut untold);
            let found = untold::ask(records, untold, Path::new(PROC), &mut asked);
            outcome.end_all(&mut diags, &found, targets);
        }
        Ok(blind)
    })?;
    let found = untold::ask(records, untold, Path::new(PROC), &mut asked);
    outcome.end_all(&mut diags, &found, targets);
    sight.blocked = sight.blocked.or(asked.blocked);
    sight.missed |= asked.missed;
    outcome.sight = sight;
    Ok(outcome)
}

impl Outcome {
    /// Ends those flows that go to one of `targets`, each in its namespace, and the conversations with these.
    fn end_all(
        &mut self,
        diags: &mut Vec<Diag>,
        found: &[(usize, Found)],
        targets: &BTreeSet<Target>,
    ) {
        for (diag, found) in found {
            if goes_there(found) {
                self.end(&mut diags[*diag], found, targets);
            }
        }
        diags.clear();
    }

    /// Ends the flow if it goes to one of `targets`.
    fn end(&mut self, diag: &mut Diag, found: &Found, targets: &BTreeSet<Target>) {
        let target = target(found);
        if !targets.contains(&target) {
            return;
        }
        match diag.destroy(&found.socket.id) {
            Ok(Ended::Now) => *self.ended.entry(target).or_default() += 1,
            Ok(Ended::Before) => {}
            Err(error) => {
                self.failed.insert(target);
                let failure = match error.kind() {
                    io::ErrorKind::Unsupported => Failure::Unsupported,
                    _ => Failure::Refused(error.to_string()),
                };
                self.error.get_or_insert(failure);
            }
        }
    }
}

fn list(
    home: &mut Home,
    records: &OwnedFd,
    vips: Option<&BTreeSet<Ipv4Addr>>,
) -> io::Result<Flows> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?);
    let mut flows = Flows::default();
    let mut owners = Vec::new();
    let mut add = |netns, found: &Found| {
        if vips.is_some_and(|vips| !vips.contains(&found.origin.vip)) {
            return;
        }
        if flows.listed.len() >= LISTED {
            flows.left_out += 1;
            return;
        }
        let start = Duration::from_nanos(found.origin.start_ns);
        flows.listed.push(Flow {
            netns,
            protocol: protocol(found),
            state: state(found),
            uid: found.socket.uid,
            local: found.socket.local,
            origin: found.origin,
            age: now.saturating_sub(start),
            process: None,
        });
        owners.push(found.socket.inode);
    };
    let mut untold = Vec::new();
    let mut sight = namespaces::each(home, Path::new(PROC), |netns| {
        let ask = |socket| untold.push((netns, socket));
        look(&mut Diag::open()?, records, |found| add(netns, &found), ask)
    })?;
    for (netns, found) in untold::ask(records, untold, Path::new(PROC), &mut sight) {
        if goes_there(&found) {
            add(netns, &found);
        }
    }
    flows.sight = sight;
    let mut wanted = Wanted::new(owners.iter().copied());
    wanted.search(Path::new(PROC));
    for (flow, inode) in flows.listed.iter_mut().zip(owners) {
        flow.process = wanted.process(inode).cloned();
    }
    Ok(flows)
}

/// A process that has the socket with this inode open, if any can be seen.
pub fn owner(inode: u32) -> Option<Process> {
    let mut wanted = Wanted::new([inode].into_iter());
    wanted.search(Path::new(PROC));
    wanted.process(inode).cloned()
}

fn target(found: &Found) -> Target {
    Target {
        vip: found.origin.vip,
        address: found.origin.address,
    }
}

fn protocol(found: &Found) -> &'static str {
    match found.socket.id.kind.protocol {
        UDP => "udp",
        _ => "tcp",
    }
}

fn state(found: &Found) -> &'static str {
    match found.socket.state {
        ESTABLISHED => "established",
        2 => "syn-sent",
        3 => "syn-recv",
        4 => "fin-wait-1",
        5 => "fin-wait-2",
        7 => "closed",
        8 => "close-wait",
        9 => "last-ack",
        11 => "closing",
        _ => "unknown",
    }
}

/// Flows that are listed at most.
pub const LISTED: usize = 10_000;

/// Namespaces that are talked with at once: each costs a descriptor.
const TALKING: usize = 64;

/// Requests that may wait for the thread.
const WAITING: usize = 16;

const PROC: &str = "/proc";
