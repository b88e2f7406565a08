//! The HTTP/2 connections of one worker to one backend: as few as have room for what is under way.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    super::{
        account::Flight,
        pool::{Host, Task},
    },
    drive::{self, Mark, Pulse, STREAMS},
};
use crate::{answer::Reason, timer::Timer};

#[derive(Default)]
pub(crate) struct Lines {
    open: RefCell<Vec<Rc<Line>>>,
    /// The attempt to have one more, for which all wait that need it.
    connecting: RefCell<Option<Rc<Attempt>>>,
}

/// A connection that takes requests.
pub(super) struct Line {
    pub(super) sender: RefCell<SendRequest<Bytes>>,
    pub(super) pulse: Rc<Pulse>,
    /// Since when there is nothing under way.
    idle_since: Cell<Instant>,
    /// Whether it has carried a request.
    used: Cell<bool>,
    /// Whether it takes no more of them.
    last: Cell<bool>,
}

#[derive(Default)]
struct Attempt {
    over: Notify,
    failed: Cell<Option<Reason>>,
}

/// A place for a request on one of a backend's connections; its drop makes room for another.
pub(crate) struct Seat(Rc<Host>);

/// A request on a connection. It is taken back, if it has not ended, when this is dropped.
pub(crate) struct Ride {
    /// What is left to do for the request's body.
    pub(super) upload: Option<Task>,
    pub(super) on: On,
    pub(crate) timer: Timer,
    /// Whether the connection carried a request before this one.
    pub(crate) reused: bool,
    /// Whether both sides may be silent for long: they talk to each other, or it is gRPC.
    pub(crate) patient: bool,
    /// Ends with the answer.
    pub(crate) flight: Option<Flight>,
    _seat: Seat,
}

/// Counts a request on a connection.
pub(super) struct On(pub(super) Rc<Line>);

impl Lines {
    /// Closes all of them, once what is under way has ended.
    pub(crate) fn leave(&self) {
        self.open.borrow_mut().clear();
    }

    /// Closes those that have had nothing to do for `limit`.
    pub(crate) fn sweep(&self, now: Instant, limit: Duration) {
        let is_wanted = |line: &Rc<Line>| line.is_busy() || now < line.idle_since.get() + limit;
        let mut open = self.open.borrow_mut();
        open.retain(|line| line.is_good() && is_wanted(line));
    }

    /// How many have nothing to do.
    pub(crate) fn idle(&self) -> usize {
        let open = self.open.borrow();
        open.iter().filter(|line| !line.is_busy()).count()
    }

    /// The first one with room, so that the last ones become idle.
    fn take(&self) -> Option<On> {
        let mut open = self.open.borrow_mut();
        open.retain(|line| line.is_good());
        let line = open.iter().find(|line| line.has_room())?;
        Some(On::new(line))
    }
}

impl Line {
    fn is_busy(&self) -> bool {
        self.pulse.load.get() > 0
    }

    /// Whether it may carry another request. A GOAWAY or an error is known here at once.
    fn is_good(&self) -> bool {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        let mut sender = self.sender.borrow_mut();
        !self.last.get()
            && !self.pulse.has_ended()
            && !matches!(sender.poll_ready(&mut cx), std::task::Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        let most = self.sender.borrow().current_max_send_streams();
        self.pulse.load.get() < most.min(STREAMS as usize)
    }

    /// No further request goes this way: nothing has come since `mark`, for longer than a request may take.
    pub(super) fn doubt(&self, mark: Mark) {
        if !self.pulse.heard_since(mark) {
            self.last.set(true);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.pulse.left.set(true);
    }
}

impl On {
    fn new(line: &Rc<Line>) -> Self {
        let load = &line.pulse.load;
        load.set(load.get() + 1);
        Self(line.clone())
    }
}

impl Drop for On {
    fn drop(&mut self) {
        let load = &self.0.pulse.load;
        load.set(load.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

impl Host {
    /// Room for one more request over HTTP/2.
    pub(in super::super) fn seat(self: &Rc<Self>) -> Option<Seat> {
        if self.in_flight.get() >= self.limits().backend_connections {
            return None;
        }
        self.in_flight.set(self.in_flight.get() + 1);
        Some(Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.freed();
    }
}

impl Seat {
    /// A connection for the request in this place.
    pub(in super::super) async fn ride(self) -> Result<Ride, Reason> {
        let on = find(&self.0).await?;
        let reused = on.0.used.replace(true);
        if reused {
            self.0.counters().reused.add_one();
        }
        Ok(Ride {
            upload: None,
            on,
            timer: Timer::new(Instant::now() + self.0.limits().response_head),
            reused,
            patient: false,
            flight: None,
            _seat: self,
        })
    }
}

/// A connection with room, a new one if there is none.
async fn find(host: &Rc<Host>) -> Result<On, Reason> {
    loop {
        if let Some(on) = host.lines.take() {
            return Ok(on);
        }
        let pending = host.lines.connecting.borrow().clone();
        let Some(attempt) = pending else {
            return Connecting::begin(host).run(host).await;
        };
        attempt.over.notified().await;
        if let Some(reason) = attempt.failed.get() {
            return Err(reason);
        }
    }
}

/// An attempt that others wait for. Whoever made it may leave at any time; then one of them tries.
struct Connecting<'a> {
    lines: &'a Lines,
    attempt: Rc<Attempt>,
}

impl<'a> Connecting<'a> {
    fn begin(host: &'a Host) -> Self {
        let attempt = Rc::new(Attempt::default());
        host.lines.connecting.replace(Some(attempt.clone()));
        Self {
            lines: &host.lines,
            attempt,
        }
    }

    async fn run(self, host: &Rc<Host>) -> Result<On, Reason> {
        let limits = host.limits();
        let connected = match host.claim() {
            None => Err(Reason::Limit),
            Some(place) => {
                let connecting = drive::connect(host.address, place, limits.backend_silence);
                let connected = timeout(limits.connect, connecting).await;
                connected.unwrap_or(Err(Reason::ConnectTimeout))
            }
        };
        let (sender, pulse) = match connected {
            Ok(connected) => connected,
            Err(reason) => {
                self.attempt.failed.set(Some(reason));
                return Err(reason);
            }
        };
        host.counters().connects.add_one();
        let line = Rc::new(Line {
            sender: RefCell::new(sender),
            pulse,
            idle_since: Cell::new(Instant::now()),
            used: Cell::default(),
            last: Cell::default(),
        });
        // Before those that wait have a look.
        let on = On::new(&line);
        if !host.has_left() {
            self.lines.open.borrow_mut().push(line);
        }
        Ok(on)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.lines.connecting.replace(None);
        self.attempt.over.notify_waiters();
    }
}
