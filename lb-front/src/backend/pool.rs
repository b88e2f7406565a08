//! One worker's connections to backends: newest first, bounded, gone when their backend is.
//!
//! A connection comes back only after its answer ended cleanly, and is given out again only if hyper calls it
//! ready, which it is not before the request's body was sent to its end too: the rest of either message
//! would reach somebody else (CVE-2025-4366). One that was answered in HTTP/1.0 never comes back.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinHandle, spawn_local},
    time::{Instant, timeout},
};

use super::{
    account::{Account, Flight},
    h2c::Lines,
    queue::Queue,
    socket::{Heard, Socket},
    stats::{BackendStats, ServiceStats},
};
use crate::{
    Limits,
    answer::Reason,
    body::Upload,
    stats::{Count, Counters, FrontStats},
    table::Table,
    timer::Timer,
};

/// The connections of one worker, and what it keeps about services.
pub(crate) struct Pool {
    hosts: RefCell<HashMap<SocketAddr, Rc<Host>>>,
    accounts: RefCell<HashMap<Arc<str>, Rc<Account>>>,
    common: Rc<Common>,
}

struct Common {
    limits: Limits,
    counters: Rc<Counters>,
    pool: Weak<Pool>,
    /// All open connections, idle ones included.
    open: Cell<usize>,
    /// Whether there was no room when it was last looked for; no longer once a connection ends or idles.
    exhausted: Cell<bool>,
    /// Who wants to know of that.
    wanted: RefCell<Vec<Rc<Queue>>>,
}

/// A backend as this worker sees it.
pub(crate) struct Host {
    pub(super) address: SocketAddr,
    common: Rc<Common>,
    /// Oldest first.
    idle: RefCell<Vec<Idle>>,
    /// Connections over HTTP/2.
    pub(super) lines: Lines,
    /// All open connections, idle ones included.
    open: Cell<usize>,
    /// Whether the backend left: connections in flight do not come back.
    left: Cell<bool>,
    pub(super) in_flight: Cell<usize>,
    pub(super) failures: Count,
    pub(super) retries: Count,
    /// Who wants to know of a place.
    wanted: RefCell<Vec<Rc<Queue>>>,
}

struct Idle {
    sender: SendRequest<Upload>,
    heard: Heard,
    /// The connection holds it: gone means closed.
    place: Weak<Place>,
    /// When it is too old.
    until: Instant,
    timer: Timer,
    task: Task,
}

/// A connection on loan.
pub(crate) struct Lease {
    busy: Busy,
    pub(crate) sender: SendRequest<Upload>,
    /// Whether the backend sent anything.
    pub(crate) heard: Heard,
    place: Rc<Place>,
    /// Whether it carried a request before this one.
    pub(crate) reused: bool,
    /// Whether it carries no other after this one.
    last: bool,
    /// How long it may wait for another one.
    keep: Duration,
    /// For whoever waits for the backend.
    pub(crate) timer: Timer,
    task: Task,
    /// Ends with the answer.
    pub(super) flight: Option<Flight>,
}

/// Counts a request in flight.
struct Busy(Rc<Host>);

