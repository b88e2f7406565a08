//! The agent. Data flows one way, and each arrow is a value:
//! sources → [`catalog::Catalog`] → [`snapshot::Snapshot`] → maps, routes, names, reports.
//!
//! ARCHITECTURE.md has the map of the modules and the invariants.

pub mod admin;
pub mod announce;
mod askers;
pub mod assemble;
pub mod bundle;
pub mod catalog;
pub mod check_config;
pub mod cli;
pub mod clients;
pub mod config;
pub mod cow_map;
mod cpu;
pub mod desired;
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
pub mod installed;
pub mod last_lines;
pub mod maps;
pub mod network;
pub mod options;
pub mod order;
pub mod packet;
pub mod plan;
pub mod programs;
pub mod reconcile;
pub mod registrar;
pub mod removal;
pub mod routes;
pub mod snapshot;
pub mod sockets;
pub mod state_file;
pub mod stats;
pub mod trace;
pub mod views;
pub mod vip;
