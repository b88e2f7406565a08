//! The list of the clients that do not stand on the host.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::{guard::Access, published, refusals::refused, router::Desk};

/// `GET /api/v1/clients`. Where the page is published they are not told.
pub(super) async fn list(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    if access.published {
        return refused(StatusCode::FORBIDDEN, published::CLIENTS.to_string());
    }
    let clients = desk.clients.borrow().clone();
    match clients {
        Some(clients) => Json(clients.list()).into_response(),
        None => {
            let why = "the Docker Engine has not told its containers yet: see `lb-agent status`";
            refused(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
    }
}
