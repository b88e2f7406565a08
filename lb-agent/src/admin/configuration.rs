//! The configuration that this agent was started with, as `check-config` shows it: resolved, and without secrets.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{guard::Access, published, refusals::refused, router::Desk};
use crate::{catalog::Problem, config::Setting};

/// The answer to `GET /api/v1/configuration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Configuration {
    /// Every key that holds.
    settings: Arc<[Setting]>,
    /// Everything that is wrong with what was registered or configured.
    problems: Vec<Problem>,
}

/// `GET /api/v1/configuration`. Where the page is published it is not told: it names files and addresses of this host.
pub(super) async fn tell(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    if access.published {
        return refused(StatusCode::FORBIDDEN, published::CONFIGURATION.to_string());
    }
    let snapshot = desk.snapshots.borrow().clone();
    let problems = snapshot.map_or_else(Vec::new, |it| it.problems.clone());
    let settings = Arc::clone(&desk.settings);
    Json(Configuration { settings, problems }).into_response()
}

/// The path.
pub(super) const CONFIGURATION_PATH: &str = "/api/v1/configuration";
