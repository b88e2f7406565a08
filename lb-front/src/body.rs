//! The bodies that pass through the front, in both directions.

mod compressed;

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header,
};
use tokio::time::Instant;

use super::{
    Limits,
    answer::Reason,
    backend::{Arriving, Loan},
    exchange::Exchange,
    grpc,
    pace::Pace,
    request::BodyKind,
    timer::Timer,
};
use compressed::{Compressed, Gzip};

/// What a client gets.
pub(super) enum Download {
    /// An answer of our own.
    Own {
        bytes: Option<Bytes>,
        /// Ends with the answer.
        _exchange: Exchange,
    },
    /// A backend's.
    Passed(Passed),
    /// A backend's that is compressed on its way.
    Compressed(Box<Compressed>),
    /// None: the connection is a tunnel from here on.
    Switched,
}

/// A backend's body on its way to the client.
pub(super) struct Passed {
    incoming: Arriving,
    /// Goes back to the pool once the body has ended.
    loan: Option<Loan>,
    exchange: Exchange,
    idle_limit: Duration,
    /// By when it must have ended, if there is such a moment.
    until: Option<Instant>,
    /// Since when the backend keeps us waiting.
    waits: Option<Instant>,
}

impl Download {
    pub(super) fn own(response: Response<Bytes>, mut exchange: Exchange) -> Response<Self> {
        let response = match exchange.is_call() {
            true => grpc::reply(&response),
            false => response,
        };
        let (mut parts, bytes) = response.into_parts();
        let length = bytes.len();
        // hyper leaves the body away only in HTTP/1, and announces an empty one as one to come only in HTTP/2.
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty() && !exchange.is_head());
        if bytes.is_some() {
            exchange.passed_down(length);
        } else if length > 0 {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let body = Self::Own {
            bytes,
            _exchange: exchange,
        };
        Response::from_parts(parts, body)
    }

    pub(super) fn passed(
        incoming: Arriving,
        loan: Loan,
        mut exchange: Exchange,
        status: StatusCode,
        idle_limit: Duration,
    ) -> Self {
        // Until its end is reached, the end is the client's doing.
        exchange.answer(status, Reason::ClientAbort);
        let mut passed = Passed {
            incoming,
            loan: Some(loan),
            exchange,
            idle_limit,
            until: None,
            waits: None,
        };
        if passed.incoming.is_end_stream() {
            passed.finish();
        }
        Self::Passed(passed)
    }

    /// A backend's has to end by then.
    pub(super) fn end_by(&mut self, until: Instant) {
        if let Self::Passed(passed) = self {
            passed.until = Some(until);
        }
    }

    /// Has it compressed, if it is a backend's with something to come and there is room for that.
    pub(super) fn compress(&mut self) -> bool {
        if !matches!(self, Self::Passed(passed) if passed.loan.is_some() && !passed.exchange.is_head())
        {
            return false;
        }
        let Some(gzip) = Gzip::begin() else {
            return false;
        };
        let Self::Passed(passed) = std::mem::replace(self, Self::Switched) else {
            return false;
        };
        *self = Self::Compressed(Box::new(Compressed::new(passed, gzip)));
        true
    }
}

impl Passed {
    fn finish(&mut self) {
        self.exchange.end(Reason::Ok);
        if let Some(loan) = self.loan.take() {
            loan.give_back();
        }
    }

    fn fail(&mut self, reason: Reason) -> io::Error {
        self.exchange.end(reason);
        self.loan = None;
        io::Error::other(reason.as_str())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(self.poll_uncounted(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.exchange.passed_down(length);
        }
        Poll::Ready(frame)
    }

    /// The same without saying that the client gets it as it is.
    fn poll_uncounted(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // A client that is slow to take it has it looked at now and then, and never waited for.
        if self.until.is_some_and(|until| until <= Instant::now()) && self.loan.is_some() {
            return Poll::Ready(Some(Err(self.fail(Reason::RequestTimeout))));
        }
        let frame = match self.incoming.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let since = *self.waits.get_or_insert_with(Instant::now);
                let stalled = since + self.idle_limit;
                let deadline = self.until.map_or(stalled, |until| until.min(stalled));
                if let Some(loan) = &mut self.loan {
                    ready!(loan.timer().poll(cx, deadline));
                }
                let reason = match deadline < stalled {
                    true => Reason::RequestTimeout,
                    false => Reason::ResponseStalled,
                };
                return Poll::Ready(Some(Err(self.fail(reason))));
            }
        };
        self.waits = None;
        Poll::Ready(match frame {
            Some(Err(error)) => {
                // While both talk, it may have been the client.
                let reason = self.exchange.client_failure();
                self.fail(reason.unwrap_or(Reason::ResponseTruncated));
                Some(Err(error))
            }
            Some(Ok(frame)) => {
                // hyper asks for nothing after trailers.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
                Some(Ok(frame))
            }
            None => {
                self.finish();
                None
            }
        })
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Own { bytes, .. } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Passed(passed) => passed.poll(cx),
            Self::Compressed(compressed) => compressed.poll(cx),
            Self::Switched => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { bytes, .. } => bytes.is_none(),
            Self::Passed(passed) => passed.incoming.is_end_stream(),
            Self::Compressed(compressed) => compressed.is_over(),
            Self::Switched => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Passed(passed) => passed.incoming.size_hint(),
            Self::Compressed(_) => SizeHint::default(),
            Self::Switched => SizeHint::with_exact(0),
        }
    }
}

/// A client's body on its way to the backend. hyper asks for it only once a connection stands, which is also
/// when `100 Continue` goes out.
pub(super) struct Upload {
    incoming: Option<Incoming>,
    progress: Rc<Progress>,
    /// Bytes that it may have.
    most: u64,
    /// Only where nobody else hurries the client.
    hurry: Option<Box<Hurry>>,
    /// What was taken of it and comes once more.
    again: Option<Box<Again>>,
}

