//! What `cargo xtask bench packet` holds against the programs of `packet`: the bare primitives that any balancer of packets
//! pays for, and a program that makes a fresh packet for each run of another one. Never part of the agent.
#![no_std]
#![no_main]
// The entry points are found by section, and their macros lose the doc comments.
#![allow(missing_docs, unreachable_pub)]
// For the atomics of the shared kernel module.
#![feature(core_intrinsics)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the words of one packet are written together, under one bounds check"
)]
#![expect(internal_features, reason = "see above")]

#[path = "../kernel/mod.rs"]
#[expect(dead_code, reason = "shared with the objects that use all of it")]
mod kernel;

use core::ptr;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray},
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    Be16, Be32, PROTO_TCP,
    packet::{Endpoint, EndpointKey, Flow, FlowKey4, Target, Traffic},
};

// Of the same kinds and sizes as the agent's.
#[btf_map]
static BENCH_ENDPOINTS: HashMap<EndpointKey, Endpoint, 4096> = HashMap::new();
#[btf_map]
static BENCH_FLOWS: LruHashMap<FlowKey4, Flow, 262144> = LruHashMap::new();
#[btf_map]
static BENCH_TARGETS: Array<Target, 4096> = Array::new();
#[btf_map]
static BENCH_COUNTS: PerCpuArray<Traffic, 4096> = PerCpuArray::new();

/// The program that [`feed`] makes packets for.
#[btf_map]
static EATER: ProgramArray<1> = ProgramArray::new();

/// Element 0: the packet as it is to be made.
#[btf_map]
static FRAME: Array<[u64; FRAME_WORDS], 1> = Array::new();

/// The first words of a packet, which are all that the programs look at.
const FRAME_WORDS: usize = 8;

/// How packets differ from one another.
#[btf_map]
static VARIETY: Array<Variety, 1> = Array::new();

/// Value of `VARIETY`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Variety {
    /// The next packet's number. One CPU at a time.
    turn: u32,
    /// Packets after which they repeat: 1 makes all equal, 0 none.
    period: u32,
    /// How long the packet is, with the link's head.
    length: u32,
    /// Where its source address lies: the number goes into the last three bytes.
    source_at: u32,
}

const KEY: EndpointKey = EndpointKey {
    vip: Be32::from_raw(u32::from_ne_bytes([198, 18, 0, 2])),
    port: Be16::from_host(80),
    proto: PROTO_TCP,
    scope: 0,
};

/// What only costs being called.
#[xdp]
pub fn empty(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// One look-up of a VIP, one hit of a flow, one look-up of a backend and three counts. Keys come from the packet, so that nothing
/// is computed beforehand.
#[xdp]
pub fn primitives(ctx: XdpContext) -> u32 {
    let Some(number) = number(&ctx) else {
        return XDP_ABORTED;
    };
    let key = EndpointKey {
        port: Be16::from_raw(KEY.port.raw() ^ number as u16),
        ..KEY
    };
    let Some(endpoint) = BENCH_ENDPOINTS.get_ptr(&key) else {
        return XDP_ABORTED;
    };
    let Some(flow) = BENCH_FLOWS.get_ptr(&flow_key(number)) else {
        return XDP_ABORTED;
    };
    // SAFETY: map values live as long as their map.
    let (service, backend) = unsafe { ((*endpoint).service, (*flow).backend) };
    let Some(target) = BENCH_TARGETS.get_ptr(backend) else {
        return XDP_ABORTED;
    };
    // SAFETY: as above.
    let port = unsafe { (*target).port };
    add(service);
    add(backend);
    add(u32::from(port.raw()) & 1);
    XDP_DROP
}

/// One insert of a flow that was not there.
#[xdp]
pub fn insert(ctx: XdpContext) -> u32 {
    let Some(number) = number(&ctx) else {
        return XDP_ABORTED;
    };
    let Some(turn) = turn() else {
        return XDP_ABORTED;
    };
    match BENCH_FLOWS.insert(&flow_key(number.wrapping_add(turn)), &Flow::default(), 0) {
        Ok(()) => XDP_DROP,
        Err(_) => XDP_ABORTED,
    }
}

/// Makes the packet anew, with the next number in its source address, and goes on to the program in `EATER`: what that one
/// did to the last packet is gone.
#[xdp]
pub fn feed(ctx: XdpContext) -> u32 {
    let Some(variety) = VARIETY.get_ptr(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: map values live as long as their map.
    let (length, source_at) = unsafe { ((*variety).length, (*variety).source_at) };
    // The last run may have put a head before it.
    let added = (ctx.data_end() - ctx.data()) as i32 - length as i32;
    // SAFETY: a plain helper call.
    if added != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, added) } != 0 {
        return XDP_ABORTED;
    }
    let Some(number) = turn() else {
        return XDP_ABORTED;
    };
    let Some(frame) = FRAME.get_ptr(0) else {
        return XDP_ABORTED;
    };
    let data = ctx.data();
    if data + size_of::<[u64; FRAME_WORDS]>() > ctx.data_end() {
        return XDP_ABORTED;
    }
    for word in 0..FRAME_WORDS {
        // SAFETY: checked above; the packet need not be aligned.
        unsafe {
            let from = (*frame).as_ptr().add(word);
            (data as *mut u64).add(word).write_unaligned(from.read());
        }
    }
    let at = source_at as usize & 31;
    // SAFETY: two bytes at 33 at most.
    unsafe {
        let source = (data as *mut u8).add(at);
        source
            .add(1)
            .cast::<u16>()
            .write_unaligned((number >> 8) as u16);
        source.add(3).write(number as u8);
    }
    // SAFETY: nothing here is left to be dropped.
    unsafe { EATER.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// The number of the next packet.
#[inline(always)]
fn turn() -> Option<u32> {
    let variety = VARIETY.get_ptr_mut(0)?;
    // SAFETY: map values live as long as their map; one CPU at a time.
    unsafe {
        let turn = (*variety).turn;
        let next = turn.wrapping_add(1);
        (*variety).turn = if next == (*variety).period { 0 } else { next };
        Some(turn)
    }
}

/// An integer of the packet: 0, but the compiler does not know.
#[inline(always)]
fn number(ctx: &XdpContext) -> Option<u32> {
    let data = ctx.data();
    if data + 4 > ctx.data_end() {
        return None;
    }
    // SAFETY: checked above.
    Some(unsafe { ptr::read_unaligned(data as *const u32) })
}

#[inline(always)]
fn flow_key(number: u32) -> FlowKey4 {
    FlowKey4::new(
        Be32::from_raw(number),
        Be16::from_host(1024),
        KEY.vip,
        KEY.port,
        KEY.proto,
    )
}

#[inline(always)]
fn add(index: u32) {
    if let Some(counts) = BENCH_COUNTS.get_ptr_mut(index) {
        // SAFETY: array values live as long as the map; of one CPU.
        unsafe { (*counts).packets += 1 };
    }
}
