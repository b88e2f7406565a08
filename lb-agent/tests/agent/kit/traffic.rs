//! Clients that ask all the time while something happens to the agent.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use lb_testkit::eventually;

use super::LIMIT;

/// One client that asks again and again, on a thread of its own.
pub(crate) struct Traffic {
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Traffic {
    /// Starts a client; `ask` tells what was wrong, with the number of the try.
    pub(crate) fn start<E: fmt::Display>(ask: impl Fn() -> Result<(), E> + Send + 'static) -> Self {
        let (asked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut failures = Vec::new();
            // Bounded, should the test that waits for it fail.
            while !end.load(Ordering::Relaxed) && start.elapsed() < 4 * LIMIT {
                if let Err(error) = ask() {
                    failures.push(format!("try {}: {error}", count.load(Ordering::Relaxed)));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failures
        });
        Self {
            asked,
            stop,
            thread,
        }
    }

    /// Waits until so many tries more were begun and ended.
    #[track_caller]
    pub(crate) fn await_more(&self, tries: usize) {
        // One may be under way and have begun before.
        let enough = self.asked.load(Ordering::Relaxed) + tries + 1;
        let more = eventually(LIMIT, || match self.asked.load(Ordering::Relaxed) {
            asked if asked >= enough => Ok(()),
            asked => Err(format!("{asked} tries instead of {enough}")),
        });
        more.unwrap();
    }

    /// Ends it and returns what was wrong.
    pub(crate) fn failures(self) -> Vec<String> {
        self.end().1
    }

    /// The same, with how many tries there were.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.thread.join().unwrap();
        (self.asked.load(Ordering::Relaxed), failures)
    }
}
