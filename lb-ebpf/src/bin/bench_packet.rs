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
#![expect(
    clippy::cast_possible_truncation,
    reason = "packets are short, and of a number the lower half is wanted"
)]

#[path = "../kernel/mod.rs"]
#[expect(dead_code, reason = "shared with the objects that use all of it")]
mod kernel;

use core::hint::black_box;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray},
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use kernel::add_u32;
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
    /// Packets that were made, modulo 2^32.
    made: u32,
}

/// The word of a packet that its number goes into, and where in it: bytes 27 to 29, which are of the source address in IPv4
/// as in IPv6.
const NUMBERED_WORD: usize = 3;
const NUMBERED_BIT: u32 = 24;

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
    verdict(all(&ctx))
}

#[inline(always)]
fn all(ctx: &XdpContext) -> Option<()> {
    let number = number(ctx)?;
    let service = find_endpoint(number)?;
    let backend = hit_flow(number)?;
    let port = find_target(backend)?;
    add(service)?;
    add(backend)?;
    add(u32::from(port) & 1)
}

/// The first of them alone.
#[xdp]
pub fn vip_hash(ctx: XdpContext) -> u32 {
    verdict(number(&ctx).and_then(find_endpoint))
}

/// The second.
#[xdp]
pub fn lru_hit(ctx: XdpContext) -> u32 {
    verdict(number(&ctx).and_then(hit_flow))
}

/// The third.
#[xdp]
pub fn array(ctx: XdpContext) -> u32 {
    verdict(number(&ctx).and_then(find_target))
}

/// The last three.
#[xdp]
pub fn percpu_adds(ctx: XdpContext) -> u32 {
    verdict(number(&ctx).and_then(|number| {
        add(number)?;
        add(number.wrapping_add(1))?;
        add(number.wrapping_add(2))
    }))
}

/// One insert of a flow that was not there.
#[xdp]
pub fn insert(ctx: XdpContext) -> u32 {
    verdict(number(&ctx).and_then(|number| {
        let key = flow_key(number.wrapping_add(turn()?));
        BENCH_FLOWS.insert(key, Flow::default(), 0).ok()
    }))
}

/// Makes the packet anew, with the next number in its source address, and goes on to the program in `EATER`: what that one
/// did to the last packet is gone.
#[xdp]
pub fn feed(ctx: XdpContext) -> u32 {
    if make(&ctx).is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: nothing here is left to be dropped.
    unsafe { EATER.tail_call(&ctx, 0) };
    XDP_ABORTED
}

#[inline(always)]
fn make(ctx: &XdpContext) -> Option<()> {
    let variety = VARIETY.get_ptr_mut(0)?;
    // SAFETY: map values live as long as their map.
    let length = unsafe { (*variety).length };
    // The last run may have put a head before it. The verifier knows what one end of a packet is less the other, and nothing
    // else that LLVM would make of it.
    let added = black_box(ctx.data_end() - ctx.data()) as i32 - length as i32;
    // SAFETY: a plain helper call.
    if added != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, added) } != 0 {
        return None;
    }
    let number = turn()? & 0xff_ffff;
    let frame = FRAME.get_ptr(0)?;
    let data = ctx.data();
    if data + size_of::<[u64; FRAME_WORDS]>() > ctx.data_end() {
        return None;
    }
    for word in 0..FRAME_WORDS {
        // SAFETY: checked above. A packet of a test run begins behind 256 bytes of a page, so it is aligned.
        unsafe {
            let mut value = (*frame).as_ptr().add(word).read();
            if word == NUMBERED_WORD {
                value |= u64::from(number) << NUMBERED_BIT;
            }
            (data as *mut u64).add(word).write(value);
        }
    }
    // Locked, so that the packet is in the cache as one from a card is. Whoever reads across two words that are still on
    // their way there has to wait, and would be measured as slower than it is.
    // SAFETY: map values live as long as their map, and nobody else writes this one.
    unsafe { add_u32(&raw mut (*variety).made, 1) };
    Some(())
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
    // SAFETY: checked above; aligned, as said in `make`.
    Some(unsafe { (data as *const u32).read() })
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

/// The service of the one VIP.
#[inline(always)]
fn find_endpoint(number: u32) -> Option<u32> {
    let key = EndpointKey {
        port: Be16::from_raw(KEY.port.raw() ^ number as u16),
        ..KEY
    };
    let endpoint = BENCH_ENDPOINTS.get_ptr(key)?;
    // SAFETY: map values live as long as their map.
    Some(unsafe { (*endpoint).service })
}

/// The backend of the flow.
#[inline(always)]
fn hit_flow(number: u32) -> Option<u32> {
    let flow = BENCH_FLOWS.get_ptr(flow_key(number))?;
    // SAFETY: map values live as long as their map.
    Some(unsafe { (*flow).backend })
}

/// The port of the backend.
#[inline(always)]
fn find_target(backend: u32) -> Option<u16> {
    let target = BENCH_TARGETS.get_ptr(backend)?;
    // SAFETY: map values live as long as their map.
    Some(unsafe { (*target).port.raw() })
}

#[inline(always)]
fn add(index: u32) -> Option<()> {
    let counts = BENCH_COUNTS.get_ptr_mut(index)?;
    // SAFETY: array values live as long as the map; of one CPU.
    unsafe { (*counts).packets += 1 };
    Some(())
}

/// Whatever was missing must not pass for a measured run.
#[inline(always)]
fn verdict<T>(done: Option<T>) -> u32 {
    match done {
        Some(_) => XDP_DROP,
        None => XDP_ABORTED,
    }
}
