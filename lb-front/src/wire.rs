//! The client's socket as hyper sees it: the guard on what is read, and the deadlines that hyper lacks.
//!
//! A byte that the guard refuses in a head is replaced by one that hyper refuses everywhere, so that hyper
//! gives its 400 in the right order, after the answers to earlier requests, and closes.

mod deadlines;
mod linger;
mod stall;
mod stream;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

pub(super) use self::{
    deadlines::SILENCE,
    linger::{LINGER_BYTES, LINGER_TIME, linger},
    stall::Stall,
    stream::Stream,
};
use super::{
    Limits,
    client::{ClientState, Stop},
    gather,
    guard::{Fault, Framing, Position, Scan},
    pace::Pace,
    timer::Timer,
    warm::{Kept, Warm},
};

/// A client's stream between kernel and hyper.
pub(super) struct Wire<S> {
    stream: S,
    state: Arc<ClientState>,
    limits: Limits,
    framing: Framing,
    mode: Mode,
    /// Bytes read before hyper was there, or behind a request that is not answered yet.
    held: BytesMut,
    /// Since when a client that sends no more has taken nothing either; `None` while it may send.
    half_closed: Option<Instant>,
    /// When the last byte came, or the connection began.
    last_read: Instant,
    /// When the present head began, while there is one.
    head_since: Option<Instant>,
    /// How the present body comes, while there is one.
    pace: Pace,
    /// What was answered when the client was last seen busy, and since when it is not.
    idle_since: (u32, Instant),
    /// Where a place to keep hyper is had.
    warm: Warm,
    /// That place, while the client is silent.
    kept: Option<Kept>,
    read_timer: Timer,
    stall: Stall,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Bytes go through the guard.
    Http,
    /// A refused head: hyper is given these bytes, then the end.
    Spoiled(&'static [u8]),
    /// A refused body, or a refused head with an answer that hyper does not have.
    Broken,
}

/// No HTTP head contains NUL. The empty line makes hyper look at once.
const SPOILER: &[u8] = b"\0\r\n\r\n";

impl<S: Stream> Wire<S> {
    /// A wire at a boundary between requests, of which `held` has been read already.
    pub(super) fn new(
        stream: S,
        state: Arc<ClientState>,
        limits: Limits,
        warm: Warm,
        held: BytesMut,
    ) -> Self {
        let now = Instant::now();
        state.speak();
        Self {
            stream,
            limits,
            framing: Framing::after(state.answers()),
            mode: Mode::Http,
            held,
            half_closed: None,
            last_read: now,
            head_since: None,
            pace: Pace::default(),
            idle_since: (state.answers(), now),
            warm,
            kept: None,
            read_timer: Timer::new(now + SILENCE),
            stall: Stall::default(),
            state,
        }
    }

    /// Whether nothing has come behind the last request that is whole.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.framing.position() == Position::Boundary && self.held.is_empty()
    }

    /// The bare stream, for the time after HTTP.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Whether the client has stopped taking what we send.
    pub(super) fn is_stalled(&self) -> bool {
        self.stall.lasts()
    }

    /// When the head began of which a part has come.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// Lets the guard see what `buf` holds from `from` on, and cuts off what must not pass, or not yet. Gives the number
    /// of bytes that pass.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, from: usize) -> usize {
        let heads = self.framing.heads();
        let passed = match self.framing.scan(&buf.filled()[from..]) {
            Scan::Pass => buf.filled().len() - from,
            Scan::End(at) => at,
            Scan::Fault(at, fault) => {
                self.state.stop_for(Stop::Guard(fault));
                self.mode = if fault.in_head() && fault != Fault::TargetTooLong {
                    Mode::Spoiled(SPOILER)
                } else {
                    Mode::Broken
                };
                at
            }
        };
        if self.framing.heads() == heads {
            self.pace.take(passed, self.last_read);
        } else {
            self.pace = Pace::default();
        }
        match (self.framing.position(), self.head_since) {
            (Position::Head, None) => self.head_since = Some(self.last_read),
            (Position::Boundary | Position::Body, _) => self.head_since = None,
            (Position::Head, Some(_)) => {}
        }
        passed
    }

    /// Whether every request so far is answered.
    fn all_answered(&self) -> bool {
        self.state.answers() == self.framing.heads()
    }

    /// Whether the client has sent a whole request and waits.
    fn awaits_answer(&self) -> bool {
        self.framing.position() == Position::Boundary && !self.all_answered()
    }

    fn poll_http(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let from = buf.filled().len();
        let passed = if self.held.is_empty() {
            match Pin::new(&mut self.stream).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_deadline(cx),
            }
            if buf.filled().len() == from {
                self.state.end();
                return Poll::Ready(Ok(()));
            }
            self.last_read = Instant::now();
            self.kept = None;
            let passed = self.inspect(buf, from);
            self.held.extend_from_slice(&buf.filled()[from + passed..]);
            passed
        } else {
            let length = self.held.len().min(buf.remaining());
            buf.put_slice(&self.held[..length]);
            self.last_read = Instant::now();
            let passed = self.inspect(buf, from);
            self.release(passed);
            passed
        };
        buf.set_filled(from + passed);
        if passed == 0 {
            // An empty read would mean the end.
            return self.poll_mode(cx, buf);
        }
        Poll::Ready(Ok(()))
    }

    /// Forgets the first bytes of those held, and with the last one their memory.
    fn release(&mut self, length: usize) {
        self.held.advance(length);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Takes in what comes early, because only who reads is told that the client has left. hyper gets none of it: it
    /// may not be HTTP, and hyper does not look for the end behind bytes that it has.
    fn poll_early(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let from = buf.filled().len();
        while self.half_closed.is_none() && self.held.len() < HELD_LIMIT {
            match Pin::new(&mut self.stream).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            if buf.filled().len() == from {
                self.half_closed = Some(Instant::now());
            }
            self.held.extend_from_slice(&buf.filled()[from..]);
            buf.set_filled(from);
        }
        if self.half_closed.is_some() || !self.held.is_empty() {
            // The socket does not wake us for what it has already told.
            self.state.wake_when_answered(cx.waker());
        }
        self.poll_deadline(cx)
    }

    fn poll_mode(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.state.is_tunnel() {
            return self.poll_tunnel(cx, buf);
        }
        match self.mode {
            Mode::Http if self.awaits_answer() => self.poll_early(cx, buf),
            Mode::Http => self.poll_http(cx, buf),
            Mode::Spoiled(bytes) => {
                let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
                buf.put_slice(now);
                self.mode = Mode::Spoiled(later);
                Poll::Ready(Ok(()))
            }
            // What was answered before goes out first.
            Mode::Broken if self.is_stalled() => Poll::Pending,
            Mode::Broken => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.release(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_mode(cx, buf)
    }
}

impl<S: Stream> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_write_deadline(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = gather::poll_write(&mut self.stream, cx, slices);
        self.poll_write_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // A socket keeps nothing back. TLS does, and has said that it was written.
        if S::SECURE {
            let limit = self.limits.write_stall;
            return self.stall.poll(cx, limit, flushed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // How a socket ends is the connection's to say as long as it is HTTP. TLS has a word of its own for the end.
        if !S::SECURE && !self.state.is_tunnel() {
            return Poll::Ready(Ok(()));
        }
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        let limit = self.limits.write_stall;
        self.stall.poll(cx, limit, done)
    }
}

/// A client that sends more before it is answered waits in the kernel, and may leave unnoticed.
const HELD_LIMIT: usize = 16 * 1024;
