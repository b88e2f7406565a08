//! Level 1 of health: what our own probes say of every backend, who is due when, and how many results make a verdict.
//!
//! No clock and no IO: times and results of probes come in, probes to start and [`Verdicts`] go out.

mod machine;
mod queue;
pub mod roster;
mod verdicts;

use std::{net::SocketAddr, time::Duration};

use crate::options::CheckKind;
pub use verdicts::Verdicts;

/// How backends are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// From one probe of a settled target to the next.
    pub interval: Duration,
    /// What a probe may take.
    pub timeout: Duration,
    /// Successes in a row until a target is up.
    pub rise: u32,
    /// Failures in a row until it is down.
    pub fall: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// Probes under way at the same time: bounds the descriptors in use; the rest waits for its turn.
pub const PROBES_AT_ONCE: usize = 512;

/// What a probe asks of whom.
pub type Target = (SocketAddr, CheckKind);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answers; how long that took.
    Passed(Duration),
    /// It does not; why.
    Failed(String),
    /// This host could not ask; why.
    Unable(String),
}
