//! The agent at the other end of the control connection: its orders are obeyed, and figures told.

#[cfg(test)]
mod tests;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use nix::unistd::Uid;
use tokio::{
    net::{UnixStream, unix::OwnedReadHalf},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Own;
use crate::{
    Front,
    control::{self, Hello, Order, Report, VERSION},
    handover,
    stats::FrontStats,
};

/// How a control connection ended.
pub(super) enum Parted {
    Gone,
    Leave(Leave),
}

/// The order to end.
#[derive(Default)]
pub(super) struct Leave {
    /// Who ordered it; nobody did who sent a signal.
    pub(super) agent: Option<UnixStream>,
    /// How long connections may stay that are only open; `None`: not at all.
    pub(super) patience: Option<Duration>,
}

impl Leave {
    fn by(order: &Order, agent: UnixStream) -> Option<Self> {
        let patience = match order {
            Order::Drain => None,
            Order::Retire { seconds } => Some(Duration::from_secs(*seconds)),
            _ => return None,
        };
        Some(Self {
            agent: Some(agent),
            patience,
        })
    }
}

/// Obeys one agent.
pub(super) async fn attend(
    mut stream: UnixStream,
    front: Arc<Front>,
    own: Arc<Own>,
    figures: tokio::sync::mpsc::Sender<oneshot::Sender<FrontStats>>,
) -> io::Result<Parted> {
    let address = |listener: &std::net::TcpListener| listener.local_addr().ok();
    let hello = Hello {
        version: VERSION,
        pid: nix::unistd::getpid().as_raw(),
        listeners: own.listeners.all().filter_map(address).collect(),
        tls: own.listeners.tls.iter().filter_map(address).collect(),
        has_routes: front.has_routes(),
        kind: own.kind.clone(),
    };
    let listeners: Vec<_> = own.listeners.all().collect();
    handover::send(&stream, &hello, &listeners).await?;
    drop(own);
    match timeout(HELLO, control::receive(&mut stream)).await?? {
        Some(Order::Hello { version: VERSION }) => {}
        Some(Order::Hello { .. }) => return attend_another(stream).await,
        _ => return Ok(Parted::Gone),
    }
    let (mut orders, mut reports) = stream.into_split();
    let (followed, mut follows) = watch::channel(());
    let (shown, mut shows) = watch::channel(0);
    let report = async {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<FrontStats> = None;
        loop {
            tokio::select! {
                biased; // The agent waits for this, and sends no more until it has it.
                Ok(()) = follows.changed() => {
                    control::send(&mut reports, &Report::Follows).await?;
                    continue;
                }
                Ok(()) = shows.changed() => {
                    let number = *shows.borrow_and_update();
                    control::send(&mut reports, &Report::Shows(number)).await?;
                    continue;
                }
                _ = second.tick() => {}
            }
            let (asked, answer) = oneshot::channel();
            figures.send(asked).await.map_err(io::Error::other)?;
            let stats = answer.await.map_err(io::Error::other)?;
            if told.as_ref() != Some(&stats) {
                let news = told.as_ref().and_then(|told| stats.news(told));
                let report = news.map_or_else(|| Report::Figures(stats.clone()), Report::News);
                control::send(&mut reports, &report).await?;
                told = Some(stats);
            }
        }
    };
    let last = {
        let mut obeying = std::pin::pin!(obey(&mut orders, &front, &followed, &shown));
        tokio::select! {
            last = &mut obeying => last?,
            // What an agent ordered before it ended counts.
            Err::<(), io::Error>(_) = report => obeying.await?,
        }
    };
    let Some(last) = last else {
        return Ok(Parted::Gone);
    };
    let stream = orders.reunite(reports).map_err(io::Error::other)?;
    Ok(Leave::by(&last, stream).map_or(Parted::Gone, Parted::Leave))
}

/// Waits for what an agent of another version may order: to end, in one way or the other. It has the listeners for the
/// next front, and tells nothing of routes.
async fn attend_another(mut stream: UnixStream) -> io::Result<Parted> {
    let order = control::receive(&mut stream).await?;
    let leave = order.and_then(|order| Leave::by(&order, stream));
    Ok(leave.map_or(Parted::Gone, Parted::Leave))
}

/// Follows routes until the agent is gone, or orders to end: then gives that order.
async fn obey(
    orders: &mut OwnedReadHalf,
    front: &Front,
    followed: &watch::Sender<()>,
    shown: &watch::Sender<u64>,
) -> io::Result<Option<Order>> {
    while let Some(order) = control::receive(orders).await? {
        match order {
            Order::Routes(routes, settings) => front.publish(&routes, &settings),
            Order::Change(change) => front.change(&change),
            Order::Pages(pages) => {
                front.show(&pages);
                continue;
            }
            Order::Log { file } => {
                log_into((*orders).as_ref(), front, file).await?;
                continue;
            }
            Order::Drain | Order::Retire { .. } => return Ok(Some(order)),
            Order::Certificates(tls) => {
                match front.present(&tls) {
                    Ok(()) => drop(shown.send_replace(tls.number)),
                    Err(error) => {
                        tracing::error!(%error, "a certificate that the agent sent; those before stay");
                    }
                }
                continue;
            }
            Order::Hello { .. } => continue,
        }
        followed.send_replace(());
    }
    Ok(None)
}

/// Obeys the agent that has ordered this front to end, as far as that still concerns it, to the end.
pub(super) async fn obey_leaving(
    agent: &mut Option<UnixStream>,
    front: &Front,
    hurry: &CancellationToken,
) -> Infallible {
    if let Some(agent) = agent {
        while let Ok(Some(order)) = control::receive(agent).await {
            match order {
                Order::Drain => hurry.cancel(),
                Order::Log { file } if log_into(agent, front, file).await.is_err() => break,
                _ => {}
            }
        }
    }
    std::future::pending().await
}

/// Writes the access log into the `file` that comes next over `agent`, or to standard output.
async fn log_into(agent: &UnixStream, front: &Front, file: bool) -> io::Result<()> {
    if !file {
        front.log.write_to(None);
    } else if let Some(file) = handover::receive_file(agent).await? {
        front.log.write_to(file);
    } // An agent that ended in between leaves it where it was.
    Ok(())
}

/// Only root and the user who started this process may give orders, whatever the socket's directory allows.
pub(super) fn is_trusted(stream: &UnixStream, master: Uid) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == master.as_raw() || peer.uid() == 0)
}

const HELLO: Duration = Duration::from_secs(5);
