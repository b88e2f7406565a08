//! An operator's wish to take backends out of service: what the admin stage asks of the stage that
//! assembles the snapshot. The wish itself is stored there.

use tokio::sync::oneshot;

use crate::catalog::InstanceKey;

/// Takes backends out (no new flows, established ones live on), or back in.
#[derive(Debug)]
pub struct DrainRequest {
    /// The service concerned.
    pub service: String,
    /// One instance of it, as its id or as `node/id`; all of them if absent.
    pub backend: Option<String>,
    /// Ends the drain instead.
    pub undo: bool,
    /// What became of it, or why nothing did.
    pub reply: oneshot::Sender<Result<DrainOutcome, String>>,
}

/// What a drain changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOutcome {
    /// The instances concerned.
    pub matched: Vec<InstanceKey>,
    /// Whether they are drained now.
    pub draining: bool,
    /// The number of the first snapshot that says so.
    pub snapshot: u64,
}
