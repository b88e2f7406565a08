//! A request's place on one of a backend's connections, from before that is open.

use std::{cell::Cell, rc::Rc};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    super::{
        account::Flight,
        lease::Task,
        pool::{Host, Place},
    },
    drive,
    lines::{Line, On},
};
use crate::{answer::Reason, timer::Timer};

/// A place for a request.
pub(crate) struct Seat {
    on: Board,
    taken: Taken,
}

/// Counts a place; its drop makes room for another.
struct Taken(Rc<Host>);

/// Where it is.
enum Board {
    Open(On),
    /// On the connection that another request makes, if there is room.
    Awaited(Rc<Attempt>),
    /// On the one that is made for it.
    New(Connecting, Place),
}

/// To make a connection, for all that need one.
#[derive(Default)]
pub(super) struct Attempt {
    over: Notify,
    failed: Cell<Option<Reason>>,
}

/// Whoever makes it may leave at any time; then one of those that wait tries.
struct Connecting {
    host: Rc<Host>,
    attempt: Rc<Attempt>,
}

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
    _taken: Taken,
}

impl Host {
    /// Room for one more request over HTTP/2.
    pub(in super::super) fn seat(self: &Rc<Self>) -> Option<Seat> {
        if self.in_flight.get() >= self.limits().backend_connections {
            return None;
        }
        let on = self.board()?;
        self.in_flight.set(self.in_flight.get() + 1);
        let taken = Taken(self.clone());
        Some(Seat { on, taken })
    }

    fn board(self: &Rc<Self>) -> Option<Board> {
        if let Some(on) = self.lines.take(self) {
            return Some(Board::Open(on));
        }
        let awaited = self.lines.connecting.borrow().clone();
        match awaited {
            Some(attempt) => Some(Board::Awaited(attempt)),
            None => {
                let place = self.claim()?;
                Some(Board::New(Connecting::begin(self), place))
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.wake();
    }
}

impl Seat {
    /// Waits for what another request makes; `None` if that has no room, and no other connection either.
    pub(in super::super) async fn settled(mut self) -> Option<Self> {
        while let Board::Awaited(attempt) = &self.on {
            attempt.over.notified().await;
            if attempt.failed.get().is_some() {
                break;
            }
            self.on = self.taken.0.board()?;
        }
        Some(self)
    }

    /// A connection for the request in this place, which is settled.
    pub(in super::super) async fn ride(self) -> Result<Ride, Reason> {
        let on = match self.on {
            Board::Open(on) => on,
            Board::New(connecting, place) => connecting.run(place).await?,
            Board::Awaited(attempt) => return Err(attempt.failed.get().unwrap_or(Reason::Limit)),
        };
        let host = &self.taken.0;
        let reused = on.line.carry();
        if reused {
            host.counters().reused.add_one();
        }
        Ok(Ride {
            upload: None,
            on,
            timer: Timer::new(Instant::now() + host.limits().response_head),
            reused,
            patient: false,
            flight: None,
            _taken: self.taken,
        })
    }
}

impl Connecting {
    fn begin(host: &Rc<Host>) -> Self {
        let attempt = Rc::new(Attempt::default());
        host.lines.connecting.replace(Some(attempt.clone()));
        Self {
            host: host.clone(),
            attempt,
        }
    }

    async fn run(self, place: Place) -> Result<On, Reason> {
        let host = &self.host;
        let limits = host.limits();
        let connecting = drive::connect(host.address, place, limits.backend_silence);
        let connected = timeout(limits.connect, connecting).await;
        match connected.unwrap_or(Err(Reason::ConnectTimeout)) {
            // Before those that wait have a look.
            Ok((sender, pulse)) => {
                host.counters().connects.add_one();
                Ok(Line::open(host, sender, pulse))
            }
            Err(reason) => {
                self.attempt.failed.set(Some(reason));
                Err(reason)
            }
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.host.lines.connecting.replace(None);
        self.attempt.over.notify_waiters();
    }
}
