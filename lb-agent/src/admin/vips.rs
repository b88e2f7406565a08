//! The virtual addresses: the list, pins and releases.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse as _, Response},
};
use tokio::time::Instant;

use super::{
    action::to_the_end,
    audit::{self, Deed},
    guard::Access,
    refusals::{Failed, give, ordered},
    report::{PinOrder, ReleaseOrder},
    router::Desk,
};
use crate::vip::{Entry, Order, Request};

/// `GET /api/v1/vips`.
pub(super) async fn list(State(desk): State<Desk>) -> Response {
    match known(&desk).await {
        Ok(entries) => Json(entries).into_response(),
        Err(failed) => failed.answer(),
    }
}

/// `POST /api/v1/vips/pin`.
pub(super) async fn pin(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<PinOrder>, JsonRejection>,
) -> Result<Response, Response> {
    let PinOrder { service, address } = ordered(order)?;
    let order = Order::Pin { service, address };
    Ok(to_the_end(carry_out(desk, access, "vip_pin", order)).await)
}

/// `POST /api/v1/vips/release`.
pub(super) async fn release(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<ReleaseOrder>, JsonRejection>,
) -> Result<Response, Response> {
    let ReleaseOrder { target } = ordered(order)?;
    let order = Order::Release { target };
    Ok(to_the_end(carry_out(desk, access, "vip_release", order)).await)
}

async fn carry_out(desk: Desk, access: Access, action: &'static str, order: Order) -> Response {
    let deed = deed(&desk, action, &order);
    let outcome = ask(&desk, order).await;
    let after = outcome.as_ref().map(|entries| {
        let addresses = entries.iter().map(|it| it.address.to_string());
        addresses.collect::<Vec<_>>().join(", ")
    });
    audit::keep(&desk, &access, deed, after);
    match outcome {
        Ok(entries) => Json(entries).into_response(),
        Err(failed) => failed.answer(),
    }
}

/// What is asked for, and the address that the service has now.
fn deed(desk: &Desk, action: &'static str, order: &Order) -> Deed {
    let target = match order {
        Order::List => "",
        Order::Pin { service, .. } => service,
        Order::Release { target } => target,
    };
    let snapshot = desk.snapshots.borrow().clone();
    let known = snapshot.as_deref().and_then(|it| it.find(target));
    let vip = known.and_then(|(_, service)| service.vip);
    Deed {
        action,
        object: format!("VIP of {target}"),
        before: vip.map(|vip| vip.to_string()),
    }
}

/// Those that are given or kept.
pub(super) async fn known(desk: &Desk) -> Result<Vec<Entry>, Failed> {
    let told = ask(desk, Order::List).await;
    told.map_err(|failed| match failed {
        // Nothing is changed by looking.
        Failed::Unknown => Failed::Silent,
        other => other,
    })
}

async fn ask(desk: &Desk, order: Order) -> Result<Vec<Entry>, Failed> {
    let until = Instant::now() + PATIENCE;
    give(&desk.vips, |reply| Request { order, reply }, until).await
}

/// For the VIP stage to answer, which may have to ask Consul several times. Below the patience of the command.
const PATIENCE: Duration = Duration::from_secs(9);
