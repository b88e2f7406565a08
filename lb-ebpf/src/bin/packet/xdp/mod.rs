//! Packets at the network card, before there is a stack: from clients elsewhere to backends elsewhere, and back.
//!
//! What is none of ours is told by its destination alone, and passed.

mod back;
mod carry;
mod leave;
mod message;
mod refuse;
mod tunnel;
mod wire;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::packet::{Fate, oddity, step};
use lb_ebpf::packet::{
    Bytes as _, ETHERNET, Fragment, IPV4, IPV6, Link, destination4, is_tag, link, raw16,
};

use crate::{
    context::Ctx,
    count,
    family::{Family as _, V4, V6},
    maps::{OWN_ADDRESS, SOURCE4, STEPS, pools},
    sample,
};
use wire::{Known, Seen, Wire};

const PASS: u32 = XDP_PASS;
const DROP: u32 = XDP_DROP;

/// At a network card. What is not IPv4 as nearly all of it is, is the steps' that follow.
#[xdp]
pub fn xdp_card(ctx: XdpContext) -> u32 {
    let raw = &ctx;
    let ctx = Ctx::new(ctx.ctx);
    let memory = ctx.memory();
    if let Some(destination) = destination4(&memory) {
        let vip = pools().holds(destination.raw());
        if !vip && destination.raw() != SOURCE4.load() {
            return PASS;
        }
        if let Some(seen) = V4::plain(&memory) {
            if !vip {
                return back::back(ctx, &seen);
            }
            if destination.raw() != OWN_ADDRESS.load() {
                return carry::carry(ctx, &seen, destination);
            }
        }
    } else if !is_ours(ctx) {
        return PASS;
    }
    go_on(raw, step::ANY)
}

/// Packets of any form, and those of IPv6.
#[xdp]
pub fn xdp_card_any(ctx: XdpContext) -> u32 {
    let raw = &ctx;
    let ctx = Ctx::new(ctx.ctx);
    let memory = ctx.memory();
    let verdict = match link(&memory) {
        Some(Link {
            kind: IPV4,
            network,
        }) => any::<V4>(ctx, network),
        Some(Link {
            kind: IPV6,
            network,
        }) => any::<V6>(ctx, network),
        _ => PASS,
    };
    if verdict == GO_ON {
        go_on(raw, step::MESSAGE)
    } else {
        verdict
    }
}

/// What is neither TCP nor UDP.
#[xdp]
pub fn xdp_card_message(ctx: XdpContext) -> u32 {
    let ctx = Ctx::new(ctx.ctx);
    let memory = ctx.memory();
    match link(&memory) {
        Some(Link {
            kind: IPV4,
            network,
        }) => rare::<V4>(ctx, network),
        Some(Link {
            kind: IPV6,
            network,
        }) => rare::<V6>(ctx, network),
        _ => PASS,
    }
}

/// No verdict: the next step is asked.
const GO_ON: u32 = u32::MAX;

/// Goes on with another program, or passes the packet if there is none.
#[inline(always)]
fn go_on(ctx: &XdpContext, step: u32) -> u32 {
    // SAFETY: nothing here is to be dropped.
    unsafe { STEPS.tail_call(ctx, step) };
    PASS
}

/// Whether a frame that is not of IPv4 without a tag may concern us: where it holds IPv6, by its destination.
#[inline(always)]
fn is_ours(ctx: Ctx) -> bool {
    let memory = ctx.memory();
    let Some(head) = memory.window::<ETHERNET>(0) else {
        return false;
    };
    match raw16::<12, ETHERNET>(head) {
        IPV6 => V6::destination(&memory, ETHERNET).is_some_and(|destination| {
            pools().holds_v6(destination) || V6::own().is_some_and(|own| own == destination)
        }),
        kind => is_tag(kind),
    }
}

/// At the other end of a veth that XDP sends frames to, which drops them while it has no program: for tests.
#[xdp]
pub fn xdp_pass(_: XdpContext) -> u32 {
    PASS
}

