//! The Docker Engine of this host: which containers there are. Everything that asks the engine is here.
//!
//! [`run`] follows the engine and sends [`Engine`] values: it subscribes to the events first, then lists, then looks at
//! each container that an event or the list names, and at the networks when one comes or goes. An event is a hint to look again; only the end of a container is
//! believed at once, since it is what must be quick. It never changes anything in the engine.

mod client;
mod config;
mod container;
mod engine;
mod error;
mod event;
mod events;
mod follow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inspect;
mod table;
pub(crate) mod time;
mod version;

pub(crate) use client::look;
pub use config::{Address, AddressError, Config};
pub use container::{
    Container, Endpoint, Health, NetworkMode, Port, Process, Protocol, Published, State,
};
pub use engine::{Containers, Engine, Network, Networks};
pub use error::RequestError;
pub use follow::{Error, run};
