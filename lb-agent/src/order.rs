//! How operators' orders are asked for: the admin stage asks them of the stage that assembles the snapshot, which keeps
//! them.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::catalog::InstanceKey;
pub use lb_core::order::{Mode, Order, Orders};

/// Asks that instances are ordered to do something.
#[derive(Debug)]
pub struct OrderRequest {
    /// The service concerned.
    pub service: String,
    /// One instance of it, as its id or as `node/id`; all of them if absent.
    pub backend: Option<String>,
    /// What they are to do.
    pub mode: Mode,
    /// How long their flows may go on, if something else is to hold than usual.
    pub deadline: Option<Duration>,
    /// What became of it, or why nothing did.
    pub reply: oneshot::Sender<Result<OrderOutcome, String>>,
}

/// What an order changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderOutcome {
    /// The instances concerned.
    pub matched: Vec<InstanceKey>,
    /// What holds for them now.
    pub order: Order,
    /// The number of the first snapshot that says so.
    pub snapshot: u64,
}
