//! The client's socket as hyper sees it: the guard on what is read, and the deadlines that hyper lacks.
//!
//! A byte that the guard refuses in a head is replaced by one that hyper refuses everywhere, so that hyper
//! gives its 400 in the right order, after the answers to earlier requests, and closes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Limits,
    client::{ClientState, Stop},
    guard::{Framing, Position, Scan},
};

/// What carries a client's bytes, in whatever wrapping.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The socket at its bottom.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// A client's stream between kernel and hyper.
pub(super) struct Wire<S> {
    stream: S,
    state: Arc<ClientState>,
    limits: Limits,
    framing: Framing,
    mode: Mode,
    /// Bytes read behind a request for an upgrade.
    held: BytesMut,
    /// When the last byte came, or the connection began.
    last_read: Instant,
    /// When the present head began, while there is one.
    head_since: Option<Instant>,
    /// What was answered when the client was last seen busy, and since when it is not.
    idle_since: (u32, Instant),
    read_timer: Pin<Box<Sleep>>,
    /// Exists while the client does not take what we send.
    write_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Bytes go through the guard.
    Http,
    /// Whatever comes is held until the request for an upgrade is answered.
    Waiting,
    /// A refused head: hyper is given these bytes, then the end.
    Spoiled(&'static [u8]),
    /// A refused body.
    Broken,
}

/// No HTTP head contains NUL. The empty line makes hyper look at once.
const SPOILER: &[u8] = b"\0\r\n\r\n";

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, state: Arc<ClientState>, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            state,
            limits,
            framing: Framing::default(),
            mode: Mode::Http,
            held: BytesMut::new(),
            last_read: now,
            head_since: None,
            idle_since: (0, now),
            read_timer: Box::pin(sleep_until(now + limits.first_byte)),
            write_timer: None,
        }
    }

    /// The bare stream, for the time after HTTP.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Whether the client has stopped taking what we send.
    pub(super) fn is_stalled(&self) -> bool {
        self.write_timer.is_some()
    }

    /// Lets the guard see what `buf` holds from `from` on, and cuts off what must not pass.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, from: usize) {
        match self.framing.scan(&buf.filled()[from..]) {
            Scan::Pass => {}
            Scan::Upgrade(at) => {
                // Puts what follows in front of what is still held.
                let mut held = BytesMut::from(&buf.filled()[from + at..]);
                held.extend_from_slice(&self.held);
                self.held = held;
                buf.set_filled(from + at);
                self.mode = Mode::Waiting;
            }
            Scan::Fault(at, fault) => {
                buf.set_filled(from + at);
                self.state.stop_for(Stop::Guard(fault));
                self.mode = if fault.in_head() {
                    Mode::Spoiled(SPOILER)
                } else {
                    Mode::Broken
                };
            }
        }
        match (self.framing.position(), self.head_since) {
            (Position::Head, None) => self.head_since = Some(self.last_read),
            (Position::Boundary | Position::Body, _) => self.head_since = None,
            (Position::Head, Some(_)) => {}
        }
    }

    /// Whether every request so far is answered.
    fn all_answered(&self) -> bool {
        self.state.answers() == self.framing.heads()
    }

    fn poll_http(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let from = buf.filled().len();
        if self.held.is_empty() {
            match Pin::new(&mut self.stream).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_deadline(cx),
            }
            if buf.filled().len() == from {
                self.state.end();
                return Poll::Ready(Ok(()));
            }
        } else {
            let length = self.held.len().min(buf.remaining());
            buf.put_slice(&self.held.split_to(length));
        }
        self.last_read = Instant::now();
        self.inspect(buf, from);
        if buf.filled().len() == from {
            // Nothing of it may pass; an empty read would mean the end.
            return self.poll_mode(cx, buf);
        }
        Poll::Ready(Ok(()))
    }

    /// One timer for the connection: it is set to the earliest moment at which the client can be late, and
    /// on firing, which is rare, looks what the client was doing since.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answered = self.state.answers();
        if self.idle_since.0 != answered {
            self.idle_since = (answered, Instant::now());
        }
        loop {
            let Some((late, deadline)) = self.deadline() else {
                // The client is not late, we are: look again after a while.
                ready!(self.read_timer.as_mut().poll(cx));
                self.read_timer
                    .as_mut()
                    .reset(Instant::now() + self.limits.head);
                continue;
            };
            if deadline < self.read_timer.deadline() {
                self.read_timer.as_mut().reset(deadline);
            }
            ready!(self.read_timer.as_mut().poll(cx));
            if Instant::now() < deadline {
                self.read_timer.as_mut().reset(deadline);
                continue;
            }
            match late {
                Late::Idle => {
                    self.state.end();
                    return Poll::Ready(Ok(()));
                }
                Late::Head => self.state.stop_for(Stop::HeaderTimeout),
                Late::Body => self.state.stop_for(Stop::BodyTimeout),
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
    }

    /// What the client owes us, and by when; `None` while it waits for us.
    fn deadline(&self) -> Option<(Late, Instant)> {
        let limits = &self.limits;
        let idle_since = self.idle_since.1;
        let (late, since, limit) = match self.framing.position() {
            Position::Body => (Late::Body, self.last_read, limits.body_idle),
            // Requests sent ahead wait for the answer to this one.
            _ if !self.all_answered() => return None,
            Position::Boundary if self.framing.heads() == 0 => {
                (Late::Idle, self.last_read, limits.first_byte)
            }
            Position::Boundary => (
                Late::Idle,
                self.last_read.max(idle_since),
                limits.keep_alive,
            ),
            Position::Head => {
                let head_since = self.head_since.unwrap_or(self.last_read);
                (Late::Head, head_since.max(idle_since), limits.head)
            }
        };
        Some((late, since + limit))
    }

    fn poll_mode(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.state.is_tunnel() {
            return self.poll_tunnel(cx, buf);
        }
        match self.mode {
            Mode::Http => self.poll_http(cx, buf),
            Mode::Waiting => {
                self.state.wake_when_answered(cx.waker());
                if !self.all_answered() {
                    return self.poll_held(cx);
                }
                self.mode = Mode::Http;
                self.poll_http(cx, buf)
            }
            Mode::Spoiled(bytes) => {
                let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
                buf.put_slice(now);
                self.mode = Mode::Spoiled(later);
                Poll::Ready(Ok(()))
            }
            Mode::Broken => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Takes in what comes early, because only who reads is told that the client has left.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; 1024];
        while self.held.len() < HELD_LIMIT {
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                self.state.end();
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(piece.filled());
        }
        Poll::Pending
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.held.advance(length);
        Poll::Ready(Ok(()))
    }

    /// `written` unless the client has not taken anything for too long.
    fn poll_write_deadline(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let limit = self.limits.write_stall;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

#[derive(Clone, Copy)]
enum Late {
    Idle,
    Head,
    Body,
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_write_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Takes in what a client still sends after the last answer: closing on unread bytes makes the kernel send a
/// reset, which can destroy that answer on its way. Bounded, and then closed regardless.
pub(super) async fn linger(socket: &TcpStream) {
    let mut left = LINGER_BYTES;
    let mut sink = [0; 4096];
    let drain = async {
        while left > 0 && socket.readable().await.is_ok() {
            match socket.try_read(&mut sink) {
                Ok(0) => break,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    // Late is as good as done.
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
}

/// A client that sends more before it is answered waits in the kernel, and may leave unnoticed.
const HELD_LIMIT: usize = 16 * 1024;
const LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);
