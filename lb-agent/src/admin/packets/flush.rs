//! Flows of the packet path are forgotten, because somebody asks for that.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        action::to_the_end,
        audit::{self, Deed},
        flows::vips_of,
        guard::Access,
        refusals::{Failed, no_service, ordered},
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
) -> Result<Response, Response> {
    let order = ordered(order)?;
    let path = desk.packet_path()?;
    let snapshot = desk.known()?;
    let vips = |name| vips_of(&snapshot, name).ok_or_else(|| no_service(name));
    let meant = packet::Meant {
        vips: order.service.as_deref().map(vips).transpose()?,
        filter: lb_packet::Filter {
            client: order.client,
            backend: order.backend,
            ..lb_packet::Filter::default()
        },
    };
    Ok(to_the_end(forget(desk, access, path, order, meant)).await)
}

async fn forget(
    desk: Desk,
    access: Access,
    path: packet::Handle,
    order: FlushOrder,
    meant: packet::Meant,
) -> Response {
    let outcome = match path.flush(meant).await {
        None => Err(Failed::Unknown),
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
