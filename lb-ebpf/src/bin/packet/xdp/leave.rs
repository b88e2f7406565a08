//! How a packet that was rewritten leaves.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX},
    helpers::generated::bpf_redirect,
};
use lb_common::packet::{Fate, HAND_OVER, HandOver, Hop};
use lb_ebpf::packet::{Bytes as _, set_link_addresses, swap_link_addresses};

use crate::{context::Ctx, maps::CARDS};

/// A way out that is decided before the packet is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// By the device that it came by.
    Here,
    /// By another card.
    Card,
    /// By the stack: who takes the frame is not known, or it is to be put into a VLAN or to leave by a device that is no card.
    Stack,
}

const _: () = assert!(
    offset_of!(Hop, destination) == 8 && offset_of!(Hop, source) == 8 + 6 && align_of::<Hop>() == 4
);

/// Which way out there is by a next hop that holds.
#[inline(always)]
pub(super) fn out(ctx: Ctx, hop: *const Hop, tagged: bool) -> Out {
    // SAFETY: values live as long as the map.
    let device = unsafe { (*hop).device };
    if tagged {
        Out::Stack
    } else if device == ctx.device() {
        Out::Here
    } else if CARDS.get_ptr(device).is_some() {
        Out::Card
    } else {
        Out::Stack
    }
}

/// Sends the packet.
///
/// # Errors
/// [`Fate::Resize`]: the card has no room for what the stack must be told.
#[inline(always)]
pub(super) fn leave(ctx: Ctx, hop: *const Hop, out: Out) -> Result<u32, Fate> {
    // SAFETY: values live as long as the map; who reads one while it changes sends one frame to nobody.
    let device = unsafe { (*hop).device };
    if matches!(out, Out::Stack) {
        return hand_over(ctx, device);
    }
    // SAFETY: as above; both addresses lie one after the other, at a multiple of four bytes.
    let both = unsafe { *(&raw const (*hop).destination).cast::<[u32; 3]>() };
    set_link_addresses(&mut ctx.memory(), both).ok_or(Fate::Malformed)?;
    if matches!(out, Out::Here) {
        return Ok(XDP_TX);
    }
    // SAFETY: a plain helper call.
    let answer = unsafe { bpf_redirect(device, 0) };
    if answer == i64::from(XDP_REDIRECT) {
        Ok(XDP_REDIRECT)
    } else {
        Err(Fate::NoRoute)
    }
}

/// Lets `tc_card_in` send it by a device, when the stack knows who takes its frame.
#[inline(never)]
fn hand_over(ctx: Ctx, device: u32) -> Result<u32, Fate> {
    let told = HandOver {
        mark: HAND_OVER,
        device,
    };
    if !ctx.grow_metadata(size_of::<HandOver>() as isize) {
        return Err(Fate::Resize);
    }
    let [m0, m1, m2, m3] = told.mark.to_ne_bytes();
    let [d0, d1, d2, d3] = told.device.to_ne_bytes();
    ctx.metadata()
        .put(0, [m0, m1, m2, m3, d0, d1, d2, d3])
        .ok_or(Fate::Resize)?;
    Ok(XDP_PASS)
}

/// Sends an answer to whom the packet came from.
#[inline(always)]
pub(super) fn return_to_sender(ctx: Ctx) -> Option<u32> {
    swap_link_addresses(&mut ctx.memory())?;
    Some(XDP_TX)
}
