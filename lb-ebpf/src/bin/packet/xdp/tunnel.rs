//! Tunnels to hosts that run an agent, and from them.

use lb_common::packet::Fate;

use super::{
    PASS, drop_told, dropped,
    wire::{Seen, Wire},
};
use crate::{context::Ctx, count, maps::HOSTS, sample};

/// Puts a packet into a tunnel to a host, or says why not.
#[inline(never)]
pub(super) fn enclose<F: Wire>(ctx: Ctx, seen: &Seen<F>, host: &F::Address, label: u32) -> Fate {
    let Some(own) = F::own() else {
        return Fate::NoHost;
    };
    if !ctx.grow_head(F::HEAD as isize) {
        return Fate::Resize;
    }
    match F::enclose(&mut ctx.memory(), seen, own, *host, label) {
        Some(()) => Fate::Tunnelled,
        None => Fate::Malformed,
    }
}

/// Takes a packet for a VIP out of a tunnel, from a host of ours; `tc_card_in` does the rest. Other tunnels are the stack's.
#[inline(never)]
pub(super) fn open<F: Wire>(ctx: Ctx, seen: &Seen<F>) -> u32 {
    let network = seen.network();
    let Some(inner) = F::destination(&ctx.memory(), network + F::HEAD) else {
        return PASS;
    };
    // Ours has neither options nor extension headers.
    if seen.options {
        return PASS;
    }
    if F::is_vip(&inner).is_none() {
        return PASS;
    }
    if HOSTS.get_ptr(F::wide(&seen.ends.source)).is_none() {
        return dropped(ctx, Fate::Stranger, 0);
    }
    sample::some(&ctx, Fate::Untunnelled);
    if let Err(fate) = F::open(&mut ctx.memory(), network, F::HEAD) {
        // It is as it came: told once more.
        return dropped(ctx, fate, 0);
    }
    if !ctx.grow_head(-(F::HEAD as isize)) {
        return drop_told(Fate::Resize, 0);
    }
    count::fate(Fate::Untunnelled);
    PASS
}
