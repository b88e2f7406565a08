//! The packet path: flows that are forgotten, where a packet would go, and packets as they come.

mod explain;
mod flush;
mod trace;

use axum::http::StatusCode;

use super::{refusals::Unserved, router::Desk};
use crate::packet;

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

impl Desk {
    /// The packet path, unless there is none, or it does not work.
    fn packet_path(&self) -> Result<packet::Handle, Unserved> {
        let none = "this agent has no packet path: [packet] or --packet-card and --packet-client switch it on";
        let path = self.packet.clone();
        let path = path.ok_or_else(|| Unserved::new(StatusCode::CONFLICT, none))?;
        let error = path.seen.borrow().error.clone();
        match error {
            Some(why) => Err(Unserved::new(StatusCode::CONFLICT, why)),
            None => Ok(path),
        }
    }
}
