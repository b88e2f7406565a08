//! The registrar: what the containers of this host ask for is registered with the Consul agent, and nothing else.
//!
//! `grammar` says what a container asks for, `wish` what all of them do, `plan` which steps lead there from what
//! Consul holds, `apply` carries them out, and [`run`] does so whenever something changed. All but the last two
//! are pure. It never changes a service that does not carry the mark of this host. What was done before is kept by
//! Consul alone: the registrar has no state of its own that matters.

mod address;
mod apply;
mod checks;
mod config;
pub(crate) mod duration;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grammar;
mod identity;
pub mod meta;
mod metrics;
mod plan;
mod preview;
mod registration;
mod seen;
mod settings;
mod stage;
mod status;
mod template;
mod wish;
mod words;

pub use config::Config;
pub use grammar::registrations;
pub(crate) use identity::{HOST_REMEDY, is_host_name};
pub use metrics::Metrics;
pub(crate) use plan::CONSULS_TAGS;
pub use preview::{preview, preview_json};
pub use registration::{Check, CheckKind, CheckStatus, Reading, Registration};
pub use seen::{Chosen, Life, Registered, Seen};
pub use settings::{Addressing, Settings};
pub use stage::{Error, identified, run};
pub use status::{Outputs, Status};
pub use template::{Template, TemplateError};
pub use wish::Deregister;
pub use words::list as tag_list;
