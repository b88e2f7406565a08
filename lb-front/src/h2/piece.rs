//! What hyper has got of an answer and the client has not: h2 keeps it until the client's window opens for it, also when
//! hyper's task has ended long ago, and says nothing of it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::time::timeout;

/// How much of one answer that is.
#[derive(Default)]
pub(super) struct Handed {
    pieces: Cell<usize>,
    watcher: RefCell<Option<Waker>>,
}

impl Handed {
    /// Waits until nothing is left; `false` if nothing of it goes out for `limit`.
    pub(super) async fn is_taken(&self, limit: Duration) -> bool {
        while let left @ 1.. = self.pieces.get() {
            let fewer = poll_fn(|cx| self.poll_fewer(left, cx));
            if timeout(limit, fewer).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ready once there are fewer than `left`.
    fn poll_fewer(&self, left: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.pieces.get() < left {
            return Poll::Ready(());
        }
        self.watcher.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// A piece of an answer, which h2 drops once it is with the socket, or not wanted any more.
pub(super) struct Piece {
    bytes: Bytes,
    handed: Rc<Handed>,
}

impl Piece {
    pub(super) fn new(bytes: Bytes, handed: &Rc<Handed>) -> Self {
        handed.pieces.set(handed.pieces.get() + 1);
        let handed = handed.clone();
        Self { bytes, handed }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.handed.pieces.set(self.handed.pieces.get() - 1);
        if let Some(watcher) = self.handed.watcher.take() {
            watcher.wake();
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_for_each_piece_and_not_for_all() {
        let handed = Rc::new(Handed::default());
        assert!(handed.is_taken(LIMIT).await, "there is nothing");
        let mut pieces: Vec<_> = (0..3)
            .map(|_| Piece::new(Bytes::from_static(b"x"), &handed))
            .collect();
        let takes = async {
            while pieces.pop().is_some() {
                sleep(LIMIT / 4 * 3).await;
            }
        };
        let (taken, ()) = tokio::join!(handed.is_taken(LIMIT), takes);
        assert!(taken);
        let _kept = Piece::new(Bytes::from_static(b"x"), &handed);
        assert!(!handed.is_taken(LIMIT).await);
    }
}
