//! Next hops: which device a packet leaves by, and who takes its frame. Asked of the kernel's routes and neighbours, and kept
//! for a second or two.

use core::{ffi::c_void, hint::cold_path, mem::size_of, ptr};

use aya_ebpf::helpers::generated::bpf_fib_lookup;
use lb_common::{
    Be32,
    packet::{Fate, Hop, Reply, Way},
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

impl Lookup {
    /// How a packet gets to an address that came by a device.
    #[inline(always)]
    fn new<F: Routed>(device: u32, to: &F::Address) -> Self {
        Self {
            family: F::NUMBER,
            proto: 0,
            ports: [0; 2],
            size: 0,
            device,
            class: 0,
            source: [0; 4],
            destination: F::asked(*to),
            vlan: [0; 2],
            from: [0; 6],
            to: [0; 6],
        }
    }
}

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

/// Where a packet leaves, as the maps keep it.
#[derive(Clone, Copy)]
pub(crate) struct Leg {
    hop: *mut Hop,
    way: Way,
    /// [`seconds`]: a packet reads its clock once.
    now: u32,
    /// Null, or where it says whose hop it is: whoever takes out what is over may give its element to another flow.
    whose: *const [u32; 4],
}

impl Leg {
    /// To a backend or its host.
    #[inline(always)]
    pub(crate) const fn to_backend(hop: *mut Hop, way: Way, now: u32) -> Self {
        Self {
            hop,
            way,
            now,
            whose: ptr::null(),
        }
    }

    /// To the client of a flow.
    #[inline(always)]
    pub(crate) fn to_client(reply: *mut Reply, now: u32) -> Self {
        // SAFETY: elements live as long as the map.
        let (hop, whose) = unsafe { (&raw mut (*reply).hop, &raw const (*reply).client) };
        Self {
            hop,
            way: Way::Full,
            now,
            whose,
        }
    }

    /// How frames get there, once it holds.
    #[inline(always)]
    pub(crate) const fn hop(self) -> *mut Hop {
        self.hop
    }
}

/// The device that a packet leaves by that came by `device`, if there is a way. `ctx` is a program's context.
#[inline(always)]
pub(crate) fn device_to<F: Routed>(ctx: *mut c_void, device: u32, to: &F::Address) -> Option<u32> {
    let mut lookup = Lookup::new::<F>(device, to);
    // SAFETY: the kernel passes a valid context, and the question is as it knows it.
    let answer = unsafe { bpf_fib_lookup(ctx, (&raw mut lookup).cast(), SIZE, 0) };
    matches!(answer, 0 | NO_NEIGHBOUR).then_some(lookup.device)
}

/// Makes a next hop hold for packets to an address.
///
/// # Errors
/// [`Fate::Stack`]: who takes the frames is not known, and the hop says where they leave; [`Fate::NoRoute`]: there is no way.
#[inline(always)]
pub(crate) fn hold<F: Routed>(ctx: Ctx, leg: Leg, to: &F::Address) -> Result<(), Fate> {
    let Leg {
        hop,
        way,
        now,
        whose,
    } = leg;
    // SAFETY: values live as long as the map; aligned words are not torn.
    let holds = unsafe { (*hop).until_seconds > now && (*hop).way == way as u16 };
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
    let mut lookup = Lookup::new::<F>(ctx.device(), to);
    // SAFETY: the kernel passes a valid context, and the question is as it knows it.
    let mut answer = unsafe { bpf_fib_lookup(ctx.raw().cast(), (&raw mut lookup).cast(), SIZE, 0) };
    // Before Linux 6.3 a neighbour that was asked for in vain is an answer, too.
    if answer == 0 && lookup.to == [0; 6] {
        answer = NO_NEIGHBOUR;
    }
    // SAFETY: elements live as long as the map; any bytes are integers.
    if !whose.is_null() && *F::narrow(unsafe { &*whose }) != *to {
        return NOBODYS;
    }
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
