//! The admin interface over real sockets, and the command line against it.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod agent;
mod api;
mod commands;
mod events;
mod golden;
mod http;
mod otlp;
mod page;
mod session;
mod speed;
mod stream;
mod top;
mod values;
