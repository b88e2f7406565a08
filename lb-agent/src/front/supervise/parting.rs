//! The end of the agent, and what becomes of fronts then.

use std::{fs, io, time::Duration};

use lb_front::control::{self, Hello, Order};
use tokio::{net::unix::OwnedWriteHalf, time::timeout};

use super::{
    Stage,
    living::{find, successor},
};

impl Stage {
    /// Leaves the present front, whose connection has `ended` when it has, and those before it: ends them, unless they are
    /// to be kept.
    pub(super) async fn part(
        &mut self,
        hello: Hello,
        mut orders: OwnedWriteHalf,
        ended: impl Future<Output = io::Result<()>>,
        has_told: bool,
    ) {
        let keep = self.end.keep_front.is_cancelled();
        let mut others = Vec::from_iter(self.retired.take());
        // One that has nothing to serve is not worth keeping.
        let kept = match &self.former {
            Some(former) => keep.then_some(former.hello.pid),
            None => (keep && (hello.has_routes || has_told)).then_some(hello.pid),
        };
        if let Some(pid) = kept {
            tracing::warn!(pid, "the front serves on with the last routes");
            if self.former.is_none() {
                return;
            }
        } else {
            others.extend(self.former.take());
        }
        // The port is free for others as soon as the front lets go of it, not only when its drain is over.
        self.let_go();
        // It may have ended by itself in this moment.
        let _ = control::send(&mut orders, &Order::Drain).await;
        for other in &mut others {
            let _ = other.order(&Order::Drain).await;
        }
        let limit = self.config.grace + Duration::from_secs(1);
        // One that was adopted is not our child; its end is the end of the connection.
        let all = async {
            let _ = ended.await;
            for other in &mut others {
                other.ended().await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!(pid = hello.pid, "the front did not drain in time");
        }
        self.end_child(Duration::from_secs(1)).await;
        // Nobody is behind them any more.
        let _ = fs::remove_file(successor(&self.config.control));
        if kept.is_none() {
            let _ = fs::remove_file(&self.config.control);
        }
    }

    /// Ends a front that this agent could not replace, or has just lost, and those before it.
    pub(super) async fn end_left(&mut self) {
        self.let_go();
        let mut left = Vec::from_iter(find(&self.config.control).await.ok());
        left.extend(self.former.take());
        left.extend(self.retired.take());
        let limit = self.config.grace + Duration::from_secs(1);
        for front in &mut left {
            // It may have ended by itself in this moment.
            let _ = front.order(&Order::Drain).await;
        }
        let all = async {
            for front in &mut left {
                front.ended().await;
            }
        };
        if timeout(limit, all).await.is_err() {
            let pids: Vec<_> = left.iter().map(|it| it.hello.pid).collect();
            tracing::warn!(?pids, "a front did not drain in time");
        }
        self.end_child(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::kit::{front, stage},
        *,
    };

    #[tokio::test]
    async fn the_fronts_before_one_that_was_lost_end_with_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let mut stage = stage(directory.path());
        let (former, mut second) = front(directory.path(), "second").await;
        let (retired, mut first) = front(directory.path(), "first").await;
        (stage.former, stage.retired) = (Some(former), Some(retired));
        let mut ended = Vec::new();
        let serve = async {
            for front in [&mut second, &mut first] {
                let order: Option<Order> = control::receive(front).await.unwrap();
                ended.push(order);
            }
            drop((first, second));
        };
        tokio::join!(stage.end_left(), serve);
        assert!(
            matches!(ended[..], [Some(Order::Drain), Some(Order::Drain)]),
            "{ended:?}"
        );
    }
}
