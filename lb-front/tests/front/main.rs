//! The front over real sockets, byte by byte. Everything is on loopback, on ports of the kernel's choice.
#![expect(
    clippy::unwrap_used,
    reason = "a test's tools may fail as loudly as the test itself"
)]

mod announced;
mod attacks;
mod bounds;
mod bounds_h2;
mod bytes;
mod closing;
mod counting;
mod cut;
mod draining;
mod dying;
mod dying_h2;
mod ejecting;
mod forms;
mod forwarding;
mod grpc;
mod h2;
mod h2c;
mod handshake;
mod interim;
mod kit;
mod kit_frames;
mod kit_h2;
mod large_bodies;
mod leaving;
mod limits;
mod log;
mod options;
mod pages;
mod passing;
mod pooled;
mod queueing;
mod reasons;
mod regressions;
mod restart;
mod sending;
mod sides;
mod slow;
mod smuggling;
mod streaming;
mod taking;
mod telling;
mod tls;
mod tlskit;
mod underscores;
mod upgrade;
mod websocket;
mod weights;
mod wskit;
