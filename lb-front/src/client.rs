//! What a client's socket and the requests on it tell each other.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use super::{
    crowd::{self, Token},
    guard::Fault,
};

/// The state of one client's connection. Its parts run on one thread; hyper's upgrades want `Send` all the
/// same, hence atomics.
#[derive(Debug, Default)]
pub(super) struct ClientState {
    /// From where to where it leads.
    pub(super) ends: Ends,
    /// Whether the client speaks TLS with us.
    secure: bool,
    /// Requests whose answer is complete.
    answers: AtomicU32,
    /// Whether a backend has agreed to leave HTTP.
    tunnel: AtomicBool,
    /// Whether nothing more comes from the client.
    ended: AtomicBool,
    /// Whether the client has said that its last request was the last one.
    leaves: AtomicBool,
    /// Whether every request is answered and none has come for a while.
    silent: AtomicBool,
    /// Set once: there is no reading on after it.
    stop: OnceLock<Stop>,
    /// The connection's task, while it waits for the answer to a request for an upgrade.
    waiting: AtomicWaker,
    /// Its place among the worker's connections. The socket holds this state, also inside a tunnel: whoever
    /// has a socket has a place.
    _place: Option<OwnedSemaphorePermit>,
    /// What its address is counted by.
    token: Token,
}

/// Where a client's connection begins and where it ends, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) own: SocketAddr,
}

impl Ends {
    /// Those of `socket`, whose peer is the client.
    pub(super) fn of(socket: &TcpStream, client: SocketAddr) -> Self {
        let own = socket.local_addr();
        Self {
            client,
            own: own.unwrap_or(Self::default().own),
        }
    }
}

impl Default for Ends {
    fn default() -> Self {
        let nowhere = (Ipv4Addr::UNSPECIFIED, 0).into();
        Self {
            client: nowhere,
            own: nowhere,
        }
    }
}

/// Why the client's stream was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The guard refused it.
    Guard(Fault),
    /// A head did not come in time.
    HeaderTimeout,
    /// A body did not come in time.
    BodyTimeout,
}

impl Stop {
    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Guard(fault) => fault.as_str(),
            Self::HeaderTimeout => "header_timeout",
            Self::BodyTimeout => "body_timeout",
        }
    }
}

impl ClientState {
    pub(super) fn new(ends: Ends, place: OwnedSemaphorePermit, token: Token, secure: bool) -> Self {
        Self {
            ends,
            secure,
            _place: Some(place),
            token,
            ..Self::default()
        }
    }

    /// Counts one more request of its address; `None` when that has `limit` connections and requests already.
    pub(super) fn one_more(&self, limit: usize) -> Option<Token> {
        crowd::one_more(&self.token, limit)
    }

    /// Whether the client speaks TLS with us.
    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// One more request is answered to the end.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.waiting.wake();
    }

    pub(super) fn answers(&self) -> u32 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Has `task` polled after the next answer, or the agreement to leave HTTP.
    pub(super) fn wake_when_answered(&self, task: &Waker) {
        self.waiting.register(task);
    }

    /// From here on the stream is no longer HTTP.
    pub(super) fn begin_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
        self.waiting.wake();
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// Nothing more comes from the client, or is waited for.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// No request follows the one that has come.
    pub(super) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    pub(super) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// There is nothing to do until the client sends something.
    pub(super) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// It has.
    pub(super) fn speak(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Reading ends here. The first reason stands.
    pub(super) fn stop_for(&self, why: Stop) {
        let _ = self.stop.set(why);
    }

    pub(super) fn stop(&self) -> Option<Stop> {
        self.stop.get().copied()
    }
}
