//! One connection to a backend, driven by a task of its own until either side has enough of it.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection, SendRequest},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    task::spawn_local,
    time::{Instant, interval_at},
};
use tokio_util::io::{InspectReader, InspectWriter};

use super::super::{connect::connect as open, pool::Place};
use crate::answer::Reason;

/// What is seen of a connection from beside.
#[derive(Default)]
pub(super) struct Pulse {
    /// Bytes that came.
    heard: Cell<u64>,
    /// Bytes that went.
    written: Cell<u64>,
    /// Whether the backend said something about a request since the last ping.
    spoke: Cell<bool>,
    /// Requests under way.
    pub(super) load: Cell<usize>,
    /// Whether nobody sends on it any more.
    pub(super) left: Cell<bool>,
    ended: Cell<bool>,
    /// That the backend's settings are there, or will not come.
    settled: Notify,
}

/// How far a connection was at one moment.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    heard: u64,
    written: u64,
}

impl Pulse {
    pub(super) fn mark(&self) -> Mark {
        Mark {
            heard: self.heard.get(),
            written: self.written.get(),
        }
    }

    /// Whether anything came after `mark`.
    pub(super) fn heard_since(&self, mark: Mark) -> bool {
        self.heard.get() != mark.heard
    }

    /// Whether anything went after `mark`.
    pub(super) fn wrote_since(&self, mark: Mark) -> bool {
        self.written.get() != mark.written
    }

    pub(super) fn said_something(&self) {
        self.spoke.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }
}

/// Connects to the backend at `address`, and waits for its settings: they say how many requests it takes at a time, and
/// that it speaks HTTP/2 at all, before any of them is at stake. It is asked whether it lives after a `silence`.
pub(super) async fn connect(
    address: SocketAddr,
    place: Place,
    silence: Duration,
) -> Result<(SendRequest<Bytes>, Rc<Pulse>), Reason> {
    let stream = open(address).await?;
    let pulse = Rc::new(Pulse::default());
    let (hears, writes) = (pulse.clone(), pulse.clone());
    let count = |sum: &Cell<u64>, bytes: &[u8]| sum.set(sum.get() + bytes.len() as u64);
    let stream = InspectWriter::new(stream, move |bytes| count(&writes.written, bytes));
    let stream = InspectReader::new(stream, move |bytes| count(&hears.heard, bytes));
    let handshake = builder().handshake(stream).await;
    let (sender, connection) = handshake.map_err(|_| Reason::BackendReset)?;
    let host = place.0.clone();
    let driver = spawn_local(drive(connection, pulse.clone(), place, address, silence));
    host.drives(driver.abort_handle());
    while sender.current_max_send_streams() == UNSETTLED {
        if pulse.has_ended() {
            return Err(Reason::ResponseInvalid);
        }
        pulse.settled.notified().await;
    }
    Ok((sender, pulse))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(UNSETTLED)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<S, Bytes>,
    pulse: Rc<Pulse>,
    place: Place,
    address: SocketAddr,
    silence: Duration,
) {
    let mut watch = Watch::new(connection.ping_pong(), silence);
    let mut ticks = interval_at(Instant::now() + silence, silence);
    let mut settled = false;
    // However it ends: it may be cut.
    let end = End(pulse.clone());
    loop {
        let over = poll_fn(|cx| {
            let end = Pin::new(&mut connection).poll(cx);
            if !settled && connection.max_concurrent_send_streams() != UNSETTLED {
                settled = true;
                pulse.settled.notify_one();
            }
            end
        });
        tokio::select! {
            biased;
            over = over => {
                if let Err(error) = over {
                    tracing::debug!(%address, %error, "a backend's connection ended");
                }
                break;
            }
            _ = ticks.tick() => {
                if !watch.look(&pulse) {
                    break;
                }
            }
        }
    }
    drop(end);
    // The requests on it see its end.
    drop(connection);
    drop(place);
}

/// Says that it has ended, before the requests on it see that.
struct End(Rc<Pulse>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.set(true);
        self.0.settled.notify_one();
    }
}

/// Finds out that a backend is gone without a word.
struct Watch {
    pings: Option<PingPong>,
    silence: Duration,
    heard: u64,
    /// When it was last asked.
    pinged: Option<Instant>,
    /// Whether the answer is still to come.
    waits: bool,
}

impl Watch {
    fn new(pings: Option<PingPong>, silence: Duration) -> Self {
        Self {
            pings,
            silence,
            heard: 0,
            pinged: None,
            waits: false,
        }
    }

    /// Whether the connection is still good, a silence after the last look.
    fn look(&mut self, pulse: &Pulse) -> bool {
        let heard = pulse.heard.get();
        if std::mem::replace(&mut self.heard, heard) != heard {
            self.waits = false;
            return true;
        }
        if pulse.load.get() == 0 {
            // Of a connection that nobody has a use for not even the farewell is waited for.
            return !pulse.left.get();
        }
        if self.waits {
            return false;
        }
        // Servers of gRPC take more than a few pings for an attack, unless they had something to say in between.
        let rested = self
            .pinged
            .is_none_or(|at| at.elapsed() >= self.silence * RESTS);
        if let Some(pings) = &mut self.pings
            && (rested || pulse.spoke.take())
        {
            // The answer to the last one, if it was asked for.
            let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
            let _: Poll<_> = pings.poll_pong(&mut cx);
            if pings.send_ping(Ping::opaque()).is_ok() {
                pulse.spoke.set(false);
                self.pinged = Some(Instant::now());
                self.waits = true;
            }
        }
        true
    }
}

/// Before the backend has said how many requests it takes at a time: no number that it could say.
const UNSETTLED: usize = usize::MAX - 1;
/// Requests at a time, if the backend takes as many: the least that RFC 9113 section 6.5.2 recommends to allow.
pub(super) const STREAMS: u32 = 100;
/// Bytes of an answer on their way to us. The connection's window has room for that of every request: a client that takes
/// nothing keeps no other waiting.
const STREAM_WINDOW: u32 = 128 * 1024;
/// As in HTTP/1, in the measure of RFC 9113 section 6.5.2.
const HEADER_LIST: u32 = 64 * 1024;
/// Bytes of one request that wait for the backend's window.
const SEND_BUFFER: usize = 128 * 1024;
/// Silences between two pings at least: with the usual one, a bit more than the five minutes that gRPC wants.
const RESTS: u32 = 16;
