//! The packet path: flows that no socket hook sees are balanced packet by packet.
//!
//! `tc_client_in` and `tc_client_out` stand at the devices of clients on this host, `tc_card_in` and `tc_card_out` at the
//! network card for backends of this host, and `xdp_card` before it for backends elsewhere. A packet that is none of ours costs a read and a compare.
#![no_std]
#![no_main]
// The entry points are found by section, and their macros lose the doc comments.
#![allow(missing_docs, unreachable_pub)]
// For the atomics of the shared kernel module.
#![feature(core_intrinsics)]
// For a value that the compiler must not compute twice.
#![feature(asm_experimental_arch)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the fields of one context or map value are read and written together, under one promise"
)]
#![expect(internal_features, reason = "see above")]

mod context;
mod count;
mod endpoint;
mod family;
mod flow;
mod hop;
#[path = "../../kernel/mod.rs"]
#[expect(dead_code, reason = "shared with the objects that use all of it")]
mod kernel;
mod maps;
mod memory;
mod place;
mod reply;
mod sample;
mod tc;
mod xdp;
