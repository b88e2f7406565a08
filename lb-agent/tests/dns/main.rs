//! The resolver on the wire: real sockets on loopback, with a scripted upstream in the same process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod forward;
mod kit;
mod names;
mod upstream;
mod wire;
