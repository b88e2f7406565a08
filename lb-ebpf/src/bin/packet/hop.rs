//! Next hops: which device a packet leaves by, and who takes its frame. Asked of the kernel's routes and neighbours, and kept
//! for a second or two.

use core::{hint::cold_path, mem::size_of};

use aya_ebpf::helpers::generated::bpf_fib_lookup;
use lb_common::{
    Be32,
    packet::{Fate, Hop, Way},
};

use crate::{context::Ctx, family::Family, flow::seconds};

/// Seconds that an answer holds, rounded up: a route or a neighbour may have changed by then.
const HOLDS_SECONDS: u32 = 2;

/// Nobody knows yet who takes frames there: `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;

/// The flow went while its hop was asked for: the packet has no way, and none of the kernel's answers is this.
const NOBODYS: i64 = -1;

/// The kernel's `struct bpf_fib_lookup`.
#[repr(C)]
pub(crate) struct Lookup {
    family: u8,
    proto: u8,
    ports: [u16; 2],
    /// In: a length that must fit, or 0; out: the greatest that does.
    size: u16,
    /// In: where the packet came by; out: where it leaves.
    device: u32,
    class: u32,
    source: [u32; 4],
    destination: [u32; 4],
    vlan: [u16; 2],
    from: [u8; 6],
    to: [u8; 6],
}

const SIZE: i32 = 64;

const _: () = assert!(size_of::<Lookup>() == SIZE as usize);

/// How a family asks.
pub(crate) trait Routed: Family {
    /// `AF_INET` or `AF_INET6`.
    const NUMBER: u8;
    /// An address in the form of the question.
    fn asked(address: Self::Address) -> [u32; 4];
}

impl Routed for crate::family::V4 {
    const NUMBER: u8 = 2;

    #[inline(always)]
    fn asked(address: Be32) -> [u32; 4] {
        [address.raw(), 0, 0, 0]
    }
}

impl Routed for crate::family::V6 {
    const NUMBER: u8 = 10;

    #[inline(always)]
    fn asked(address: [u32; 4]) -> [u32; 4] {
        address
    }
}

/// Makes `hop` hold for packets to an address. `whose` is null, or where it says whose hop it is: `to`, until whoever takes out
/// what is over has given its element to another flow.
///
/// # Errors
/// [`Fate::Stack`]: who takes the frames is not known, and `hop` says where they leave; [`Fate::NoRoute`]: there is no way.
#[inline(always)]
pub(crate) fn hold<F: Routed>(
    ctx: Ctx,
    hop: *mut Hop,
    to: &F::Address,
    way: Way,
    whose: *const [u32; 4],
) -> Result<(), Fate> {
    // SAFETY: values live as long as the map; aligned words are not torn.
    let holds = unsafe { (*hop).until_seconds > seconds() && (*hop).way == way as u16 };
    if holds {
        return Ok(());
    }
    cold_path();
    match ask::<F>(ctx, hop, to, way as u16, whose) {
        0 => Ok(()),
        NO_NEIGHBOUR => Err(Fate::Stack),
        _ => Err(Fate::NoRoute),
    }
}

/// Asks, and answers what the kernel does. Not part of the caller, whose stack has no room for it.
#[inline(never)]
fn ask<F: Routed>(
    ctx: Ctx,
    hop: *mut Hop,
    to: &F::Address,
    way: u16,
    whose: *const [u32; 4],
) -> i64 {
    let mut lookup = Lookup {
        family: F::NUMBER,
        proto: 0,
        ports: [0; 2],
        size: 0,
        device: ctx.device(),
        class: 0,
        source: [0; 4],
        destination: F::asked(*to),
        vlan: [0; 2],
        from: [0; 6],
        to: [0; 6],
    };
    // SAFETY: the kernel passes a valid context, and the question is as it knows it.
    let answer = unsafe { bpf_fib_lookup(ctx.raw().cast(), (&raw mut lookup).cast(), SIZE, 0) };
    // SAFETY: values live as long as the map; who reads one while it changes sends one frame to nobody.
    unsafe {
        (*hop).until_seconds = 0;
        (*hop).device = lookup.device;
        (*hop).way = way;
        if answer == 0 {
            (*hop).destination = lookup.to;
            (*hop).source = lookup.from;
            (*hop).mtu = lookup.size;
            (*hop).until_seconds = seconds().wrapping_add(HOLDS_SECONDS);
        } else {
            (*hop).mtu = 0;
        }
    }
    answer
}
