//! What of a service outlasts every change of it: all workers share it, and so do the tables before and after a change.

use std::sync::{OnceLock, atomic::AtomicUsize};

use super::policy::Paces;

#[derive(Default)]
pub(super) struct Lasting {
    /// The next turn that no worker has taken.
    pub(super) cursor: AtomicUsize,
    /// How fast each client asks; only where that is limited.
    pub(super) paces: OnceLock<Paces>,
}
