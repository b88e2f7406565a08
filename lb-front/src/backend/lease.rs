//! Connections to backends over HTTP/1: each for one request at a time, the newest first.
//!
//! A connection comes back only after its answer ended cleanly, and is given out again only if hyper calls it
//! ready, which it is not before the request's body was sent to its end too: the rest of either message
//! would reach somebody else (CVE-2025-4366). One that was answered in HTTP/1.0 never comes back.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::Duration,
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    task::{AbortHandle, JoinHandle, spawn_local},
    time::{Instant, timeout},
};

use super::{
    account::Flight,
    caller::{Caller, Known},
    connect::connect,
    pool::{Host, Place},
    socket::{Heard, Socket},
};
use crate::{answer::Reason, body::Upload, timer::Timer};

/// Those to one backend that wait for a request, oldest first.
#[derive(Default)]
pub(super) struct Idle(RefCell<Vec<Waiting>>);

struct Waiting {
    /// The client that it is for, if the backend knows one.
    known: Option<Known>,
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
    /// The client that it is for, if the backend knows one.
    caller: Option<Caller>,
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

impl Waiting {
    fn is_for(&self, caller: Option<&Caller>) -> bool {
        match (&self.known, caller) {
            (None, None) => true,
            (Some(known), Some(caller)) => known.is(caller),
            _ => false,
        }
    }

    /// Whether there is nobody any more whose requests it may carry.
    fn is_orphan(&self) -> bool {
        self.known.as_ref().is_some_and(Known::is_gone)
    }
}

impl Idle {
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Closes all of them.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Closes those that are too old, or nobody's.
    pub(super) fn sweep(&self, now: Instant) {
        let is_good = |it: &Waiting| !it.sender.is_closed() && now < it.until && !it.is_orphan();
        self.0.borrow_mut().retain(is_good);
    }

    /// Closes the oldest; false if there is none.
    pub(super) fn evict(&self) -> bool {
        let mut idle = self.0.borrow_mut();
        // Those that their backends have closed free nothing.
        let living = idle.iter().position(|it| it.place.strong_count() > 0);
        let end = living.map_or(idle.len(), |oldest| oldest + 1);
        idle.drain(..end);
        living.is_some()
    }
}

impl Host {
    /// The newest idle connection that is still good and for this `caller`.
    pub(super) fn take(self: &Rc<Self>, caller: Option<&Caller>) -> Option<Lease> {
        let mut all = self.idle.0.borrow_mut();
        if all.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some(place) = all.iter().rposition(|it| it.is_for(caller)) {
            let idle = all.remove(place);
            if idle.sender.is_ready()
                && now < idle.until
                && let Some(place) = idle.place.upgrade()
            {
                self.counters().reused.add_one();
                return Some(Lease {
                    busy: Busy::new(self),
                    caller: caller.cloned(),
                    sender: idle.sender,
                    heard: idle.heard,
                    place,
                    reused: true,
                    last: false,
                    keep: self.limits().pool_idle,
                    timer: idle.timer,
                    task: idle.task,
                    flight: None,
                });
            }
        }
        None
    }
}

impl Place {
    /// A new connection in this place, for this `caller` alone if there is one.
    pub(super) async fn connect(self, caller: Option<Caller>) -> Result<Lease, Reason> {
        let host = self.0.clone();
        let place = Rc::new(self);
        let limits = host.limits();
        let connected = timeout(limits.connect, connect(host.address)).await;
        let mut stream = connected.unwrap_or(Err(Reason::ConnectTimeout))?;
        if let Some(caller) = &caller {
            // A new socket has room for it.
            let told = stream.write_all(&caller.header()).await;
            told.map_err(|_| Reason::BackendReset)?;
        }
        let heard = Heard::default();
        let stream = Socket::new(stream, heard.clone());
        let mut builder = Builder::new();
        builder.max_header_size(RESPONSE_HEAD).max_buf_size(BUFFER);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Reason::BackendReset)?;
        host.counters().connects.add_one();
        let held = place.clone();
        let task = spawn_local(async move {
            // Its error reaches the request that was on it, if there was one.
            let _ = connection.with_upgrades().await;
            drop(held);
        });
        host.drives(task.abort_handle());
        Ok(Lease {
            busy: Busy::new(&host),
            caller,
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
        let caller = self.caller.as_ref();
        if caller.is_some_and(Caller::leaves)
            || self.last
            || self.keep.is_zero()
            || self.sender.is_closed()
            || host.has_left()
        {
            return;
        }
        let mut idle = host.idle.0.borrow_mut();
        if idle.len() >= host.limits().pool_size {
            let orphan = idle.iter().position(Waiting::is_orphan);
            idle.remove(orphan.unwrap_or(0));
        }
        idle.push(Waiting {
            known: caller.map(Caller::known),
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

/// What a request needs at most to reach a backend.
const MARGIN: Duration = Duration::from_secs(1);

const RESPONSE_HEAD: usize = 64 * 1024;
const BUFFER: usize = 256 * 1024;
