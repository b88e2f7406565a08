//! Following the decisions for a service: what `admin` asks of `reconcile`, and what it is told.
//!
//! The stage that owns the maps reads the kernel's ring itself: what a table and an index mean, it alone knows, and only
//! at that moment.

use std::{net::SocketAddr, time::SystemTime};

use lb_common::Trace;
use tokio::sync::{broadcast, oneshot};

use crate::snapshot::ServiceName;

/// Asks to be told of the decisions for a service, from the answer on until the receiver is dropped.
#[derive(Debug)]
pub struct TraceRequest {
    /// The service.
    pub service: ServiceName,
    /// Where they are told.
    pub reply: oneshot::Sender<broadcast::Receiver<Told>>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A decision.
    Decision(Decision),
    /// So many more were taken that the kernel could not tell.
    Lost(u64),
}

/// A decision of the kernel, with what its numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When it was taken.
    pub at: SystemTime,
    /// What the kernel told.
    pub trace: Trace,
    /// The view whose endpoint decided; `None` if that is gone.
    pub view: Option<u32>,
    /// Where the flow goes; `None` for a refusal, or if the address is gone.
    pub address: Option<SocketAddr>,
}
