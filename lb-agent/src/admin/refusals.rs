//! What is answered to who is not served, and why.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Query,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{guard::Actor, report::Refused, router::Desk};
use crate::snapshot::Snapshot;

/// Why a change did not happen, or that it is not known whether it did.
#[derive(Debug)]
pub(super) enum Failed {
    /// The stage that owns the matter says no.
    Refused(String),
    /// It did not even take the request, or has nothing to tell of what it was asked.
    Silent,
    /// It has the order, and says nothing: it may carry it out all the same.
    Unknown,
}

impl Failed {
    pub(super) fn answer(self) -> Response {
        let status = match self {
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Silent | Self::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        };
        refused(status, self.why().to_owned())
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Refused(why) => why,
            Self::Silent => "the agent did not answer in time: try again, and see its log",
            Self::Unknown => {
                "no answer in time: it may still happen; look before you try again, and see the agent's log"
            }
        }
    }
}

/// Gives an order to the stage that owns the matter, and waits for its answer, `until` then.
pub(super) async fn give<R, T>(
    stage: &mpsc::Sender<R>,
    order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> R,
    until: Instant,
) -> Result<T, Failed> {
    let (reply, answer) = oneshot::channel();
    let taken = timeout_at(until, stage.send(order(reply))).await;
    if !matches!(taken, Ok(Ok(()))) {
        return Err(Failed::Silent);
    }
    match timeout_at(until, answer).await {
        Ok(Ok(outcome)) => outcome.map_err(Failed::Refused),
        Ok(Err(_)) | Err(_) => Err(Failed::Unknown),
    }
}

/// Why somebody is not served, before it is an answer.
#[derive(Debug)]
pub(super) struct Unserved {
    status: StatusCode,
    why: String,
}

impl Unserved {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { status, why }
    }
}

impl From<Unserved> for Response {
    fn from(Unserved { status, why }: Unserved) -> Self {
        refused(status, why)
    }
}

pub(super) fn refused(status: StatusCode, error: String) -> Response {
    (status, Json(Refused { error })).into_response()
}

/// What the query asks for, unless it cannot be read.
pub(super) fn asked<T>(wish: Result<Query<T>, QueryRejection>) -> Result<T, Unserved> {
    let read = wish.map(|Query(wish)| wish);
    read.map_err(|rejection| Unserved::new(rejection.status(), rejection.body_text()))
}

/// What the body orders, unless it cannot be read.
pub(super) fn ordered<T>(order: Result<Json<T>, JsonRejection>) -> Result<T, Unserved> {
    let read = order.map(|Json(order)| order);
    read.map_err(|rejection| Unserved::new(rejection.status(), rejection.body_text()))
}

/// Refuses who asks over the network for what is told on the unix socket alone.
pub(super) fn only_here(actor: &Actor, why: &str) -> Result<(), Unserved> {
    match actor {
        Actor::Local { .. } => Ok(()),
        _ => Err(Unserved::new(StatusCode::FORBIDDEN, why)),
    }
}

pub(super) fn no_service(name: &str) -> Unserved {
    let why = format!("there is no service {name:?}: see `lb-agent services`");
    Unserved::new(StatusCode::NOT_FOUND, why)
}

impl Desk {
    /// The newest snapshot, unless there is none yet.
    pub(super) fn known(&self) -> Result<Arc<Snapshot>, Unserved> {
        let why = "the agent does not know its services yet: see `lb-agent status`";
        let snapshot = self.snapshots.borrow().clone();
        snapshot.ok_or_else(|| Unserved::new(StatusCode::SERVICE_UNAVAILABLE, why))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    type Order = oneshot::Sender<Result<u32, String>>;

    #[tokio::test(start_paused = true)]
    async fn an_order_that_was_taken_and_is_not_answered_may_still_happen() {
        let (stage, mut orders) = mpsc::channel::<Order>(1);
        let until = || Instant::now() + PATIENCE;
        let given = async || give(&stage, |reply| reply, until()).await;
        let (done, ()) = tokio::join!(given(), async {
            orders.recv().await.unwrap().send(Ok(7)).unwrap();
        });
        assert_eq!(done.unwrap(), 7);
        let (refused, ()) = tokio::join!(given(), async {
            let no = Err("no".to_owned());
            orders.recv().await.unwrap().send(no).unwrap();
        });
        assert!(matches!(refused, Err(Failed::Refused(why)) if why == "no"));
        // A stage that ends may have done it before.
        let (dropped, ()) = tokio::join!(given(), async {
            drop(orders.recv().await.unwrap());
        });
        assert!(matches!(dropped, Err(Failed::Unknown)));

        // It waits in the channel, which has no room for the next one.
        let begun = Instant::now();
        assert!(matches!(given().await, Err(Failed::Unknown)));
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(matches!(given().await, Err(Failed::Silent)));
        assert_eq!(begun.elapsed(), 2 * PATIENCE);
        drop(orders);
        assert!(matches!(given().await, Err(Failed::Silent)));
    }
}
