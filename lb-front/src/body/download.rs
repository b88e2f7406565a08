//! What a client gets: an answer of our own, or the body of a backend on its way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header,
};
use tokio::time::Instant;

use super::compressed::{Compressed, Gzip};
use crate::{
    answer::Reason,
    backend::{Arriving, Loan},
    exchange::Exchange,
    grpc,
};

/// What a client gets.
pub(crate) enum Download {
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
pub(crate) struct Passed {
    pub(super) incoming: Arriving,
    /// Goes back to the pool once the body has ended.
    pub(super) loan: Option<Loan>,
    pub(super) exchange: Exchange,
    idle_limit: Duration,
    /// By when it must have ended, if there is such a moment.
    until: Option<Instant>,
    /// Since when the backend keeps us waiting.
    waits: Option<Instant>,
}

impl Download {
    pub(crate) fn own(response: Response<Bytes>, mut exchange: Exchange) -> Response<Self> {
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

    pub(crate) fn passed(
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
    pub(crate) fn end_by(&mut self, until: Instant) {
        if let Self::Passed(passed) = self {
            passed.until = Some(until);
        }
    }

    /// Has it compressed, if it is a backend's with something to come and there is room for that.
    pub(crate) fn compress(&mut self) -> bool {
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
    pub(super) fn poll_uncounted(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
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
