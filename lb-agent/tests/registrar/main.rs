//! The registrar against a real Consul: with containers that a test makes up, and with those of a real engine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod apart;
mod checks;
mod drain;
mod engine;
#[path = "../fake/mod.rs"]
#[expect(dead_code, reason = "tests of the source use the rest")]
mod fake;
mod filter;
mod kit;
mod life;
mod repair;
mod rights;
mod scopes;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other tests of Consul use the rest")]
mod support;
mod world;
