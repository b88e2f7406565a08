//! One worker's connections to backends: newest first, bounded, gone when their backend is.
//!
//! A connection comes back only after its answer ended cleanly, and is given out again only if hyper calls it
//! ready, which it is not before the request's body was sent to its end too: the rest of either message
//! would reach somebody else (CVE-2025-4366). One that was answered in HTTP/1.0 never comes back.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::{
    net::TcpStream,
    task::{AbortHandle, spawn_local},
    time::{Instant, timeout},
};
use tokio_util::io::InspectReader;

use crate::{Limits, answer::Reason, body::Upload, stats::Counters};

/// The connections of one worker.
pub(crate) struct Pool {
    hosts: RefCell<HashMap<SocketAddr, Host>>,
    limits: Limits,
    counters: Rc<Counters>,
}

#[derive(Default)]
struct Host {
    /// Oldest first.
    idle: Vec<Idle>,
    /// All open connections, idle ones included.
    open: usize,
    /// Whether the backend left: connections in flight do not come back.
    left: bool,
}

struct Idle {
    sender: SendRequest<Upload>,
    heard: Heard,
    /// The connection holds it: gone means closed.
    place: Weak<Place>,
    since: Instant,
    task: Task,
}

/// A connection on loan.
pub(crate) struct Lease {
    pool: Rc<Pool>,
    address: SocketAddr,
    pub(crate) sender: SendRequest<Upload>,
    /// Whether the backend sent anything.
    pub(crate) heard: Heard,
    place: Rc<Place>,
    /// Whether it carried a request before this one.
    pub(crate) reused: bool,
    /// Whether it carries no other after this one.
    last: bool,
    task: Task,
}

/// Whether a byte came from the backend since it was last asked. All on one thread; hyper's upgrades want `Send`, hence
/// atomics.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Forgets what came so far.
    pub(crate) fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(crate) fn anything(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn hear(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What drives a connection. hyper's would go on with a request after its answer; this ends with its owner, and
/// so does the socket.
struct Task(Option<AbortHandle>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Pool {
    pub(crate) fn new(limits: Limits, counters: Rc<Counters>) -> Rc<Self> {
        Rc::new(Self {
            hosts: RefCell::default(),
            limits,
            counters,
        })
    }

    /// The newest idle connection to `address` that is still good.
    pub(crate) fn take(self: &Rc<Self>, address: SocketAddr) -> Option<Lease> {
        let mut hosts = self.hosts.borrow_mut();
        let idle = &mut hosts.get_mut(&address)?.idle;
        while let Some(Idle {
            sender,
            heard,
            place,
            since,
            task,
        }) = idle.pop()
        {
            if sender.is_ready()
                && since.elapsed() < self.limits.pool_idle
                && let Some(place) = place.upgrade()
            {
                self.counters.reused.add_one();
                return Some(Lease {
                    pool: self.clone(),
                    address,
                    sender,
                    heard,
                    place,
                    reused: true,
                    last: false,
                    task,
                });
            }
        }
        None
    }

    /// A new connection to `address`.
    pub(crate) async fn connect(self: &Rc<Self>, address: SocketAddr) -> Result<Lease, Reason> {
        let place = Rc::new(Place::claim(self, address).ok_or(Reason::Limit)?);
        let stream = match timeout(self.limits.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "no connection to a backend");
                return Err(unconnected(&error));
            }
            Err(_) => return Err(Reason::ConnectTimeout),
        };
        // Only slower without it.
        let _ = stream.set_nodelay(true);
        let heard = Heard::default();
        let hears = heard.clone();
        let stream = InspectReader::new(stream, move |bytes| hears.hear(bytes));
        let mut builder = Builder::new();
        builder.max_header_size(RESPONSE_HEAD).max_buf_size(BUFFER);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Reason::BackendReset)?;
        self.counters.connects.add_one();
        let held = place.clone();
        let task = spawn_local(async move {
            // Its error reaches the request that was on it, if there was one.
            let _ = connection.with_upgrades().await;
            drop(held);
        });
        Ok(Lease {
            pool: self.clone(),
            address,
            sender,
            heard,
            place,
            reused: false,
            last: false,
            task: Task(Some(task.abort_handle())),
        })
    }

    /// Closes connections to addresses that are not in `live`: idle ones now, others once they are given back.
    pub(crate) fn keep(&self, live: &HashSet<SocketAddr>) {
        for (address, host) in self.hosts.borrow_mut().iter_mut() {
            host.left = !live.contains(address);
            if host.left {
                host.idle.clear();
            }
        }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let mut hosts = self.hosts.borrow_mut();
        for host in hosts.values_mut() {
            host.idle.retain(|idle| {
                !idle.sender.is_closed() && idle.since.elapsed() < self.limits.pool_idle
            });
        }
        hosts.retain(|_, host| host.open > 0);
    }
}

