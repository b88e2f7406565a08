//! Real maps, without packets: what is published is there and is taken over, and flows are listed, flushed and collected.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collect;
mod kit;
mod list;
mod publish;
