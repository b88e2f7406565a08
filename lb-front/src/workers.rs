//! All workers of a front: started together, asked together, drained together.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Front,
    log::Log,
    stats::FrontStats,
    worker::{self, Start},
};

/// Where a front listens.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For HTTP.
    pub plain: Vec<TcpListener>,
    /// For the same inside TLS.
    pub tls: Vec<TcpListener>,
}

impl Listeners {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &TcpListener> {
        self.plain.iter().chain(&self.tls)
    }
}

impl From<Vec<TcpListener>> for Listeners {
    fn from(plain: Vec<TcpListener>) -> Self {
        let tls = Vec::new();
        Self { plain, tls }
    }
}

/// The running workers.
pub struct Workers {
    figures: Vec<mpsc::Sender<oneshot::Sender<FrontStats>>>,
    /// Each worker's end.
    ends: mpsc::Receiver<io::Result<FrontStats>>,
    drain: CancellationToken,
    hurry: CancellationToken,
    running: usize,
    log: Arc<Log>,
}

impl Workers {
    /// Starts `count` threads on `listeners`. They serve at once; `grace` is how long a drain may take.
    ///
    /// # Errors
    /// A thread that cannot be started, or a listener that cannot be shared.
    pub fn start(
        front: &Arc<Front>,
        listeners: &Listeners,
        count: usize,
        grace: Duration,
    ) -> io::Result<Self> {
        let (drain, hurry) = (CancellationToken::new(), CancellationToken::new());
        let (end, ends) = mpsc::channel(count.max(1));
        let mut figures = Vec::new();
        for place in 0..count {
            let (asked, requests) = mpsc::channel(1);
            figures.push(asked);
            let start = Start {
                front: front.clone(),
                listeners: Listeners {
                    plain: share(&listeners.plain, place, count)?,
                    tls: share(&listeners.tls, place, count)?,
                },
                figures: requests,
                drain: drain.child_token(),
                hurry: hurry.child_token(),
                grace,
            };
            let end = end.clone();
            let name = format!("lb-front-{place}");
            std::thread::Builder::new().name(name).spawn(move || {
                let end = End(Some(end));
                end.tell(worker::run(start));
            })?;
        }
        Ok(Self {
            figures,
            ends,
            drain,
            hurry,
            running: count,
            log: front.log.clone(),
        })
    }

    /// The sum of all workers' figures.
    pub async fn stats(&self) -> FrontStats {
        let mut all = Vec::with_capacity(self.figures.len());
        for worker in &self.figures {
            let (answer, figures) = oneshot::channel();
            // One that has ended has no figures; its end is noticed elsewhere.
            if worker.send(answer).await.is_ok()
                && let Ok(figures) = figures.await
            {
                all.push(figures);
            }
        }
        self.sum(all)
    }

    fn sum(&self, all: Vec<FrontStats>) -> FrontStats {
        FrontStats {
            log_lost: self.log.lost(),
            pid: std::process::id(),
            workers: self.figures.len(),
            ..FrontStats::sum(all)
        }
    }

    /// Ends with the first worker that ends, which none should do before [`Self::drain`].
    pub async fn ended(&mut self) -> io::Result<FrontStats> {
        let end = self.ends.recv().await;
        self.running = self.running.saturating_sub(1);
        end.unwrap_or_else(|| Err(io::Error::other("all workers have ended")))
    }

    /// Takes no new connection, closes idle ones, and returns the last figures when the rest is done or its time
    /// is over.
    pub async fn drain(self) -> FrontStats {
        self.retire(std::future::ready(())).await
    }

    /// Takes no new connection. As long as `patience` lasts, a connection that is open stays until it has had an answer, which
    /// announces its end, and so no request ever meets a closed one. Then it is as in [`Self::drain`].
    pub async fn retire(self, patience: impl Future<Output = ()>) -> FrontStats {
        self.drain.cancel();
        let hurry = self.hurry.clone();
        let mut end = std::pin::pin!(self.end());
        tokio::select! {
            biased; // Without patience there is no moment without hurry.
            () = patience => {}
            last = &mut end => return last,
        }
        hurry.cancel();
        end.await
    }

    async fn end(mut self) -> FrontStats {
        let mut all = Vec::new();
        while self.running > 0 {
            match self.ended().await {
                Ok(figures) => all.push(figures),
                Err(error) => tracing::error!(%error, "a worker failed while draining"),
            }
        }
        self.sum(all)
    }
}

/// Tells of a worker's end, also of one by panic.
struct End(Option<mpsc::Sender<io::Result<FrontStats>>>);

impl End {
    fn tell(mut self, result: io::Result<FrontStats>) {
        if let Some(end) = self.0.take() {
            // There is room for one from each; nobody listening is fine.
            let _ = end.try_send(result);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            let _ = end.try_send(Err(io::Error::other("a worker panicked")));
        }
    }
}

/// The listeners of the worker at `place`. Where an address has one listener for each worker (SO_REUSEPORT),
/// each gets its own and the kernel spreads connections; else all accept from the same one.
fn share(listeners: &[TcpListener], place: usize, count: usize) -> io::Result<Vec<TcpListener>> {
    let address = |listener: &TcpListener| listener.local_addr().ok();
    let mut own = Vec::new();
    for (at, listener) in listeners.iter().enumerate() {
        let same = |other: &&TcpListener| address(other) == address(listener);
        let group = listeners.iter().filter(same).count();
        let nth = listeners[..at].iter().filter(same).count();
        if group < count || nth % count == place {
            own.push(listener.try_clone()?);
        }
    }
    Ok(own)
}
