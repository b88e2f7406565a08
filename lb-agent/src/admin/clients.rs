//! The list of the clients that do not stand on the host.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::{action::refused, router::Desk};

/// `GET /api/v1/clients`.
pub(super) async fn list(State(desk): State<Desk>) -> Response {
    let clients = desk.clients.borrow().clone();
    match clients {
        Some(clients) => Json(clients.list()).into_response(),
        None => {
            let why = "the Docker Engine has not told its containers yet: see `lb-agent status`";
            refused(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
    }
}
