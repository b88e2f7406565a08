//! What a living front is told, and what it says.

use std::{io, sync::Arc, time::Duration};

use lb_front::{
    Listeners, Pages,
    control::{self, Order, Report},
    tls::Tls,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Stage, living::Living, logging, sent::Sent, telling::Telling};
use crate::routes::RouteConfig;

impl Stage {
    /// Sends routes and hears figures until the front ends, which is an error, or the agent does.
    pub(super) async fn accompany(&mut self, mut front: Living) -> io::Result<()> {
        let own = self.config.routes.clone();
        let listeners = own
            .listeners
            .iter()
            .chain(&front.hello.listeners)
            .copied()
            .collect();
        let routes = RouteConfig { listeners, ..own };
        self.report(None);
        // The stage has what it needs of them.
        front.listeners = Listeners::default();
        // The one before has some, if there is one.
        let mut has_routes = front.hello.has_routes || self.former.is_some();
        let log = self.config.log_file.as_ref();
        let mut reopen = log.map(|log| log.reopen.clone());
        if let Some(reopen) = &mut reopen {
            reopen.mark_unchanged();
        }
        // Before the routes: the first request has its line.
        self.tell_log(&mut front.orders).await?;
        let mut telling = Telling::new(routes, self.config.settings.clone());
        let (stats_out, mut reports) = (self.outputs.stats.clone(), front.reports);
        let shown = self.config.shown.clone();
        let (followed_in, mut followed) = watch::channel(());
        let mut hear = std::pin::pin!(async move {
            while let Some(report) = control::receive(&mut reports).await? {
                match report {
                    Report::Figures(stats) => {
                        stats_out.send_replace(Some(stats));
                    }
                    // It has told all of them before.
                    Report::News(news) => stats_out.send_modify(|stats| {
                        if let Some(stats) = stats {
                            stats.learn(news);
                        }
                    }),
                    Report::Follows => followed_in.send_replace(()),
                    Report::Shows(number) => drop(shown.send_replace(number)),
                }
            }
            Err::<(), _>(io::Error::from(io::ErrorKind::UnexpectedEof))
        });
        // Before the routes: what follows them must be able to shake hands.
        let mut certificates = self.config.certificates.clone();
        if let Some(certificates) = &mut certificates {
            tell_certificates(&mut front.orders, certificates).await?;
        }
        let mut pages = self.config.pages.clone();
        tell_pages(&mut front.orders, &mut pages).await?;
        let mut patience = std::pin::pin!(sleep(PATIENCE));
        let mut patient = true;
        // Since when there is a snapshot that was not looked at, and what the front has not yet said that it follows.
        let mut news = Some(Instant::now());
        let mut sent: Option<Sent> = None;
        let mut rested = Instant::now();
        loop {
            let until = sent.as_ref().map_or(rested, |sent| sent.began + ORDER);
            tokio::select! {
                ended = &mut hear => {
                    // Gone, or only cut off: then it is adopted like any other.
                    if let Some(child) = &mut self.child
                        && let Ok(status) = timeout(CRASH_TIME, child.wait()).await
                    {
                        self.child = None;
                        return Err(status.map_or_else(|error| error, |status| io::Error::other(status.to_string())));
                    }
                    return ended;
                }
                // Nobody answers any more until the present one has routes, perhaps for long.
                () = ended(&mut self.former) => {
                    return Err(io::Error::other("the one before it ended too soon"));
                }
                () = self.end.stop.cancelled() => break,
                () = logging::wish(&mut reopen) => self.tell_log(&mut front.orders).await?,
                () = &mut patience, if patient => {
                    patient = false;
                    news.get_or_insert_with(Instant::now);
                }
                changed = self.snapshots.changed(), if news.is_none() => {
                    if changed.is_err() {
                        self.end.stop.cancelled().await;
                        break;
                    }
                    news = Some(Instant::now());
                }
                Ok(()) = changed(&mut certificates) => {
                    if let Some(certificates) = &mut certificates {
                        tell_certificates(&mut front.orders, certificates).await?;
                    }
                }
                Ok(()) = pages.changed() => tell_pages(&mut front.orders, &mut pages).await?,
                // Where nobody sends them they stay as they are.
                Ok(()) = self.config.users.changed(), if news.is_none() => news = Some(Instant::now()),
                // Its end is heard above.
                Ok(()) = followed.changed(), if sent.is_some() => {
                    if let Some(sent) = sent.take() {
                        self.take_over().await;
                        self.follows(&sent);
                        rested = sent.rested(Instant::now());
                    }
                }
                () = sleep_until(until), if sent.is_some() => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not follow its routes"));
                }
                () = sleep_until(until), if news.is_some() && sent.is_none() => {
                    let since = news.take().unwrap_or(until);
                    let snapshot = self.snapshots.borrow_and_update().clone();
                    // Unknown is not empty: a front with routes keeps them until all sources and probes have
                    // spoken. A new one waits a moment for that, its connections in the kernel's queue.
                    let reached = snapshot.as_ref().and_then(|it| it.reached());
                    let Some(snapshot) = snapshot.filter(|it| it.complete || (it.is_known() && !has_routes && !patient)) else {
                        // Its routes are as new as anything that was kept, but not made of this.
                        if has_routes && reached.is_some() && self.outputs.routed.borrow().is_none() {
                            self.routed(Some(0));
                        }
                        continue;
                    };
                    // A service that asks for a password must not be closed for want of a list that was not read yet.
                    let Some(users) = self.config.users.borrow_and_update().clone() else {
                        continue;
                    };
                    let began = Instant::now();
                    has_routes |= snapshot.complete;
                    let told;
                    (telling, told) = telling.order(snapshot, users).await?;
                    self.show(&telling);
                    let this = Sent { reached, since, began, cost: told.cost };
                    if let Some(order) = told.order {
                        timeout(ORDER, front.orders.write_all(&order)).await??;
                        sent = Some(this);
                    } else {
                        self.routed(this.reached);
                        rested = this.rested(Instant::now());
                    }
                }
            }
        }
        self.part(front.hello, front.orders, hear, telling.has_told())
            .await;
        Ok(())
    }
}

