//! One worker's connections to backends, and how many there may be: gone when their backend is, and those that idle
//! when another one needs their place.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    account::Account,
    h2c::Lines,
    lease::Idle,
    queue::Queue,
    stats::{BackendStats, Served, ServiceStats},
};
use crate::{
    Limits,
    services::Ended,
    stats::{Count, Counters, FrontStats},
    table::Table,
};

/// The connections of one worker, and what it keeps about services.
pub(crate) struct Pool {
    hosts: RefCell<HashMap<SocketAddr, Rc<Host>>>,
    accounts: RefCell<HashMap<Arc<str>, Rc<Account>>>,
    common: Rc<Common>,
}

struct Common {
    limits: Rc<Cell<Limits>>,
    counters: Rc<Counters>,
    pool: Weak<Pool>,
    /// All open connections, idle ones included.
    open: Cell<usize>,
    /// Whether there was no room when it was last looked for; no longer once a connection ends or idles.
    exhausted: Cell<bool>,
    /// Who wants to know of that.
    wanted: RefCell<Vec<Rc<Queue>>>,
    /// Told when it is not sure any more which backends are cut.
    stale: Notify,
}

/// A backend as this worker sees it.
pub(crate) struct Host {
    pub(super) address: SocketAddr,
    common: Rc<Common>,
    /// Connections over HTTP/1 that wait for a request.
    pub(super) idle: Idle,
    /// Connections over HTTP/2.
    pub(super) lines: Lines,
    /// All open connections, idle ones included.
    open: Cell<usize>,
    /// Whether the backend left: connections in flight do not come back.
    left: Cell<bool>,
    /// Whether all of them have ended, whatever was on them.
    cut: Cell<bool>,
    /// What drives its connections, as long as they speak HTTP.
    drivers: RefCell<Vec<AbortHandle>>,
    /// Cancelled when it is cut.
    ends: RefCell<CancellationToken>,
    pub(super) in_flight: Cell<usize>,
    pub(super) failures: Count,
    pub(super) retries: Count,
    served: RefCell<Served>,
    /// Who wants to know of a place.
    wanted: RefCell<Vec<Rc<Queue>>>,
}

impl Pool {
    pub(crate) fn new(limits: Rc<Cell<Limits>>, counters: Rc<Counters>) -> Rc<Self> {
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
                stale: Notify::new(),
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
                idle: Idle::default(),
                lines: Lines::default(),
                open: Cell::default(),
                left: Cell::default(),
                cut: Cell::default(),
                drivers: RefCell::default(),
                ends: RefCell::default(),
                in_flight: Cell::default(),
                failures: Count::default(),
                retries: Count::default(),
                served: RefCell::default(),
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
                host.idle.clear();
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

    /// Ends connections to backends whose time is over by `table`; how long until the next one's is.
    pub(crate) fn cut(&self, table: &Table) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let (cuts, next) = table.cuts(now);
        for (address, host) in self.hosts.borrow().iter() {
            host.cut(cuts.contains(address));
        }
        next.map(|next| Duration::from_millis(next - now))
    }

    /// Waits until [`cut`](Self::cut) is due before its time.
    pub(crate) async fn stale(&self) {
        self.common.stale.notified().await;
    }

    /// There may be more connections than before: whoever waits looks again.
    pub(crate) fn widened(&self) {
        for host in self.hosts.borrow().values() {
            host.freed();
        }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.hosts.borrow_mut().retain(|_, host| {
            host.idle.sweep(now);
            host.lines.sweep(now, host.common.limits.get().pool_idle);
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
            in_flight: host.in_flight.get() as u64,
            open: host.open.get() as u64,
            idle: (host.idle.len() + host.lines.idle()) as u64,
            failures: host.failures.value(),
            retries: host.retries.value(),
            ..BackendStats::of(host.address, &host.served.borrow())
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
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all of its connections, or bears them again.
    fn cut(&self, cut: bool) {
        if self.cut.replace(cut) == cut {
            return;
        }
        if cut {
            // What is on them sees their end.
            self.drivers.take().iter().for_each(AbortHandle::abort);
            self.ends.borrow().cancel();
        } else {
            self.ends.take();
        }
    }

    /// Whether its connections were ended by us.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// `driver` ends with its connection.
    pub(super) fn drives(&self, driver: AbortHandle) {
        if self.cut.get() {
            // A table led here that was not looked at yet, or one from before the cut: which of both must be looked at.
            self.cut(false);
            self.common.stale.notify_one();
        }
        let mut drivers = self.drivers.borrow_mut();
        if drivers.len() >= 2 * self.open.get() + SPARE {
            drivers.retain(|driver| !driver.is_finished());
        }
        drivers.push(driver);
    }

    /// A request has ended for which this one was the last to be tried.
    pub(crate) fn ended(&self, ended: Ended) {
        self.served.borrow_mut().count(ended);
    }

    /// Room for one more connection.
    pub(super) fn claim(self: &Rc<Self>) -> Option<Place> {
        let common = &self.common;
        let full = self.open.get() >= common.limits.get().backend_connections;
        // What still idles then is for somebody else.
        if full && !self.idle.evict() || !common.has_room() {
            return None;
        }
        common.open.set(common.open.get() + 1);
        self.open.set(self.open.get() + 1);
        Some(Place(self.clone()))
    }

    pub(super) fn limits(&self) -> Limits {
        self.common.limits.get()
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

    /// There may be a place here.
    pub(super) fn wake(&self) {
        for queue in self.wanted.borrow_mut().drain(..) {
            queue.wake();
        }
    }

    /// One of its connections has ended or idles: there is a place, and room for those of others.
    pub(super) fn freed(&self) {
        self.wake();
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
        if self.open.get() < self.limits.get().backend_connections_in_all {
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
        let mut hosts = hosts.values();
        hosts.any(|host| host.idle.evict() || host.lines.evict())
    }
}

/// One of a backend's connections; its drop makes room for another.
pub(crate) struct Place(pub(super) Rc<Host>);

impl Place {
    /// Is cancelled when its backend is cut.
    pub(crate) fn ends(&self) -> CancellationToken {
        self.0.ends.borrow().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let all = &self.0.common.open;
        all.set(all.get() - 1);
        self.0.open.set(self.0.open.get() - 1);
        self.0.freed();
    }
}

/// Ended drivers that are kept at least, so that they are rarely looked for.
const SPARE: usize = 16;

/// How often [`Pool::sweep`] is worth its while.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
