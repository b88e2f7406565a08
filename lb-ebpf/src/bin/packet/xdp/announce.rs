//! Answering for VIPs on the network, while this host is the one that does.

use lb_common::{
    Be32,
    packet::{Fate, vip_flag},
};
use lb_ebpf::packet::{Bytes as _, answer_arp, arp_request};

use super::{
    PASS, drop_told,
    wire::{ADVERTISEMENT, Seen, Wire},
};
use crate::{
    context::Ctx,
    count,
    maps::{CARDS, SETTINGS, VIPS, pools},
    sample,
};

/// A frame of ARP.
#[inline(never)]
pub(super) fn arp(ctx: Ctx, network: usize) -> u32 {
    let network = network & 31;
    let Some(asked) = arp_request(&ctx.memory(), network) else {
        return PASS;
    };
    // Who announces an address asks for its own.
    if !pools().holds(asked.target.raw()) || asked.asker == asked.target {
        return PASS;
    }
    let Some(link) = answers_for(ctx, asked.target) else {
        return PASS;
    };
    sample::some(&ctx, Fate::Announced);
    if answer_arp(&mut ctx.memory(), network, &asked, link).is_none() {
        return drop_told(Fate::Malformed, 0);
    }
    count::fate(Fate::Announced);
    aya_ebpf::bindings::xdp_action::XDP_TX
}

/// A message of IPv6 that may ask neighbours for an address: answered if that is a VIP, and this host does.
#[inline(never)]
pub(super) fn solicited<F: Wire>(ctx: Ctx, seen: &Seen<F>) -> u32 {
    let Some(target) = F::solicited(&ctx.memory(), seen) else {
        return PASS;
    };
    let Some(vip) = F::is_vip(&target) else {
        return PASS;
    };
    let Some(link) = answers_for(ctx, vip) else {
        return PASS;
    };
    sample::some(&ctx, Fate::Announced);
    let length = seen.network() + ADVERTISEMENT;
    let more = length as isize - ctx.memory().length() as isize;
    if more != 0 && !ctx.grow_tail(more) {
        return drop_told(Fate::Resize, 0);
    }
    if F::advertise(&mut ctx.memory(), seen, target, link).is_none() {
        return drop_told(Fate::Malformed, 0);
    }
    count::fate(Fate::Announced);
    aya_ebpf::bindings::xdp_action::XDP_TX
}

/// The address on the link to answer with for a VIP, if this host does.
#[inline(always)]
fn answers_for(ctx: Ctx, vip: Be32) -> Option<[u8; 6]> {
    if SETTINGS.get(0)?.announcing == 0 {
        return None;
    }
    // SAFETY: elements live as long as the map.
    let flags = unsafe { (*VIPS.get_ptr(vip)?).flags };
    if flags & vip_flag::ANNOUNCED == 0 {
        return None;
    }
    let card = CARDS.get_ptr(ctx.device())?;
    // SAFETY: as above.
    Some(unsafe { (*card).address })
}
