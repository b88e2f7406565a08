//! What one worker keeps about a service beside the routing table: its turns, which backends failed, how much
//! is in flight, and who waits.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    budget::Budget,
    eject::{Ejector, Share},
    queue::Queue,
    turns::Turns,
};

pub(crate) struct Account {
    pub(super) label: Arc<str>,
    turns: RefCell<Turns>,
    budget: RefCell<Budget>,
    ejector: RefCell<Ejector<SocketAddr>>,
    /// How often a backend was ejected.
    pub(super) ejections: Cell<u64>,
    /// Requests for which no backend has a place.
    pub(super) places: Rc<Queue>,
    /// Requests that may be tried again once others have been.
    pub(super) retries: Rc<Queue>,
}

impl Account {
    pub(super) fn new(label: Arc<str>) -> Self {
        Self {
            label,
            turns: RefCell::default(),
            budget: RefCell::default(),
            ejector: RefCell::default(),
            ejections: Cell::default(),
            places: Rc::default(),
            retries: Rc::default(),
        }
    }

    pub(super) fn turn(&self, cursor: &AtomicUsize) -> usize {
        self.turns.borrow_mut().take(cursor)
    }

    /// Some seconds have passed.
    pub(super) fn rest(&self) {
        self.turns.borrow_mut().rest();
    }

    /// Whether no backend is under suspicion.
    pub(super) fn trusts_all(&self) -> bool {
        self.ejector.borrow().is_empty()
    }

    pub(super) fn share(&self, backend: SocketAddr) -> Share {
        let mut ejector = self.ejector.borrow_mut();
        if ejector.is_empty() {
            return Share::Full;
        }
        ejector.share(backend, Instant::now())
    }

    pub(super) fn is_out(&self, backend: SocketAddr) -> bool {
        self.ejector.borrow().is_out(backend, Instant::now())
    }

    pub(super) fn served(&self, backend: SocketAddr) {
        let mut ejector = self.ejector.borrow_mut();
        if !ejector.is_empty() {
            ejector.served(backend, Instant::now());
        }
    }

    /// A request to `backend`, one of `usable`, failed for the reason `why`.
    pub(super) fn failed(&self, backend: SocketAddr, why: &'static str, usable: usize) {
        let mut ejector = self.ejector.borrow_mut();
        if let Some(time) = ejector.failed(backend, why, usable, Instant::now()) {
            self.ejections.set(self.ejections.get() + 1);
            tracing::warn!(service = &*self.label, %backend, why, ?time, "backend ejected");
        }
    }

    /// The service has other backends now.
    pub(super) fn keep(&self, live: impl Fn(SocketAddr) -> bool, usable: usize) {
        let mut ejector = self.ejector.borrow_mut();
        if !ejector.is_empty() {
            ejector.keep(live, usable, Instant::now());
        }
        // One of them may have a place.
        self.places.wake();
    }

    /// Who is ejected, for how long from now on, and why.
    pub(super) fn ejected(&self) -> Vec<(SocketAddr, Duration, &'static str)> {
        let now = Instant::now();
        let ejector = self.ejector.borrow();
        let ejected = ejector.ejected(now);
        ejected
            .map(|(backend, until, why)| (backend, until - now, why))
            .collect()
    }
}

/// A request on its way to a backend and back.
pub(crate) struct Flight {
    account: Rc<Account>,
    /// Whether it is being tried again.
    retrying: bool,
}

impl Flight {
    pub(super) fn begin(account: Rc<Account>) -> Self {
        account.budget.borrow_mut().begin();
        Self {
            account,
            retrying: false,
        }
    }

    /// Waits until the request may be tried again, but not for more than `limit`, nor if `most` wait already;
    /// false if it may not.
    pub(super) async fn retry(&mut self, limit: Duration, most: usize) -> bool {
        let budget = &self.account.budget;
        if self.retrying {
            return true;
        }
        if self.account.retries.is_empty() && budget.borrow_mut().begin_retry() {
            self.retrying = true;
            return true;
        }
        let Some(waiting) = self.account.retries.join(most) else {
            return false;
        };
        let turn = async {
            loop {
                waiting.woken().await;
                if budget.borrow_mut().begin_retry() {
                    return;
                }
            }
        };
        self.retrying = timeout(limit, turn).await.is_ok();
        self.retrying
    }

    /// There is an answer.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.retrying) {
            self.account.budget.borrow_mut().end_retry();
            self.account.retries.wake();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.answered();
        self.account.budget.borrow_mut().end();
    }
}