/// A packet that may have a tag, options or extension headers. What is neither TCP nor UDP is the next step's.
#[inline(never)]
fn any<F: Wire>(ctx: Ctx, network: usize) -> u32 {
    let network = ctx.some_place(network);
    let Some(known) = Known::<F>::here() else {
        return PASS;
    };
    let seen = &mut known.seen;
    let read = if is_plain(ctx, seen) {
        0
    } else {
        read(ctx, network, seen)
    };
    let vip = F::is_vip(&seen.ends.destination);
    let ports = read == 0 && seen.has_ports() && matches!(seen.fragment, Fragment::Whole);
    let Some(vip) = vip else {
        let own = F::own().is_some_and(|own| own == seen.ends.destination);
        return if own && ports {
            back::back(ctx, seen)
        } else if read == 0 && own {
            GO_ON
        } else {
            PASS
        };
    };
    if vip.raw() == OWN_ADDRESS.load() {
        return PASS;
    }
    if !ports {
        return GO_ON;
    }
    if seen.options {
        count::place(oddity::OPTIONS);
    }
    carry::carry(ctx, seen, vip)
}

/// The same for what is neither TCP nor UDP, or not whole.
#[inline(always)]
fn rare<F: Wire>(ctx: Ctx, network: usize) -> u32 {
    let network = ctx.some_place(network);
    let Some(known) = Known::<F>::here() else {
        return PASS;
    };
    let read = read(ctx, network, &mut known.seen);
    let seen = &known.seen;
    let Some(vip) = F::is_vip(&seen.ends.destination) else {
        return if F::own().is_some_and(|own| own == seen.ends.destination) {
            to_own(ctx, known)
        } else {
            PASS
        };
    };
    if vip.raw() == OWN_ADDRESS.load() {
        return PASS;
    }
    if read != 0 {
        return dropped(ctx, Fate::Malformed, 0);
    }
    if seen.options {
        count::place(oddity::OPTIONS);
    }
    if !matches!(seen.fragment, Fragment::Whole) {
        dropped(ctx, Fate::Fragment, 0)
    } else if seen.proto == F::ICMP {
        message::to_vip(ctx, known, vip)
    } else {
        dropped(ctx, Fate::Protocol, 0)
    }
}

/// Reads a packet as nearly all are; whether it is one.
#[inline(always)]
fn is_plain<F: Wire>(ctx: Ctx, seen: &mut Seen<F>) -> bool {
    let Some(plain) = F::plain(&ctx.memory()) else {
        return false;
    };
    *seen = plain;
    true
}

/// Reads a packet; not 0 if it is malformed. Its destination is there even so, if it has one.
#[inline(never)]
fn read<F: Wire>(ctx: Ctx, network: usize, seen: &mut Seen<F>) -> u32 {
    *seen = Seen::new(network);
    let memory = ctx.memory();
    if let Some(destination) = F::destination(&memory, network) {
        seen.ends.destination = destination;
    }
    F::read(&memory, seen).is_err().into()
}

/// A packet to this host: an error about one that was sent in the name of a client, or a tunnel.
#[inline(always)]
fn to_own<F: Wire>(ctx: Ctx, known: &mut Known<F>) -> u32 {
    let seen = &known.seen;
    if !matches!(seen.fragment, Fragment::Whole) {
        back::part(ctx, seen)
    } else if seen.proto == F::ICMP {
        message::to_own(ctx, known)
    } else if seen.proto == F::TUNNEL {
        tunnel::open(ctx, seen)
    } else {
        PASS
    }
}

/// Drops a packet that concerns a VIP of the service, or of none if that is 0.
#[inline(always)]
fn dropped(ctx: Ctx, fate: Fate, service: u32) -> u32 {
    sample::some(&ctx, fate);
    drop_told(fate, service)
}

/// The same for one that was told already, if it was to be.
#[inline(always)]
fn drop_told(fate: Fate, service: u32) -> u32 {
    count::fate(fate);
    if service != 0 {
        count::dropped(service);
    }
    DROP
}
