//! The virtual addresses: the list, pins and releases, and the line that the audit keeps of a change.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse as _, Response},
};
use tokio::{sync::oneshot, time::timeout};
use tracing::{info, warn};

use super::{
    action::{Failed, refused},
    guard::Access,
    report::{PinOrder, ReleaseOrder},
    router::Desk,
};
use crate::vip::{Entry, Order, Request};

/// `GET /api/v1/vips`.
pub(super) async fn list(State(desk): State<Desk>) -> Response {
    match ask(&desk, Order::List).await {
        Ok(entries) => Json(entries).into_response(),
        Err(failed) => failed.answer(),
    }
}

/// `POST /api/v1/vips/pin`.
pub(super) async fn pin(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<PinOrder>, JsonRejection>,
) -> Response {
    let order = order.map(|Json(PinOrder { service, address })| Order::Pin { service, address });
    change(&desk, &access, "vip_pin", order).await
}

/// `POST /api/v1/vips/release`.
pub(super) async fn release(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<ReleaseOrder>, JsonRejection>,
) -> Response {
    let order = order.map(|Json(ReleaseOrder { target })| Order::Release { target });
    change(&desk, &access, "vip_release", order).await
}

async fn change(
    desk: &Desk,
    access: &Access,
    action: &'static str,
    order: Result<Order, JsonRejection>,
) -> Response {
    let order = match order {
        Ok(order) => order,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let outcome = ask(desk, order.clone()).await;
    let (actor, source) = (access.who, access.source());
    match outcome {
        Ok(entries) => {
            desk.counts.count(action, "ok");
            info!(target: "audit", %actor, source, action, ?order, ?entries, "changed");
            Json(entries).into_response()
        }
        Err(failed) => {
            desk.counts.count(action, "refused");
            warn!(target: "audit", %actor, source, action, ?order, ?failed, "not changed");
            failed.answer()
        }
    }
}

async fn ask(desk: &Desk, order: Order) -> Result<Vec<Entry>, Failed> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        desk.vips.send(Request { order, reply }).await.ok()?;
        answer.await.ok()
    };
    match timeout(PATIENCE, asked).await {
        Ok(Some(outcome)) => outcome.map_err(Failed::Refused),
        Ok(None) | Err(_) => Err(Failed::Silent),
    }
}

/// For the VIP stage to answer, which may have to ask Consul several times. Below the patience of the command.
const PATIENCE: Duration = Duration::from_secs(9);
