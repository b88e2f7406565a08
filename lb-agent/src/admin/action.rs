//! Changes: the drain, and the line that the audit keeps of it.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    encoding::EncodeLabelSet, metrics::counter::Counter, metrics::family::Family,
    registry::Registry,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    guard::Actor,
    report::{DrainAnswer, DrainOrder, Refused},
    router::Desk,
};
use crate::drain::{DrainOutcome, DrainRequest};

/// Counts of changes, for `/metrics`.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    actions: Family<ActionLabels, Counter>,
    refusals: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    result: &'static str,
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "admin_actions",
            "Changes asked for through the admin interface",
            self.actions.clone(),
        );
        registry.register(
            "admin_refusals",
            "Requests that the admin interface refused before looking at them",
            self.refusals.clone(),
        );
    }

    pub(super) fn count_refusal(&self) {
        self.refusals.inc();
    }

    pub(super) fn count(&self, action: &'static str, result: &'static str) {
        let labels = ActionLabels { action, result };
        self.actions.get_or_create(&labels).inc();
    }
}

/// `POST /api/v1/drain`.
pub(super) async fn drain(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
    order: Result<Json<DrainOrder>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let order = match order {
        Ok(Json(order)) => order,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let action = if order.undo { "undrain" } else { "drain" };
    let outcome = ask(&desk.drains, &order).await;
    let result = match &outcome {
        Ok(_) => "ok",
        Err(_) => "refused",
    };
    desk.counts.count(action, result);
    audit(&actor, action, &order, &outcome);
    match outcome {
        Ok(outcome) => Json(DrainAnswer {
            service: order.service,
            matched: outcome.matched,
            draining: outcome.draining,
        })
        .into_response(),
        Err(failed) => failed.answer(),
    }
}

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
        match self {
            Self::Refused(why) => refused(StatusCode::UNPROCESSABLE_ENTITY, why),
            Self::Silent => {
                let why = "the agent did not answer in time: try again, and see its log";
                refused(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
            }
        }
    }
}

async fn ask(
    drains: &mpsc::Sender<DrainRequest>,
    order: &DrainOrder,
) -> Result<DrainOutcome, Failed> {
    let (reply, answer) = oneshot::channel();
    let request = DrainRequest {
        service: order.service.clone(),
        backend: order.backend.clone(),
        undo: order.undo,
        reply,
    };
    let asked = async {
        drains.send(request).await.ok()?;
        answer.await.ok()
    };
    match timeout(PATIENCE, asked).await {
        Ok(Some(outcome)) => outcome.map_err(Failed::Refused),
        Ok(None) | Err(_) => Err(Failed::Silent),
    }
}

/// One line per change. Names are logged quoted: they may hold line breaks.
fn audit(
    actor: &Actor,
    action: &'static str,
    order: &DrainOrder,
    outcome: &Result<DrainOutcome, Failed>,
) {
    let source = source(actor);
    let DrainOrder {
        service, backend, ..
    } = order;
    match outcome {
        Ok(outcome) => {
            let (matched, draining) = (outcome.matched.len(), outcome.draining);
            info!(target: "audit", %actor, source, action, ?service, ?backend, matched, draining, "changed");
        }
        Err(failed) => {
            warn!(target: "audit", %actor, source, action, ?service, ?backend, ?failed, "not changed");
        }
    }
}

/// Where a change came from.
pub(super) fn source(actor: &Actor) -> String {
    match actor {
        Actor::Local { .. } => "socket".to_owned(),
        Actor::Remote { peer, .. } => peer.to_string(),
    }
}

pub(super) fn refused(status: StatusCode, error: String) -> Response {
    (status, Json(Refused { error })).into_response()
}

/// The answer to who asks over the network for what names processes; `None` for the unix socket.
pub(super) fn refused_from_afar(actor: &Actor, why: &str) -> Option<Response> {
    match actor {
        Actor::Local { .. } => None,
        _ => Some(refused(StatusCode::FORBIDDEN, why.to_owned())),
    }
}

/// The answer as long as there is no snapshot.
pub(super) fn nothing_known() -> Response {
    let why = "the agent does not know its services yet: see `lb-agent status`";
    refused(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}

/// For the stage that owns drains to answer.
const PATIENCE: Duration = Duration::from_secs(5);
