//! The body of an answer over HTTP/2. What the client does not take is not asked for: the backend's window opens by what
//! goes on.

use std::{
    error::Error,
    fmt, io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use hyper::body::{Frame, SizeHint};

use super::drive::Pulse;

pub(crate) struct Body {
    stream: RecvStream,
    pulse: Rc<Pulse>,
    /// What of the announced length has not come.
    left: Option<u64>,
    /// Whether only trailers can follow.
    trailing: bool,
}

impl Body {
    /// An answer's, whose head announces `length`.
    pub(super) fn new(stream: RecvStream, pulse: Rc<Pulse>, length: Option<u64>) -> Self {
        Self {
            stream,
            pulse,
            left: length,
            trailing: false,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.trailing {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    self.pulse.said_something();
                    // Of a stream that has ended there is nothing to release.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(bytes.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(cut(&error)))),
                None => self.trailing = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(cut(&error))),
        })
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// The end of an answer in its middle, as a client over HTTP/2 gets it: hyper looks for the reason behind the error.
fn cut(error: &h2::Error) -> io::Error {
    io::Error::other(Cut(passed(error).into()))
}

/// What is said of a request goes on. All else is between the backend and us, such as that it has not begun
/// (`REFUSED_STREAM`), which is no longer so for the client.
fn passed(error: &h2::Error) -> Reason {
    match error
        .reason()
        .filter(|_| error.is_remote() && error.is_reset())
    {
        Some(
            reason @ (Reason::CANCEL | Reason::ENHANCE_YOUR_CALM | Reason::INADEQUATE_SECURITY),
        ) => reason,
        _ => Reason::INTERNAL_ERROR,
    }
}

#[derive(Debug)]
struct Cut(h2::Error);

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer ended in its middle")
    }
}

impl Error for Cut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
