//! What talks with Consul, against a real one; a fake one only for what a real one cannot be made to do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fake/mod.rs"]
#[expect(dead_code, reason = "tests of the registrar use the rest")]
mod fake;
#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod faults;
mod follow;
mod kit;
mod rights;
mod scopes;
mod source;
mod tls;
mod vip;
