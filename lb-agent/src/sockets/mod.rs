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
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use self::{
    asked::{Reply, Request},
    namespaces::Home,
    work::serve,
};

pub use self::{namespaces::Sight, process::Process, wire::Origin, work::owner};

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

/// Flows that are listed at most.
pub const LISTED: usize = 10_000;

/// Requests that may wait for the thread.
const WAITING: usize = 16;
