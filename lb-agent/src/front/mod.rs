//! The agent's side of the front: it starts the front's process, adopts one that lives, and tells it its routes.
//!
//! What runs in that process is the crate [`lb_front`].

mod acme;
pub(crate) mod certificates;
pub mod pages;
mod sticky;
mod supervise;
pub mod users;

pub use acme::{Acme, AcmeChannels, AcmeError, Issued, acme};
pub use certificates::{CertificateOutputs, Files, InUse, Pair, certificates};
pub use sticky::{KeyError, sticky_key};
pub use supervise::{
    End, LogFile, Metrics, Outputs, SuperviseError, Supervisor, listeners, supervise,
};
