//! The agent. Data flows one way, and each arrow is a value:
//! sources → [`catalog::Catalog`] → [`snapshot::Snapshot`] → maps, routes, names, reports.
//!
//! What it thinks is the crate `lb_core`: values, and pure functions of them. Here are the stages, which know sockets, files,
//! clocks and the kernel. ARCHITECTURE.md has the map of the modules and the invariants.

pub mod admin;
pub mod announce;
mod askers;
pub mod assemble;
pub mod bundle;
pub mod causes;
pub mod check_config;
pub mod cli;
pub mod clients;
pub mod config;
mod cpu;
pub mod discover;
pub mod dns;
pub mod docker;
pub mod doctor;
pub mod document;
pub mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod health;
pub mod host_dns;
pub mod last_lines;
pub mod maps;
pub mod network;
pub mod order;
pub mod packet;
pub mod programs;
pub mod reconcile;
pub mod registrar;
pub mod removal;
pub mod sockets;
pub mod state_file;
pub mod stats;
pub mod trace;
pub mod vip;
mod wait;

pub use lb_core::{catalog, cow_map, desired, installed, options, plan, routes, snapshot, views};
