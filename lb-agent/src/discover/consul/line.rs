//! Many who wait at one bucket, one behind the other.

use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::pace::Bucket;

/// A bucket with a line before it. Only who passes takes a token: who goes away while it waits, as the follower of a
/// service that is gone, holds up nobody behind it.
#[derive(Debug)]
pub(super) struct Line(Mutex<Bucket>);

impl Line {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self(Mutex::new(bucket))
    }

    /// Waits for a token. They are given in the order of arrival.
    pub(super) async fn pass(&self) {
        let mut bucket = self.0.lock().await;
        sleep(bucket.wait(Instant::now())).await;
        bucket.take(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn line(burst: u32) -> Arc<Line> {
        Arc::new(Line::new(Bucket::new(burst, SECOND)))
    }

    fn pass(line: &Arc<Line>) -> tokio::task::JoinHandle<()> {
        let line = line.clone();
        tokio::spawn(async move { line.pass().await })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_then_one_each_interval() {
        let (line, began) = (line(3), Instant::now());
        for seconds in [0, 0, 0, 1, 2, 3] {
            line.pass().await;
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_while_it_waits_holds_up_nobody() {
        let (line, began) = (line(1), Instant::now());
        line.pass().await;
        let waiting: Vec<_> = (0..100).map(|_| pass(&line)).collect();
        let last = pass(&line);
        // One of them has its sleep, and the others stand behind it.
        tokio::task::yield_now().await;
        for task in waiting {
            task.abort();
        }
        last.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
