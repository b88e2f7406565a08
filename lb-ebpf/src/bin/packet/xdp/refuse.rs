//! Telling the sender of a packet that it goes nowhere.

use lb_common::packet::Fate;
use lb_ebpf::packet::{Bytes as _, QUOTED};

use super::{
    drop_told,
    leave::return_to_sender,
    wire::{Seen, Wire},
};
use crate::{context::Ctx, count};

/// Answers a TCP packet that nobody takes, unless it is a reset itself: that is dropped.
#[inline(never)]
pub(super) fn reset<F: Wire>(ctx: Ctx, seen: &Seen<F>, fate: Fate, service: u32) -> u32 {
    if F::reset(&mut ctx.memory(), seen).is_none() {
        return drop_told(fate, service);
    }
    if !cut(ctx, seen.network() + F::RESET) {
        return drop_told(Fate::Resize, service);
    }
    answered(ctx, fate, service)
}

/// Tells the sender how great packets may be.
#[inline(never)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "sizes of packets"
)]
pub(super) fn too_big<F: Wire>(ctx: Ctx, seen: &Seen<F>, mtu: usize, service: u32) -> u32 {
    let network = seen.network();
    if !cut(ctx, network + QUOTED) || !ctx.grow_head(F::ROOM as isize) {
        return drop_told(Fate::Resize, service);
    }
    let (source, asker) = (seen.ends.destination, seen.ends.source);
    if F::tell_too_big(&mut ctx.memory(), network, source, asker, mtu as u16).is_none() {
        return drop_told(Fate::Malformed, service);
    }
    answered(ctx, Fate::TooBig, service)
}

/// Cuts a frame off after `length` bytes, if it is longer; whether that was possible.
#[inline(always)]
pub(super) fn cut(ctx: Ctx, length: usize) -> bool {
    let now = ctx.memory().length();
    now <= length || ctx.grow_tail(length as isize - now as isize)
}

/// Sends what the frame has become to whom it came from, for a packet of the service.
#[inline(always)]
fn answered(ctx: Ctx, fate: Fate, service: u32) -> u32 {
    let Some(verdict) = return_to_sender(ctx) else {
        return drop_told(Fate::Malformed, service);
    };
    count::fate(fate);
    if service != 0 {
        count::dropped(service);
    }
    verdict
}