/// Tells of the newest certificates.
async fn tell_certificates(
    orders: &mut (impl AsyncWrite + Unpin),
    certificates: &mut watch::Receiver<Arc<Tls>>,
) -> io::Result<()> {
    let tls = certificates.borrow_and_update().clone();
    let order = Order::Certificates((*tls).clone());
    timeout(ORDER, control::send(orders, &order)).await?
}

/// Tells of the newest pages. While they are not all read, those stay that the front has.
async fn tell_pages(
    orders: &mut (impl AsyncWrite + Unpin),
    pages: &mut watch::Receiver<Option<Pages>>,
) -> io::Result<()> {
    let Some(pages) = pages.borrow_and_update().clone() else {
        return Ok(());
    };
    timeout(ORDER, control::send(orders, &Order::Pages(pages))).await?
}

/// Ends with the front before, or with its connection; never without one.
async fn ended(former: &mut Option<Living>) {
    match former {
        Some(former) => former.ended().await,
        None => std::future::pending().await,
    }
}

/// Ends when there are other certificates; never where there is no TLS.
async fn changed(
    certificates: &mut Option<watch::Receiver<Arc<Tls>>>,
) -> Result<(), watch::error::RecvError> {
    match certificates {
        Some(certificates) => certificates.changed().await,
        None => std::future::pending().await,
    }
}

/// How long a front without routes waits for a complete snapshot before it takes an incomplete one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a front may take to read an order, and then to follow it.
pub(super) const ORDER: Duration = Duration::from_secs(10);

/// How long a front that has lost its control connection may take to be gone.
const CRASH_TIME: Duration = Duration::from_millis(500);
