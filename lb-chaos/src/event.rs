//! What clients see, as lines between their process and the checker's.

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

/// What one client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// A new flow to a VIP, to the first answer.
    Connect(Try),
    /// A request through the front, on a connection of its own.
    Request(Try),
    /// An established flow had an answer.
    Echo,
    /// An established flow ended.
    Broken {
        /// The service of the VIP.
        service: String,
        /// Who had answered on it.
        backend: String,
        /// When it was established.
        opened: Moment,
        /// When its end was seen.
        ended: Moment,
        /// How it ended.
        why: String,
    },
}

/// One try, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// The service that was asked.
    pub service: String,
    /// When it began.
    pub begun: Moment,
    /// When it was over.
    pub ended: Moment,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// This backend answered.
    Reached(String),
    /// Nobody did, for this reason.
    Failed(String),
}
