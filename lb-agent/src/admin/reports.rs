//! Makes the report: one at a time, and away from the two threads that everything else of the agent runs on. All that ask
//! before one is begun share it.

use std::{
    collections::BTreeMap,
    future::pending,
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    compose::{Material, compose},
    guard::Access,
    published,
    report::{Component, Report},
    router::Desk,
};
use crate::{askers::Askers, snapshot::Snapshot, stats::Stats};

/// Asks for a report.
pub(super) type ReportRequest = oneshot::Sender<Arc<Report>>;

/// Makes reports for who asks until told to stop.
pub(super) async fn run(
    desk: Desk,
    mut asked: mpsc::Receiver<ReportRequest>,
    stop: CancellationToken,
) {
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            first = asked.recv() => first,
        };
        let Some(first) = first else { return };
        if let Some(askers) = Askers::gather(first, &mut asked) {
            askers.tell(desk.make_report(Hosts::Named).await);
        }
    }
}

/// Whether a report has the host names, which are dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hosts {
    Named,
    LeftOut,
}

impl Desk {
    /// The report of this moment, or of a later one.
    pub(super) async fn report(&self) -> Arc<Report> {
        let (reply, answer) = oneshot::channel();
        let shared = async {
            self.reports.send(reply).await.ok()?;
            answer.await.ok()
        };
        match shared.await {
            Some(report) => report,
            // What makes them has ended with the agent; requests in flight are answered all the same.
            None => Arc::new(self.make_report(Hosts::Named).await),
        }
    }

    /// The same for who may know less where the page is published.
    pub(super) async fn report_for(&self, access: &Access) -> Arc<Report> {
        let report = self.report().await;
        match access.published {
            true => {
                let told = move || published::report(Arc::unwrap_or_clone(report));
                Arc::new(apart(told).await)
            }
            false => report,
        }
    }

    /// The report of this moment, for one who asks. It waits for nobody longer than [`PATIENCE`].
    pub(super) async fn make_report(&self, hosts: Hosts) -> Report {
        // The data plane follows every snapshot before it counts: what is told here is in the maps, unless that fails.
        let snapshot = self.snapshots.borrow().clone();
        let stats = self.read_stats().await;
        let desk = self.clone();
        apart(move || desk.compose(snapshot.as_deref(), stats.as_deref(), hosts)).await
    }

    fn compose(&self, snapshot: Option<&Snapshot>, stats: Option<&Stats>, hosts: Hosts) -> Report {
        let components: Vec<Component> = self.components.iter().map(|line| line()).collect();
        let removal = self.removal.borrow().clone();
        let front = self.front.borrow().clone();
        let packet = self.packet.as_ref().map(|it| it.seen.borrow().clone());
        compose(Material {
            host: &self.host,
            now: SystemTime::now(),
            started: self.started,
            waiting_for: self.readiness.reasons(),
            snapshot,
            stats,
            removal: &removal,
            front: front.as_ref(),
            packet: packet.as_deref(),
            hosts: match hosts {
                Hosts::Named => (self.hosts)(),
                Hosts::LeftOut => BTreeMap::new(),
            },
            pools: self.pools,
            components,
        })
    }

    pub(super) async fn read_stats(&self) -> Option<Arc<Stats>> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.stats.send(reply).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// Does what takes long among ten thousand services on a thread of its own. A panic goes on where this is awaited.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => pending().await,
        },
    }
}

/// For the data plane to tell its figures.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Who may wait for a report; others wait for a place.
pub(super) const WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        admin::{Config, Inputs, desk, token::Token},
        sockets::Sockets,
        stats::StatsRequest,
    };

    /// What asks the data plane, which is played here.
    fn parts(
        stop: &CancellationToken,
    ) -> (
        Desk,
        mpsc::Receiver<ReportRequest>,
        mpsc::Receiver<StatsRequest>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            state_dir: dir.path().to_owned(),
            token_file: None,
            names: Vec::new(),
            step: crate::admin::STEP,
            published: Default::default(),
            allow_uids: Default::default(),
            per_backend: false,
            otlp: None,
        };
        let token = Token::read_or_make(&dir.path().join("token")).unwrap();
        let sockets = Sockets::start(fs::File::open("/dev/null").unwrap().into()).unwrap();
        let (stats, counts) = mpsc::channel(8);
        let inputs = Inputs {
            stats,
            ..Inputs::unconnected(sockets)
        };
        let (desk, requests) = desk(config, token, inputs, stop.clone());
        (desk, requests, counts)
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_ask_while_a_report_is_made_share_the_next_one() {
        let stop = CancellationToken::new();
        let (desk, requests, mut counts) = parts(&stop);
        let stage = tokio::spawn(run(desk.clone(), requests, stop.clone()));
        let ask = || {
            let desk = desk.clone();
            tokio::spawn(async move { desk.report().await })
        };
        let first = ask();
        let count = counts.recv().await.unwrap();
        let late: Vec<_> = (0..5).map(|_| ask()).collect();
        for _ in 0..1000 {
            if desk.reports.capacity() == WAITING - late.len() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(desk.reports.capacity(), WAITING - late.len());
        count.send(Arc::default()).unwrap();
        let first = first.await.unwrap();
        counts.recv().await.unwrap().send(Arc::default()).unwrap();
        let mut shared = Vec::new();
        for one in late {
            shared.push(one.await.unwrap());
        }
        assert!(shared.iter().all(|it| Arc::ptr_eq(it, &shared[0])));
        assert!(!Arc::ptr_eq(&first, &shared[0]));
        assert!(counts.try_recv().is_err(), "nobody asked for another count");

        // Who is in flight at the end is answered.
        stop.cancel();
        stage.await.unwrap();
        let last = ask();
        counts.recv().await.unwrap().send(Arc::default()).unwrap();
        assert!(last.await.unwrap().data_plane.is_some());
    }

    #[tokio::test]
    async fn long_work_holds_up_nobody_on_the_thread_that_asks_for_it() {
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_secs(20);
        let work = tokio::spawn(apart(move || begun.recv_timeout(limit).is_ok()));
        // On this test's one thread it would wait for what comes after it.
        tokio::task::yield_now().await;
        begin.send(()).unwrap();
        assert!(work.await.unwrap());
    }
}
