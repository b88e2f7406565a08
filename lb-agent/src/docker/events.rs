//! The stream of events, an event a line.

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    error::RequestError,
    event::{self, Told},
};

/// Where it is.
pub(super) const EVENTS: &str = "/events";

/// Bytes of an event: it carries the labels of its container.
pub(super) const LONGEST_EVENT: usize = 1 << 20;

/// The stream of events.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    /// The stream that `body` is.
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
        }
    }

    /// The next event that concerns a container or the networks. It may be dropped and asked for again without losing one.
    pub(super) async fn next(&mut self) -> Result<Told, RequestError> {
        loop {
            while let Some(line) = self.line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let told = event::parse(&line).map_err(|source| RequestError::Garbage {
                    path: EVENTS.to_owned(),
                    source,
                })?;
                if let Some(told) = told {
                    return Ok(told);
                }
            }
            if self.buffer.len() > LONGEST_EVENT {
                return Err(RequestError::EventTooLong);
            }
            match self.body.frame().await {
                None => return Err(RequestError::EventsEnded),
                Some(Err(source)) => {
                    return Err(RequestError::Http {
                        path: EVENTS.to_owned(),
                        source: source.into(),
                    });
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
        Some(self.buffer.split_to(end + 1))
    }
}
