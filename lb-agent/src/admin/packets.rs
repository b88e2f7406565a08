//! The packet path: flows that are forgotten, where a packet would go, and packets as they come.

mod explain;
mod flush;
mod trace;

use axum::{http::StatusCode, response::Response};

use super::action::refused;

#[cfg(test)]
pub(crate) use self::explain::Protocol;
pub(super) use self::{explain::explain, flush::flush, trace::trace};
pub(crate) use self::{
    explain::{Verdict, Way},
    flush::{FlushOrder, Flushed},
    trace::{Line, Traced},
};

/// Where flows of the packet path are forgotten.
pub(crate) const FLUSH_PATH: &str = "/api/v1/packet/flush";
/// Where it is told where a packet would go.
pub(crate) const PACKET_EXPLAIN_PATH: &str = "/api/v1/packet/explain";
/// Where packets are told as they come.
pub(crate) const PACKET_TRACE_PATH: &str = "/api/v1/packet/trace";

fn no_service(name: &str) -> Response {
    let why = format!("there is no service {name:?}: see `lb-agent services`");
    refused(StatusCode::NOT_FOUND, why)
}

fn no_path() -> Response {
    let why =
        "this agent has no packet path: [packet] or --packet-card and --packet-client switch it on";
    refused(StatusCode::CONFLICT, why.to_owned())
}
