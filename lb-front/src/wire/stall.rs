//! Clients that take nothing of what they are sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

/// How long a client takes nothing of what we send: a timer that exists while it does so.
#[derive(Default)]
pub(crate) struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Whether the client takes nothing at present.
    pub(crate) fn lasts(&self) -> bool {
        self.0.is_some()
    }

    /// `written` unless the client has not taken anything for longer than `limit`.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.0 = None;
            return written;
        }
        let timer = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}
