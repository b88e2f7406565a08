//! The last lines of the log.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse as _, Response},
};

use super::{guard::Actor, refusals::only_here, router::Desk};

/// `GET /api/v1/log`, on the socket only: nobody knows what the lines hold.
pub(super) async fn list(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
) -> Result<Response, Response> {
    let why = "the log is told on the host only: see its journal, or run `lb-agent bundle` there";
    only_here(&actor, why)?;
    Ok(Json(desk.log.read()).into_response())
}
