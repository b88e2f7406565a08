//! How registration is: the containers of this host, and what is registered for each.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{guard::Access, published, refusals::refused, router::Desk};
use crate::{
    catalog::Problem,
    registrar::{Seen, Status},
};

/// The answer to `GET /api/v1/registrar`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Registrations {
    /// The identity of this host; `null` until it is known.
    pub(super) host: Option<String>,
    /// When Consul last held all of it, in seconds since 1970; `null` if it never did.
    pub(super) synced_unix: Option<u64>,
    /// Why Consul cannot be asked at the moment.
    pub(super) error: Option<String>,
    /// Every container that runs, by name; `null` until the engine has answered and this host is known.
    pub(super) containers: Option<Arc<[Seen]>>,
    /// What somebody has to correct, that of the containers included.
    pub(super) problems: Vec<Problem>,
}

impl From<&Status> for Registrations {
    fn from(status: &Status) -> Self {
        let unix = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        Self {
            host: status.host.clone(),
            synced_unix: status.synced.map(unix),
            error: status.error.clone(),
            containers: status.containers.clone(),
            problems: status.problems.clone(),
        }
    }
}

/// `GET /api/v1/registrar`. Where the page is published it is not told.
pub(super) async fn tell(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    if access.published {
        return refused(StatusCode::FORBIDDEN, published::REGISTRATIONS.to_string());
    }
    match desk.registrations() {
        Some(told) => Json(told).into_response(),
        None => refused(StatusCode::NOT_FOUND, NONE.to_owned()),
    }
}

impl Desk {
    /// `None` where this agent registers nothing.
    pub(super) fn registrations(&self) -> Option<Registrations> {
        let status = self.registrar.as_ref()?.borrow();
        Some(Registrations::from(&*status))
    }
}

/// Why there is nothing to tell.
pub(super) const NONE: &str = "this agent registers no containers: set [registrar] enabled, or see the log of \
     `lb-agent register` if that does";
/// The path.
pub(super) const REGISTRAR_PATH: &str = "/api/v1/registrar";
