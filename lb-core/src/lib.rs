//! What the agent thinks: values, and pure functions from values to values.
//!
//! Nothing here reads, writes, waits or looks at a clock: sources, time and chance come in as arguments, and what is to be
//! done goes out as a value. The stages of the agent carry it out. So every test here is quick, and a fault of these
//! functions is one that a test can show.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests begin at some time and read documents"
    )
)]

pub mod catalog;
pub mod clients;
pub mod cow_map;
pub mod desired;
pub mod health;
pub mod installed;
pub mod options;
pub mod order;
pub mod plan;
pub mod routes;
pub mod snapshot;
pub mod views;
pub mod vip;
