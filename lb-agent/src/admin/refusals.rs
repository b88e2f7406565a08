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

use super::{guard::Actor, report::Refused, router::Desk};
use crate::snapshot::Snapshot;

/// Why a change did not happen.
#[derive(Debug)]
pub(super) enum Failed {
    /// The stage that owns the matter says no.
    Refused(String),
    /// It says nothing.
    Silent,
}

impl Failed {
    pub(super) fn answer(self) -> Response {
        let status = match self {
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Silent => StatusCode::SERVICE_UNAVAILABLE,
        };
        refused(status, self.why().to_owned())
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Refused(why) => why,
            Self::Silent => "the agent did not answer in time: try again, and see its log",
        }
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
