//! The last lines of the log.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse as _, Response},
};

use super::{action::refused_from_afar, guard::Actor, router::Desk};

/// `GET /api/v1/log`, on the socket only: nobody knows what the lines hold.
pub(super) async fn list(State(desk): State<Desk>, Extension(actor): Extension<Actor>) -> Response {
    let why = "the log is told on the host only: see its journal, or run `lb-agent bundle` there";
    match refused_from_afar(&actor, why) {
        Some(refusal) => refusal,
        None => Json(desk.log.read()).into_response(),
    }
}
