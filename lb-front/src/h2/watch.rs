//! The client's stream as hyper's HTTP/2 sees it: what is read is counted, what is written has a deadline, and the end
//! comes only once the client can have seen the rest.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{flow::Streams, frames::Frames};
use crate::{
    Limits,
    wire::{LINGER_BYTES, LINGER_TIME, Stall, Stream},
};

/// Why a client is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    /// It sends frames that ask for nothing: PING, SETTINGS, PRIORITY and the like.
    Flood,
    /// It asks, and takes back what it asked (CVE-2023-44487).
    RapidReset,
}

impl Abuse {
    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Flood => "http_2_flood",
            Self::RapidReset => "http_2_resets",
        }
    }
}

/// A client's stream between kernel and hyper.
pub(super) struct Watched<S> {
    stream: S,
    /// Bytes that were read to learn the protocol.
    held: BytesMut,
    streams: Rc<Streams>,
    frames: Frames,
    allowance: Allowance,
    limits: Limits,
    stall: Stall,
    /// What may still come after our end, and how long.
    linger: Option<(usize, Pin<Box<Sleep>>)>,
}

/// How many frames that ask for nothing a client may send.
struct Allowance {
    left: u64,
    /// When it was last full.
    since: Instant,
    /// Requests begun and pieces of answers until it was last looked at.
    turns: u64,
    /// Bytes sent since.
    written: u64,
}

impl Allowance {
    /// Whether `idle` more such frames are too many. Who asks and takes may acknowledge, too.
    fn is_spent(&mut self, idle: u32, turns: u64) -> bool {
        let earned = self.written / BYTES_EACH + (turns - self.turns) * FRAMES_EACH;
        self.left = (self.left + earned).min(ALLOWANCE * 16);
        self.written %= BYTES_EACH;
        self.turns = turns;
        let now = Instant::now();
        if now - self.since >= Duration::from_secs(1) {
            self.since = now;
            self.left = self.left.max(ALLOWANCE);
        }
        match self.left.checked_sub(idle.into()) {
            Some(left) => self.left = left,
            None => return true,
        }
        false
    }
}

impl<S: Stream> Watched<S> {
    pub(super) fn new(stream: S, held: BytesMut, streams: Rc<Streams>, limits: Limits) -> Self {
        Self {
            stream,
            held,
            streams,
            frames: Frames::new(),
            allowance: Allowance {
                left: ALLOWANCE,
                since: Instant::now(),
                turns: 0,
                written: 0,
            },
            limits,
            stall: Stall::default(),
            linger: None,
        }
    }

    fn inspect(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let idle = self.frames.scan(bytes);
        let turns = self.streams.begun() + self.streams.pieces();
        if idle > 0 && self.allowance.is_spent(idle, turns) {
            self.streams.accuse(Abuse::Flood);
        }
        if self.streams.abuse().is_none() {
            return Ok(());
        }
        // Past hyper, which may be in the middle of a frame: then it is not understood, and the end is.
        let _ = Pin::new(&mut self.stream).poll_write(cx, CALM);
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let from = buf.filled().len();
        if this.held.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let length = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held.split_to(length));
        }
        Poll::Ready(this.inspect(cx, &buf.filled()[from..]))
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // As in HTTP/1.
        if S::SECURE {
            let limit = self.limits.write_stall;
            return self.stall.poll(cx, limit, flushed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        // Closing on unread bytes would be a reset, which can destroy our last frames on their way.
        let (left, timer) = this
            .linger
            .get_or_insert_with(|| (LINGER_BYTES, Box::pin(sleep(LINGER_TIME))));
        let mut sink = [0; 4096];
        while *left > 0 && timer.as_mut().poll(cx).is_pending() {
            let mut sink = ReadBuf::new(&mut sink);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut sink))?;
            if sink.filled().is_empty() {
                break;
            }
            *left = left.saturating_sub(sink.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Watched<S> {
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.allowance.written += *bytes as u64;
        }
        self.stall.poll(cx, self.limits.write_stall, written)
    }
}

/// GOAWAY with `ENHANCE_YOUR_CALM` (RFC 9113 section 6.8).
const CALM: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0b";
/// Frames that ask for nothing in a second, and with each request and each piece of an answer, however small, and for so many
/// bytes that the client gets: WINDOW_UPDATE and the pings that measure a path come with these. grpc-go answers a message with both.
const ALLOWANCE: u64 = 1000;
const FRAMES_EACH: u64 = 4;
const BYTES_EACH: u64 = 256;
