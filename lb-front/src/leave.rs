//! When a client's connection is told that the front ends it. Best with an answer: HTTP/1 has no other word that cannot cross
//! a request on its way.

use std::{cell::Cell, time::Duration};

use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

/// The requests that have come on one connection.
#[derive(Default)]
pub(super) struct Begun {
    count: Cell<u32>,
    /// Those with the head of an answer, which says whether the connection ends.
    answered: Cell<u32>,
    more: Notify,
}

impl Begun {
    /// One more.
    pub(super) fn one(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        self.more.notify_one();
    }

    /// One has the head of its answer.
    pub(super) fn answered(&self) {
        self.answered.set(self.answered.get().wrapping_add(1));
    }

    /// Ends while there is one without.
    async fn waits(&self) {
        loop {
            if self.count != self.answered {
                return;
            }
            self.more.notified().await;
        }
    }
}

/// Ends when the connection of a front that leaves is to be told: while a request has no head of an answer yet, or when there
/// is no more time for one.
pub(super) async fn moment(hurry: &CancellationToken, begun: &Begun) {
    let late = async {
        hurry.cancelled().await;
        if begun.count.get() == 0 {
            // One that was just taken from the queue brings its request along: closed now, it would lose it.
            sleep(FIRST_REQUEST).await;
        }
    };
    tokio::select! {
        () = begun.waits() => {}
        () = late => {}
    }
}

/// How long a client that has sent nothing yet may take to begin.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(1);
