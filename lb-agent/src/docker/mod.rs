//! The Docker Engine of this host: which containers there are. Everything that asks the engine is here.

mod container;

pub use container::{Container, Endpoint, Health, NetworkMode, Port, Protocol, Published, State};