impl Lease {
    /// The connection has left HTTP and the pool; its place is taken for as long as this lives.
    pub(crate) fn into_place(mut self) -> Rc<Place> {
        self.task.0 = None;
        self.place
    }

    /// The connection ends with its answer, and with it what is left of the request.
    pub(crate) fn end_with_answer(&mut self) {
        self.last = true;
    }

    /// The answer has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        if self.last || self.sender.is_closed() {
            return;
        }
        let mut hosts = self.pool.hosts.borrow_mut();
        let Some(host) = hosts.get_mut(&self.address) else {
            return;
        };
        if host.left {
            return;
        }
        if host.idle.len() >= self.pool.limits.pool_size {
            host.idle.remove(0);
        }
        host.idle.push(Idle {
            sender: self.sender,
            heard: self.heard,
            place: Rc::downgrade(&self.place),
            since: Instant::now(),
            task: self.task,
        });
    }
}

/// One of a backend's connections; its drop makes room for another. Never to be dropped while the hosts are
/// borrowed.
pub(crate) struct Place {
    pool: Rc<Pool>,
    address: SocketAddr,
}

impl Place {
    fn claim(pool: &Rc<Pool>, address: SocketAddr) -> Option<Self> {
        let mut hosts = pool.hosts.borrow_mut();
        let host = hosts.entry(address).or_default();
        if host.open >= pool.limits.backend_connections {
            return None;
        }
        host.open += 1;
        let pool = pool.clone();
        Some(Self { pool, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(host) = self.pool.hosts.borrow_mut().get_mut(&self.address) {
            host.open -= 1;
        }
    }
}

/// Why there is no connection. What this host lacks is not the backend's fault.
fn unconnected(error: &io::Error) -> Reason {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::EADDRNOTAVAIL
            | Errno::EAGAIN
            | Errno::ENOBUFS
            | Errno::ENOMEM,
        ) => Reason::Limit,
        Some(
            Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
            | Errno::ENETDOWN
            | Errno::ETIMEDOUT,
        ) => Reason::ConnectTimeout,
        _ => Reason::ConnectRefused,
    }
}

/// How often [`Pool::sweep`] is worth its while.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);

const RESPONSE_HEAD: usize = 64 * 1024;
const BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_that_refused_is_said_to_have_refused() {
        for (errno, reason) in [
            (Errno::ECONNREFUSED, Reason::ConnectRefused),
            (Errno::ECONNRESET, Reason::ConnectRefused),
            (Errno::EHOSTUNREACH, Reason::ConnectTimeout),
            (Errno::ENETUNREACH, Reason::ConnectTimeout),
            (Errno::EMFILE, Reason::Limit),
            (Errno::ENFILE, Reason::Limit),
            // No port is left.
            (Errno::EADDRNOTAVAIL, Reason::Limit),
        ] {
            assert_eq!(unconnected(&errno.into()), reason, "{errno}");
        }
    }
}
