//! Waiting for many changes at once, by looking at what each should change.

use std::{
    sync::mpsc::{Receiver, Sender, TryRecvError},
    thread::sleep,
    time::{Duration, Instant},
};

/// One change that is on its way.
pub(super) struct Awaited<T> {
    /// By what it is recognised.
    pub(super) sign: T,
    /// Told the moment it is there.
    pub(super) seen: Sender<Instant>,
    pub(super) until: Instant,
}

/// Looks for changes until nobody will send any more, with `pause` between two looks.
pub(super) fn watch<T>(
    changes: &Receiver<Awaited<T>>,
    pause: Duration,
    mut has_arrived: impl FnMut(&T) -> bool,
) {
    let mut awaited: Vec<Awaited<T>> = Vec::new();
    loop {
        loop {
            match changes.try_recv() {
                Ok(change) => awaited.push(change),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if awaited.is_empty() => return,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        awaited.retain(|change| {
            let arrived = has_arrived(&change.sign);
            let at = Instant::now();
            if arrived {
                // Whoever waits for it may have given up.
                let _ = change.seen.send(at);
            }
            !arrived && at < change.until
        });
        sleep(pause);
    }
}
