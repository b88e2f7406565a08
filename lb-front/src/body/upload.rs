//! What a backend gets: the body of a client on its way.

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
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::{
    Limits,
    pace::Pace,
    request::{self, BodyKind},
    timer::Timer,
};

/// A client's body on its way to the backend. hyper asks for it only once a connection stands, which is also
/// when `100 Continue` goes out.
pub(crate) struct Upload {
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
pub(crate) struct Progress {
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
    pub(crate) fn frames(&self) -> u64 {
        self.frames.get()
    }

    /// Bytes of it that went to the backend.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether all of it went to the backend.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the client did not deliver what it announced.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Whether it is the client that is waited for.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.get()
    }

    /// Whether it took the request back.
    pub(crate) fn was_taken_back(&self) -> bool {
        self.taken_back.get()
    }

    /// Whether it was longer than it may be.
    pub(crate) fn was_too_large(&self) -> bool {
        self.too_large.get()
    }

    /// Whether it was too slow to.
    pub(crate) fn was_late(&self) -> bool {
        self.late.get()
    }
}

impl Upload {
    /// Of at most so many bytes.
    pub(crate) fn new(incoming: Incoming, most: u64) -> Self {
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
    pub(crate) fn hurry(&mut self, limits: &Limits) {
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
    pub(crate) fn relax(&mut self, idle: Duration) {
        if let Some(hurry) = &mut self.hurry {
            hurry.pace = Pace::default();
            (hurry.idle, hurry.rate) = (idle, 0);
        }
    }

    /// Begins with `frames` again, which were taken of it.
    pub(crate) fn repeat(&mut self, frames: Vec<Frame<Bytes>>) {
        let mut again = VecDeque::from(frames);
        again.extend(self.again.take().into_iter().flat_map(|rest| rest.0));
        self.again = (!again.is_empty()).then(|| Box::new(Again(again)));
    }

    /// The body of a repeated request that has none.
    pub(crate) fn empty(progress: Rc<Progress>) -> Self {
        Self {
            incoming: None,
            progress,
            most: 0,
            hurry: None,
            again: None,
        }
    }

    pub(crate) fn progress(&self) -> Rc<Progress> {
        self.progress.clone()
    }

    pub(crate) fn kind(&self) -> BodyKind {
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

/// What of a frame a backend may get, in whichever protocol.
fn passable(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(request::passable_trailers(trailers)),
        Err(data) => data,
    }
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
        Poll::Ready(frame.map(|frame| frame.map(passable).map_err(io::Error::other)))
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
