//! Whole networks in namespaces, with real TCP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod asymmetric;
mod card;
mod client;
mod direct;
mod load;
mod nat;
mod net;
mod takeover;
mod tap;
