//! Flows of the packet path are forgotten, because somebody asks for that.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use super::{no_path, no_service};
use crate::{
    admin::{
        action::{Failed, nothing_known, refused, to_the_end},
        audit::{self, Deed},
        flows::vips_of,
        guard::Access,
        router::Desk,
    },
    packet,
};

/// The body of `POST /api/v1/packet/flush`: the flows that all of it fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct FlushOrder {
    /// Only those of this service and its parts.
    #[serde(default)]
    pub(crate) service: Option<String>,
    /// Only those of the client with this address.
    #[serde(default)]
    pub(crate) client: Option<IpAddr>,
    /// Only those to this backend.
    #[serde(default)]
    pub(crate) backend: Option<SocketAddr>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Flushed {
    /// How many flows were forgotten.
    pub(crate) forgotten: u64,
}

/// `POST /api/v1/packet/flush`.
pub(in crate::admin) async fn flush(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<FlushOrder>, JsonRejection>,
) -> Response {
    match order {
        Ok(Json(order)) => to_the_end(forget(desk, access, order)).await,
        Err(rejection) => refused(rejection.status(), rejection.body_text()),
    }
}

async fn forget(desk: Desk, access: Access, order: FlushOrder) -> Response {
    let Some(path) = desk.packet.clone() else {
        return no_path();
    };
    if let Some(why) = path.seen.borrow().error.clone() {
        return refused(StatusCode::CONFLICT, why);
    }
    let Some(snapshot) = desk.snapshots.borrow().clone() else {
        return nothing_known();
    };
    let vips = match order.service.as_deref() {
        None => None,
        Some(name) => match vips_of(&snapshot, name) {
            Some(vips) => Some(vips),
            None => return no_service(name),
        },
    };
    let meant = packet::Meant {
        vips,
        filter: lb_packet::Filter {
            client: order.client,
            backend: order.backend,
            ..lb_packet::Filter::default()
        },
    };
    let outcome = match path.flush(meant).await {
        None => Err(Failed::Silent),
        Some(answer) => answer.map_err(Failed::Refused),
    };
    let of = [
        order.service.map(|it| format!(" of {it}")),
        order.client.map(|it| format!(" from {it}")),
        order.backend.map(|it| format!(" to {it}")),
    ];
    let of: String = of.into_iter().flatten().collect();
    let deed = Deed {
        action: "packet_flush",
        object: format!("flows on the packet path{of}"),
        before: None,
    };
    let after = outcome.as_ref();
    let after = after.map(|forgotten| format!("{forgotten} forgotten"));
    audit::keep(&desk, &access, deed, after);
    match outcome {
        Ok(forgotten) => Json(Flushed { forgotten }).into_response(),
        Err(failed) => failed.answer(),
    }
}
