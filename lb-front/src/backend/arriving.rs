//! The body of a backend's answer as it comes, in either protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::h2c;

pub(crate) enum Arriving {
    One(Incoming),
    Two(h2c::Body),
}

impl Arriving {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::One(incoming) => {
                let frame = Pin::new(incoming).poll_frame(cx);
                frame.map(|frame| frame.map(|frame| frame.map_err(io::Error::other)))
            }
            Self::Two(body) => body.poll_frame(cx),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::One(incoming) => incoming.is_end_stream(),
            Self::Two(body) => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::One(incoming) => incoming.size_hint(),
            Self::Two(body) => body.size_hint(),
        }
    }
}
