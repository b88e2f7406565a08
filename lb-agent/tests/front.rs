//! The front over real sockets, byte by byte. Everything is on loopback, on ports of the kernel's choice.
#![expect(
    clippy::unwrap_used,
    reason = "a test's tools may fail as loudly as the test itself"
)]

#[path = "front/access.rs"]
mod access;
#[path = "front/bytes.rs"]
mod bytes;
#[path = "front/kit.rs"]
mod kit;
#[path = "front/process.rs"]
mod process;
#[path = "front/sending.rs"]
mod sending;
#[path = "front/upgrade.rs"]
mod upgrade;
