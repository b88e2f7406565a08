//! In preparation.

pub mod consul;
