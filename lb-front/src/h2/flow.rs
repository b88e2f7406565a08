//! The requests of one HTTP/2 connection. hyper runs each in a task, in which it waits for the client's window before
//! it asks the answer for more: nobody would notice that the window never opens.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Body, Frame, SizeHint},
    rt::Executor,
};
use tokio::{
    task::spawn_local,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    piece::{Handed, Piece},
    watch::Abuse,
};
use crate::{body::Download, crowd::Token};

/// What the requests of one connection have in common.
pub(super) struct Streams {
    stall: Duration,
    begun: Cell<u64>,
    /// Pieces of answers, of all requests.
    pieces: Cell<u64>,
    open: Cell<u64>,
    /// Requests that the client gave up.
    aborted: Cell<u64>,
    /// When the last one ended, or the connection began.
    idle_since: Cell<Instant>,
    /// Whether a client does not take the end of an answer, which only the connection's end frees.
    stuck: Cell<bool>,
    abuse: Cell<Option<Abuse>>,
    /// The request that was just begun: hyper makes a task of it next.
    next: RefCell<Option<Rc<Flow>>>,
}

impl Streams {
    /// Answers that are not taken for `stall` are given up.
    pub(super) fn new(stall: Duration) -> Rc<Self> {
        Rc::new(Self {
            stall,
            begun: Cell::default(),
            pieces: Cell::default(),
            open: Cell::default(),
            aborted: Cell::default(),
            idle_since: Cell::new(Instant::now()),
            stuck: Cell::default(),
            abuse: Cell::default(),
            next: RefCell::default(),
        })
    }

    /// One more request; `token` is what its client is counted by.
    pub(super) fn begin(self: &Rc<Self>, token: Option<Token>) -> Rc<Flow> {
        self.begun.set(self.begun.get() + 1);
        self.open.set(self.open.get() + 1);
        let flow = Rc::new(Flow {
            streams: self.clone(),
            answered: Cell::default(),
            frames: Cell::default(),
            waits: Cell::default(),
            over: Cell::default(),
            handed: Rc::default(),
            _token: token,
        });
        self.next.replace(Some(flow.clone()));
        flow
    }

    /// How many requests there were.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// How many pieces their answers had so far, each a DATA frame of its own at least.
    pub(super) fn pieces(&self) -> u64 {
        self.pieces.get()
    }

    /// Since when there is none in flight.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.open.get() == 0).then(|| self.idle_since.get())
    }

    /// Whether there is an answer that is over for hyper, and whose end the client does not take.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    /// The client is not served any longer. The first reason stands.
    pub(super) fn accuse(&self, abuse: Abuse) {
        self.abuse.set(self.abuse.get().or(Some(abuse)));
    }

    pub(super) fn abuse(&self) -> Option<Abuse> {
        self.abuse.get()
    }
}

/// One request from its head until the socket has the end of its answer.
pub(super) struct Flow {
    streams: Rc<Streams>,
    /// Whether the answer has begun.
    answered: Cell<bool>,
    /// Pieces of the answer so far.
    frames: Cell<u64>,
    /// Whether it is the answer that keeps the client waiting.
    waits: Cell<bool>,
    /// Whether there is nothing more of the answer for the client.
    over: Cell<bool>,
    handed: Rc<Handed>,
    _token: Option<Token>,
}

impl Flow {
    /// What tells the wait for the client's window from progress; `None` while it is not the client who is waited for.
    fn owed(&self) -> Option<u64> {
        (self.answered.get() && !self.waits.get()).then(|| self.frames.get())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let streams = &self.streams;
        streams.open.set(streams.open.get() - 1);
        streams.idle_since.set(Instant::now());
        if self.over.get() {
            return;
        }
        let aborted = streams.aborted.get() + 1;
        streams.aborted.set(aborted);
        if aborted > ABORTS && aborted > streams.begun() / 2 {
            streams.accuse(Abuse::RapidReset);
        }
    }
}

/// An answer on its way to the client. hyper gets it in small pieces: it asks for the next one once the client has taken the last
/// one, and nothing else tells a client that is slow from one that takes nothing.
pub(super) struct Flowing {
    body: Download,
    /// What of its last piece hyper does not have yet.
    rest: Bytes,
    flow: Rc<Flow>,
}

impl Flowing {
    pub(super) fn new(body: Download, flow: Rc<Flow>) -> Self {
        flow.answered.set(true);
        flow.over.set(body.is_end_stream());
        let rest = Bytes::new();
        Self { body, rest, flow }
    }
}

impl Body for Flowing {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let this = &mut *self;
        let frame = match this.rest.is_empty() {
            true => Pin::new(&mut this.body).poll_frame(cx),
            false => Poll::Ready(Some(Ok(Frame::data(mem::take(&mut this.rest))))),
        };
        let frame = frame.map_ok(|frame| match frame.into_data() {
            Ok(mut bytes) => {
                this.rest = bytes.split_off(bytes.len().min(PIECE));
                Frame::data(Piece::new(bytes, &this.flow.handed))
            }
            Err(frame) => Frame::trailers(frame.into_trailers().unwrap_or_default()),
        });
        let flow = &this.flow;
        flow.waits.set(frame.is_pending());
        if let Poll::Ready(frame) = &frame {
            flow.frames.set(flow.frames.get() + 1);
            let goes_on = matches!(frame, Some(Ok(frame)) if frame.is_data());
            let pieces = &flow.streams.pieces;
            pieces.set(pieces.get() + u64::from(goes_on));
            flow.over.set(!goes_on || this.is_end_stream());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(most) = hint.upper() {
            hint.set_upper(most + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Runs hyper's tasks, one for each request, on the connection's thread. Ends one whose answer is not taken, which
/// resets it and lets its backend go.
#[derive(Clone)]
pub(super) struct Tasks(pub(super) Rc<Streams>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let Some(flow) = self.0.next.take() else {
            spawn_local(task);
            return;
        };
        let limit = self.0.stall;
        // On its way to where it runs a task is moved eight times.
        let mut task = Box::pin(task);
        spawn_local(async move {
            let mut stall = None;
            let mut timer: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|cx| {
                if task.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(frames) = flow.owed() else {
                    stall = None;
                    return Poll::Pending;
                };
                let since = match stall {
                    Some((since, seen)) if seen == frames => since,
                    _ => Instant::now(),
                };
                stall = Some((since, frames));
                // Set anew only once it fires.
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(since + limit)));
                loop {
                    ready!(timer.as_mut().poll(cx));
                    if since + limit <= Instant::now() {
                        // It is not the client that gives it up.
                        flow.over.set(true);
                        return Poll::Ready(());
                    }
                    timer.as_mut().reset(since + limit);
                }
            })
            .await;
            drop(task);
            if !flow.handed.is_taken(limit).await {
                flow.streams.stuck.set(true);
            }
        });
    }
}

/// As much as a frame carries unless the client wants larger ones.
const PIECE: usize = 16 * 1024;
/// So many given up requests, and more than half of all, are no accident.
const ABORTS: u64 = 100;
