//! The HTTP/2 connections of one worker to one backend: as few as have room for what is under way.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::Instant;

use super::{
    super::pool::Host,
    drive::{Mark, Pulse, STREAMS},
    seat::Attempt,
};

#[derive(Default)]
pub(crate) struct Lines {
    open: RefCell<Vec<Rc<Line>>>,
    /// The attempt to have one more, for which all wait that need it.
    pub(super) connecting: RefCell<Option<Rc<Attempt>>>,
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

/// Counts a request on a connection.
pub(super) struct On {
    pub(super) line: Rc<Line>,
    host: Rc<Host>,
}

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

    /// Closes the one that has had nothing to do for the longest; false if there is none.
    pub(crate) fn evict(&self) -> bool {
        let mut open = self.open.borrow_mut();
        // Those that their backends have closed free nothing.
        open.retain(|line| line.is_good());
        let idle = open.iter().enumerate().filter(|(_, line)| !line.is_busy());
        let oldest = idle.min_by_key(|(_, line)| line.idle_since.get());
        let oldest = oldest.map(|(place, _)| place);
        oldest.map(|place| open.remove(place)).is_some()
    }

    /// A place on the first one with room, so that the last ones become idle.
    pub(super) fn take(&self, host: &Rc<Host>) -> Option<On> {
        let mut open = self.open.borrow_mut();
        open.retain(|line| line.is_good());
        let line = open.iter().find(|line| line.has_room())?;
        Some(On::new(line, host))
    }
}

impl Line {
    /// One that has just been opened to `host`, with a first request on it.
    pub(super) fn open(host: &Rc<Host>, sender: SendRequest<Bytes>, pulse: Rc<Pulse>) -> On {
        let line = Rc::new(Self {
            sender: RefCell::new(sender),
            pulse,
            idle_since: Cell::new(Instant::now()),
            used: Cell::default(),
            last: Cell::default(),
        });
        let on = On::new(&line, host);
        if !host.has_left() {
            host.lines.open.borrow_mut().push(line);
            host.wake();
        }
        on
    }

    /// It carries one more request; whether it has carried one before.
    pub(super) fn carry(&self) -> bool {
        self.used.replace(true)
    }

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
    fn new(line: &Rc<Line>, host: &Rc<Host>) -> Self {
        let load = &line.pulse.load;
        load.set(load.get() + 1);
        Self {
            line: line.clone(),
            host: host.clone(),
        }
    }
}

impl Drop for On {
    fn drop(&mut self) {
        let load = &self.line.pulse.load;
        load.set(load.get() - 1);
        self.line.idle_since.set(Instant::now());
        if !self.line.is_busy() {
            self.host.freed();
        }
    }
}
