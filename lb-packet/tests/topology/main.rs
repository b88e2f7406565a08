//! Whole networks in namespaces, with real TCP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod asymmetric;
mod attached;
mod card;
mod client;
mod direct;
mod lasting;
mod load;
mod nat;
mod net;
mod scene;
mod takeover;
mod tap;
