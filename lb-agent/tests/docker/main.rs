//! The follower of the Docker Engine, and the agent with it, against a real engine of each test's own; a fake one only
//! to inject faults.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod agent;
mod clients;
mod contained;
mod fake;
mod faults;
mod kit;
mod life;
mod networks;
mod swarm;
mod views;
