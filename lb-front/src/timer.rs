//! A timer that is asked often and fires rarely.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Knows when a moment has passed that lies further away each time. It is set anew only once it has fired, or for an
/// earlier moment: with a timer for each wait, most of the work would be to begin and to end them.
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// For moments up to about `first`, at first.
    pub(crate) fn new(first: Instant) -> Self {
        Self(Box::pin(sleep_until(first)))
    }

    /// Ready once `deadline` has passed. May wake the task before that, for nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = &mut self.0;
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_may_move_either_way_and_nothing_fires_before_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut timer = Timer::new(after(10));
        for (now, deadline, passed) in [
            (0, 60, false),
            (11, 61, false), // Its own moment has passed, this one has not.
            (12, 30, false),
            (29, 30, false),
            (30, 30, true),
            (30, 90, false), // One that has fired is good again.
            (89, 90, false),
            (91, 90, true),
        ] {
            advance(after(now) - Instant::now()).await;
            let polled = poll_fn(|cx| Poll::Ready(timer.poll(cx, after(deadline)))).await;
            assert_eq!(polled.is_ready(), passed, "{now} {deadline}");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        poll_fn(|cx| timer.poll(cx, deadline)).await;
        assert!(Instant::now() >= deadline);
    }
}