/// Pieces of a body that come once more.
struct Again(VecDeque<Frame<Bytes>>);

/// What a client's body may take.
struct Hurry {
    pace: Pace,
    idle: Duration,
    rate: u64,
    timer: Timer,
}

impl Hurry {
    /// Ready when the client is late.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = self.pace.wait(Instant::now());
        let deadline = self.pace.deadline(since, self.idle, self.rate);
        self.timer.poll(cx, deadline)
    }
}

/// How far a client's body is, as seen from beside.
#[derive(Debug, Default)]
pub(super) struct Progress {
    frames: Cell<u64>,
    bytes: Cell<u64>,
    ended: Cell<bool>,
    failed: Cell<bool>,
    late: Cell<bool>,
    too_large: Cell<bool>,
    taken_back: Cell<bool>,
    starved: Cell<bool>,
}

impl Progress {
    pub(super) fn frames(&self) -> u64 {
        self.frames.get()
    }

    /// Bytes of it that went to the backend.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether all of it went to the backend.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the client did not deliver what it announced.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Whether it is the client that is waited for.
    pub(super) fn is_starved(&self) -> bool {
        self.starved.get()
    }

    /// Whether it took the request back.
    pub(super) fn was_taken_back(&self) -> bool {
        self.taken_back.get()
    }

    /// Whether it was longer than it may be.
    pub(super) fn was_too_large(&self) -> bool {
        self.too_large.get()
    }

    /// Whether it was too slow to.
    pub(super) fn was_late(&self) -> bool {
        self.late.get()
    }
}

impl Upload {
    /// Of at most so many bytes.
    pub(super) fn new(incoming: Incoming, most: u64) -> Self {
        let empty = incoming.is_end_stream();
        Self {
            incoming: (!empty).then_some(incoming),
            progress: Rc::new(Progress {
                ended: Cell::new(empty),
                ..Progress::default()
            }),
            most,
            hurry: None,
            again: None,
        }
    }

    /// From now on the client has no more time than `limits` allow.
    pub(super) fn hurry(&mut self, limits: &Limits) {
        if self.incoming.is_some() {
            self.hurry = Some(Box::new(Hurry {
                pace: Pace::default(),
                idle: limits.body_idle,
                rate: limits.body_rate,
                timer: Timer::new(Instant::now() + limits.body_idle),
            }));
        }
    }

    /// The client talks with the backend: only a silence as long as `idle` ends that.
    pub(super) fn relax(&mut self, idle: Duration) {
        if let Some(hurry) = &mut self.hurry {
            hurry.pace = Pace::default();
            (hurry.idle, hurry.rate) = (idle, 0);
        }
    }

    /// Begins with `frames` again, which were taken of it.
    pub(super) fn repeat(&mut self, frames: Vec<Frame<Bytes>>) {
        let mut again = VecDeque::from(frames);
        again.extend(self.again.take().into_iter().flat_map(|rest| rest.0));
        self.again = (!again.is_empty()).then(|| Box::new(Again(again)));
    }

    /// The body of a repeated request that has none.
    pub(super) fn empty(progress: Rc<Progress>) -> Self {
        Self {
            incoming: None,
            progress,
            most: 0,
            hurry: None,
            again: None,
        }
    }

    pub(super) fn progress(&self) -> Rc<Progress> {
        self.progress.clone()
    }

    pub(super) fn kind(&self) -> BodyKind {
        match &self.incoming {
            None => BodyKind::Empty,
            Some(incoming) if incoming.size_hint().exact().is_some() => BodyKind::Known,
            Some(_) => BodyKind::Unknown,
        }
    }
}

/// Whether a client over HTTP/2 said so, as opposed to breaking a rule.
fn is_reset(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(h2::Error::is_remote)
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(again) = &mut this.again {
            let frame = again.0.pop_front();
            this.again = this.again.take().filter(|it| !it.0.is_empty());
            // It is not the client that is waited for.
            this.progress.starved.set(false);
            return Poll::Ready(frame.map(Ok));
        }
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let progress = &this.progress;
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        progress.starved.set(polled.is_pending());
        let frame = match (polled, &mut this.hurry) {
            (Poll::Ready(frame), _) => frame,
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(hurry)) => {
                ready!(hurry.poll(cx));
                progress.late.set(true);
                progress.failed.set(true);
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
        };
        if let Some(hurry) = &mut this.hurry {
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            hurry.pace.take(data.map_or(0, Bytes::len), Instant::now());
        }
        progress.frames.set(progress.frames.get() + 1);
        match &frame {
            None => progress.ended.set(true),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let bytes = progress.bytes.get() + length;
                if bytes > this.most {
                    progress.too_large.set(true);
                    progress.failed.set(true);
                    return Poll::Ready(Some(Err(io::ErrorKind::FileTooLarge.into())));
                }
                progress.bytes.set(bytes);
                let ended = frame.is_trailers() || incoming.is_end_stream();
                progress.ended.set(ended);
            }
            Some(Err(error)) => {
                progress.failed.set(true);
                progress.taken_back.set(is_reset(error));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_none() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let again = self.again.iter().flat_map(|again| again.0.iter());
        let again: u64 = again
            .filter_map(Frame::data_ref)
            .map(|it| it.len() as u64)
            .sum();
        match self
            .incoming
            .as_ref()
            .map_or(Some(0), |it| it.size_hint().exact())
        {
            Some(left) => SizeHint::with_exact(left + again),
            None => SizeHint::default(),
        }
    }
}
