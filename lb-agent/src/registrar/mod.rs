//! The registrar: what the containers of this host ask for is registered with the Consul agent, and nothing else.
//!
//! `grammar` says what a container asks for. It never removes a service that does not carry the mark of this host.

mod address;
mod checks;
pub(crate) mod duration;
mod grammar;
pub mod meta;
mod registration;
mod settings;
mod template;
mod words;

pub use grammar::registrations;
pub use registration::{Check, CheckKind, CheckStatus, Reading, Registration};
pub use settings::{Addressing, Settings};
pub use template::{Template, TemplateError};
pub use words::list as tag_list;
