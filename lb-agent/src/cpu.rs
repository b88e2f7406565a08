//! What work costs, for the stages that rest after it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What this thread has used of a CPU so far. Between two readings there is no await: after one, a task may be on another
/// thread.
///
/// CPU time is what counts: on a busy machine most of the time goes by in waiting for a CPU, and to rest for that as well
/// would only add to it.
pub(crate) fn time() -> Duration {
    // The kernel has this clock for every thread.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Into::into)
}

/// Does `work` and adds what it costs to `cost`.
pub(crate) fn measured<T>(cost: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = time();
    let done = work();
    *cost += time().saturating_sub(began);
    done
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Instant};

    use super::*;

    #[test]
    fn work_costs_and_waiting_does_not() {
        let (mut work, mut wait) = (Duration::ZERO, Duration::ZERO);
        let long = Duration::from_millis(20);
        measured(&mut work, || {
            let began = time();
            while time() - began < long {}
        });
        assert!(work >= long, "{work:?}");
        let (tell, told) = mpsc::channel();
        let waited = Instant::now();
        measured(&mut wait, || {
            let other = thread::spawn(move || {
                // Work of another thread, which this one only waits for.
                let began = time();
                while time() - began < long {}
                tell.send(()).unwrap();
            });
            told.recv().unwrap();
            other.join().unwrap();
        });
        assert!(waited.elapsed() >= long);
        assert!(wait < long, "{wait:?}");
    }
}
