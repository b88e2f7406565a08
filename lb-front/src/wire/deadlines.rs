//! How long the client may take: for a head, for a body, between requests, and to take what is sent.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{Stream, Wire};
use crate::{client::Stop, guard::Position};

impl<S: Stream> Wire<S> {
    /// One timer for the connection: it is set to the earliest moment at which the client can be late, and
    /// on firing, which is rare, looks what the client was doing since.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answered = self.state.answers();
        if self.idle_since.0 != answered {
            self.idle_since = (answered, Instant::now());
        }
        let Some((late, deadline)) = self.deadline() else {
            // The client is not late, we are: look again after a while.
            let later = Instant::now() + self.limits.head;
            let _ = self.read_timer.poll(cx, later);
            return Poll::Pending;
        };
        ready!(self.read_timer.poll(cx, deadline));
        match late {
            Late::Silent => {
                self.kept = self.warm.keep();
                if self.kept.is_some() {
                    return self.poll_deadline(cx);
                }
                self.state.fall_silent();
                return Poll::Pending;
            }
            Late::Idle => {
                self.state.end();
                return Poll::Ready(Ok(()));
            }
            Late::Head => self.state.stop_for(Stop::HeaderTimeout),
            Late::Body => self.state.stop_for(Stop::BodyTimeout),
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// What the client owes us, and by when; `None` while it waits for us.
    fn deadline(&mut self) -> Option<(Late, Instant)> {
        let limits = &self.limits;
        let idle_since = self.idle_since.1;
        let (late, since, limit) = match self.framing.position() {
            Position::Body => {
                let since = self.pace.wait(Instant::now());
                let deadline = self
                    .pace
                    .deadline(since, limits.body_idle, limits.body_rate);
                return Some((Late::Body, deadline));
            }
            // A client that has only closed its half is told from one that has left by nothing but time.
            _ if !self.all_answered() => (Late::Idle, self.half_closed?, limits.half_closed),
            // The last answer is still on its way.
            Position::Boundary if self.stall.lasts() => return None,
            Position::Boundary => {
                let (late, limit) = if limits.keep_alive > SILENCE && self.kept.is_none() {
                    (Late::Silent, SILENCE)
                } else {
                    (Late::Idle, limits.keep_alive)
                };
                (late, self.last_read.max(idle_since), limit)
            }
            Position::Head => {
                let head_since = self.head_since.unwrap_or(self.last_read);
                (Late::Head, head_since.max(idle_since), limits.head)
            }
        };
        Some((late, since + limit))
    }

    /// `written` unless the client has not taken anything for too long.
    pub(super) fn poll_write_deadline(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready()
            && let Some(since) = &mut self.half_closed
        {
            *since = Instant::now();
        }
        self.stall.poll(cx, self.limits.write_stall, written)
    }
}

#[derive(Clone, Copy)]
enum Late {
    /// For so long that it need not have hyper.
    Silent,
    Idle,
    Head,
    Body,
}

/// After which a client gives up its buffers: no shorter than the pauses of a busy one.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);
