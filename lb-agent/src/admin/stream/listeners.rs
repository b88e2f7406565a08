//! Who listens, and what each is sent of what every moment tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    sync::broadcast,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::tick::{EVERYBODY, Tick};
use crate::admin::session::End;

/// Everybody who listens.
#[derive(Debug)]
pub(in crate::admin) struct Streams {
    pub(super) ticks: broadcast::Sender<Arc<Tick>>,
    seen: Mutex<Seen>,
    stop: CancellationToken,
}

/// Who sees which services.
#[derive(Debug, Default)]
pub(super) struct Seen {
    next: u64,
    pub(super) by: BTreeMap<u64, Arc<BTreeSet<String>>>,
}

impl Streams {
    pub(in crate::admin) fn new(stop: CancellationToken) -> Self {
        Self {
            ticks: broadcast::Sender::new(BEHIND),
            seen: Mutex::default(),
            stop,
        }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; `None` if all are taken.
    pub(super) fn enter(
        self: &Arc<Self>,
        labels: BTreeSet<String>,
        shows: Option<String>,
        session: Option<End>,
    ) -> Option<Listener> {
        // Before the place is, so that no tick is missed.
        let ticks = self.ticks.subscribe();
        let labels = Arc::new(labels);
        let mut seen = self.seen();
        if seen.by.len() >= LISTENERS {
            return None;
        }
        let number = seen.next;
        seen.next += 1;
        seen.by.insert(number, Arc::clone(&labels));
        Some(Listener {
            streams: Arc::clone(self),
            number,
            labels,
            everybody: EVERYBODY,
            ticks,
            shows,
            session,
            complete: false,
            lost: false,
            greeted: false,
            over: false,
        })
    }
}

/// One who listens; his place is free when this is dropped.
pub(super) struct Listener {
    streams: Arc<Streams>,
    number: u64,
    labels: Arc<BTreeSet<String>>,
    /// The label of what he is told beside those.
    pub(super) everybody: &'static str,
    ticks: broadcast::Receiver<Arc<Tick>>,
    /// What his page shows, until the first tick has been compared with that.
    shows: Option<String>,
    /// The session that he showed: his stream ends with it.
    session: Option<End>,
    /// Whether he has had every text once.
    complete: bool,
    /// Whether he has lost something since.
    lost: bool,
    greeted: bool,
    /// Whether he was told that his session has ended.
    over: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.streams.seen().by.remove(&self.number);
    }
}

impl Listener {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(HELLO));
        }
        let stop = self.streams.stop.clone();
        let quiet = Instant::now() + QUIET;
        let mut over = std::pin::pin!(over(self.session.clone()));
        loop {
            let tick = tokio::select! {
                // Before what there is to tell, which may be something all the time.
                biased;
                () = stop.cancelled() => return None,
                () = &mut over => {
                    self.over = true;
                    return Some(Bytes::from_static(OVER));
                }
                // Proxies on the way close what is silent, and a client that is gone is noticed by this only.
                () = sleep_until(quiet) => return Some(Bytes::from_static(ALIVE)),
                tick = self.ticks.recv() => tick,
            };
            match tick {
                Ok(tick) => {
                    let shows = self.shows.take();
                    self.lost |= shows.is_some_and(|shows| shows != tick.seen);
                    let bytes = tick.bytes(&self.labels, self.everybody, self.complete, self.lost);
                    (self.complete, self.lost) = (true, false);
                    if !bytes.is_empty() {
                        return Some(bytes);
                    }
                }
                // What was in between may have told of other rows.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    (self.complete, self.lost) = (false, true);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Waits for the end of a session; for ever without one.
async fn over(session: Option<End>) {
    match session {
        None => pending().await,
        Some(End { ended, until }) => tokio::select! {
            () = ended.cancelled() => {}
            () = sleep_until(until.into()) => {}
        },
    }
}

/// What begins a stream: after how many milliseconds a browser that lost it tries again.
pub(super) const HELLO: &[u8] = b"retry: 1000\nevent: hello\ndata: {}\n\n";

/// The last word of a stream whose session has ended.
pub(super) const OVER: &[u8] = b"event: over\ndata: {}\n\n";

/// Proxies on the way close what is silent; and by this a page knows that there is an agent.
pub(super) const ALIVE: &[u8] = b"event: alive\ndata: {}\n\n";

/// A stream that has nothing to tell for so long says that.
const QUIET: Duration = Duration::from_secs(15);

/// Streams at a time: connections of a listener are bounded, and some are for other things.
pub(super) const LISTENERS: usize = 32;

/// Moments that a slow reader may be behind.
pub(super) const BEHIND: usize = 4;
