//! What `cargo xtask bench socket` holds against the programs of `socket.rs`, in their own links: an empty
//! program for each hook, and one that only creates the socket's record. Never part of the agent.
#![no_std]
#![no_main]
// The entry points are found by section, and their macros lose the doc comments.
#![allow(missing_docs, unreachable_pub)]
// For the atomics of the shared kernel module.
#![feature(core_intrinsics)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a field of a context, under one promise"
)]
#![expect(internal_features, reason = "see above")]

#[path = "../kernel/mod.rs"]
#[expect(dead_code, reason = "shared with the objects that use all of it")]
mod kernel;

use aya_ebpf::{
    btf_maps::SkStorage,
    macros::{btf_map, cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use kernel::stored_or_new;
use lb_common::Record;

/// A map of its own, of the same kind and size as the agent's.
#[btf_map]
static RECORDS: SkStorage<Record> = SkStorage::new();

/// What a cgroup hook answers to let the call go on.
const PROCEED: i32 = 1;

/// What any program has to pay that remembers something about a flow.
#[cgroup_sock_addr(connect4)]
pub fn record_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    stored_or_new(&RECORDS, sk.cast());
    PROCEED
}

#[cgroup_sock_addr(connect4)]
pub fn empty_connect4(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(getpeername4)]
pub fn empty_getpeername4(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn empty_getpeername6(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(connect6)]
pub fn empty_connect6(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(recvmsg4)]
pub fn empty_recvmsg4(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(recvmsg6)]
pub fn empty_recvmsg6(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(sendmsg4)]
pub fn empty_sendmsg4(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock_addr(sendmsg6)]
pub fn empty_sendmsg6(_ctx: SockAddrContext) -> i32 {
    PROCEED
}

#[cgroup_sock(sock_release)]
pub fn empty_sock_release(_ctx: SockContext) -> i32 {
    PROCEED
}

#[sock_ops]
pub fn empty_sock_ops(_ctx: SockOpsContext) -> u32 {
    1
}