impl Busy {
    fn new(host: &Rc<Host>) -> Self {
        host.in_flight.set(host.in_flight.get() + 1);
        Self(host.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// What drives a connection. hyper's would go on with a request after its answer; this ends with its owner, and
/// so does the socket.
pub(super) struct Task(Option<AbortHandle>);

impl Task {
    pub(super) fn new(task: &JoinHandle<()>) -> Self {
        Self(Some(task.abort_handle()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Pool {
    pub(crate) fn new(limits: Limits, counters: Rc<Counters>) -> Rc<Self> {
        Rc::new_cyclic(|pool| Self {
            hosts: RefCell::default(),
            accounts: RefCell::default(),
            common: Rc::new(Common {
                limits,
                counters,
                pool: pool.clone(),
                open: Cell::default(),
                exhausted: Cell::default(),
                wanted: RefCell::default(),
            }),
        })
    }

    /// What this worker knows of the backend at `address`.
    pub(super) fn host(&self, address: SocketAddr) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        let host = hosts.entry(address).or_insert_with(|| {
            Rc::new(Host {
                address,
                common: self.common.clone(),
                idle: RefCell::default(),
                lines: Lines::default(),
                open: Cell::default(),
                left: Cell::default(),
                in_flight: Cell::default(),
                failures: Count::default(),
                retries: Count::default(),
                wanted: RefCell::default(),
            })
        });
        host.clone()
    }

    /// What this worker knows of the service called `label`.
    pub(super) fn account(&self, label: &Arc<str>) -> Rc<Account> {
        let mut accounts = self.accounts.borrow_mut();
        if let Some(account) = accounts.get(label) {
            return account.clone();
        }
        let account = Rc::new(Account::new(label.clone()));
        accounts.insert(label.clone(), account.clone());
        account
    }

    /// Forgets what `table` no longer has, and closes connections to it: idle ones now, others once they are given
    /// back.
    pub(crate) fn keep(&self, table: &Table) {
        let live = table.addresses();
        for (address, host) in self.hosts.borrow().iter() {
            host.left.set(!live.contains(address));
            if host.left.get() {
                host.idle.borrow_mut().clear();
                host.lines.leave();
            }
        }
        let services: HashMap<_, _> = table.services().map(|it| (&*it.label, it)).collect();
        let mut accounts = self.accounts.borrow_mut();
        accounts.retain(|label, account| {
            let service = services.get(&**label);
            match service {
                Some(service) => account.keep(|address| service.has(address), service.usable),
                // Who waits learns that there is nothing to wait for.
                None => account.places.wake(),
            }
            service.is_some()
        });
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.hosts.borrow_mut().retain(|_, host| {
            let mut idle = host.idle.borrow_mut();
            idle.retain(|idle| !idle.sender.is_closed() && now < idle.until);
            host.lines.sweep(now, host.common.limits.pool_idle);
            !host.left.get() || host.open.get() > 0
        });
        for account in self.accounts.borrow().values() {
            account.rest();
        }
    }

    /// Adds what is known of backends to `stats`.
    pub(crate) fn read(&self, stats: &mut FrontStats) {
        let hosts = self.hosts.borrow();
        let backends = hosts.values().map(|host| BackendStats {
            address: host.address,
            in_flight: host.in_flight.get() as u64,
            open: host.open.get() as u64,
            idle: (host.idle.borrow().len() + host.lines.idle()) as u64,
            failures: host.failures.value(),
            retries: host.retries.value(),
        });
        stats.backends = backends.collect();
        let accounts = self.accounts.borrow();
        let accounts = accounts.values();
        stats.services = accounts
            .filter_map(|account| ServiceStats::of(account))
            .collect();
    }
}

impl Host {
    /// The newest idle connection that is still good.
    pub(super) fn take(self: &Rc<Self>) -> Option<Lease> {
        let mut all = self.idle.borrow_mut();
        if all.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some(idle) = all.pop() {
            if idle.sender.is_ready()
                && now < idle.until
                && let Some(place) = idle.place.upgrade()
            {
                self.common.counters.reused.add_one();
                return Some(Lease {
                    busy: Busy::new(self),
                    sender: idle.sender,
                    heard: idle.heard,
                    place,
                    reused: true,
                    last: false,
                    keep: self.common.limits.pool_idle,
                    timer: idle.timer,
                    task: idle.task,
                    flight: None,
                });
            }
        }
        None
    }

    /// Room for one more connection.
    pub(super) fn claim(self: &Rc<Self>) -> Option<Place> {
        let common = &self.common;
        if self.open.get() >= common.limits.backend_connections || !common.has_room() {
            return None;
        }
        common.open.set(common.open.get() + 1);
        self.open.set(self.open.get() + 1);
        Some(Place(self.clone()))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.common.limits
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.common.counters
    }

    /// Whether no route leads here any more.
    pub(super) fn has_left(&self) -> bool {
        self.left.get()
    }

    /// Has `queue` woken once when there is a connection or room for one.
    pub(super) fn want(&self, queue: &Rc<Queue>) {
        let want = |wanted: &RefCell<Vec<Rc<Queue>>>| {
            let mut wanted = wanted.borrow_mut();
            if !wanted.iter().any(|known| Rc::ptr_eq(known, queue)) {
                wanted.push(queue.clone());
            }
        };
        want(&self.wanted);
        if self.common.exhausted.get() {
            want(&self.common.wanted);
        }
    }

    pub(super) fn freed(&self) {
        for queue in self.wanted.borrow_mut().drain(..) {
            queue.wake();
        }
        if self.common.exhausted.take() {
            for queue in self.common.wanted.borrow_mut().drain(..) {
                queue.wake();
            }
        }
    }
}

impl Common {
    /// Whether the worker may have one more connection, if need be in the place of one that idles.
    fn has_room(&self) -> bool {
        if self.open.get() < self.limits.backend_connections_in_all {
            return true;
        }
        if !self.exhausted.get() {
            self.exhausted.set(!self.evict());
        }
        !self.exhausted.get()
    }

    /// Closes an idle connection; false if there is none. It still counts, but not for longer than its task takes to end.
    fn evict(&self) -> bool {
        let Some(pool) = self.pool.upgrade() else {
            return false;
        };
        let hosts = pool.hosts.borrow();
        hosts.values().any(|host| {
            let mut idle = host.idle.borrow_mut();
            // Those that their backends have closed free nothing.
            let living = idle.iter().position(|it| it.place.strong_count() > 0);
            let end = living.map_or(idle.len(), |oldest| oldest + 1);
            idle.drain(..end);
            living.is_some()
        })
    }
}

impl Place {
    /// A new connection in this place.
    pub(super) async fn connect(self) -> Result<Lease, Reason> {
        let host = self.0.clone();
        let place = Rc::new(self);
        let (address, limits) = (host.address, &host.common.limits);
        let stream = match timeout(limits.connect, TcpStream::connect(address)).await {
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
        let stream = Socket::new(stream, heard.clone());
        let mut builder = Builder::new();
        builder.max_header_size(RESPONSE_HEAD).max_buf_size(BUFFER);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Reason::BackendReset)?;
        host.common.counters.connects.add_one();
        let held = place.clone();
        let task = spawn_local(async move {
            // Its error reaches the request that was on it, if there was one.
            let _ = connection.with_upgrades().await;
            drop(held);
        });
        Ok(Lease {
            busy: Busy::new(&host),
            sender,
            heard,
            place,
            reused: false,
            last: false,
            keep: limits.pool_idle,
            timer: Timer::new(Instant::now() + limits.response_head),
            task: Task::new(&task),
            flight: None,
        })
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

    /// The backend said for how long it keeps the connection. Ours ends earlier, since a request could cross its end.
    pub(super) fn heed(&mut self, said: Duration) {
        self.keep = self.keep.min(said.saturating_sub(MARGIN));
    }

    /// The answer has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        let host = &self.busy.0;
        if self.last || self.keep.is_zero() || self.sender.is_closed() || host.left.get() {
            return;
        }
        let mut idle = host.idle.borrow_mut();
        if idle.len() >= host.common.limits.pool_size {
            idle.remove(0);
        }
        idle.push(Idle {
            sender: self.sender,
            heard: self.heard,
            place: Rc::downgrade(&self.place),
            until: Instant::now() + self.keep,
            timer: self.timer,
            task: self.task,
        });
        drop(idle);
        host.freed();
    }
}

/// One of a backend's connections; its drop makes room for another.
pub(crate) struct Place(Rc<Host>);

impl Drop for Place {
    fn drop(&mut self) {
        let all = &self.0.common.open;
        all.set(all.get() - 1);
        self.0.open.set(self.0.open.get() - 1);
        self.0.freed();
    }
}

/// Why there is no connection. What this host lacks is not the backend's fault.
pub(super) fn unconnected(error: &io::Error) -> Reason {
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

/// What a request needs at most to reach a backend.
const MARGIN: Duration = Duration::from_secs(1);

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
