//! The agent. Data flows one way, and each arrow is a value:
//! sources → [`catalog::Catalog`] → [`snapshot::Snapshot`] → maps, routes, names, reports.
//!
//! ARCHITECTURE.md has the map of the modules and the invariants.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod discover;
pub mod dns;
pub mod front;
pub mod health;
pub mod options;
pub mod snapshot;
pub mod state_file;
pub mod stats;
pub mod vip;
