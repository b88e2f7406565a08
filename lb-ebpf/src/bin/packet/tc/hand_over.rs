//! Packets that XDP rewrote and cannot send: the stack finds out who takes their frames.

use core::arch::asm;

use aya_ebpf::{
    bindings::TC_ACT_REDIRECT,
    helpers::generated::{bpf_redirect_neigh, bpf_skb_vlan_pop},
    programs::TcContext,
};
use lb_common::packet::{HAND_OVER, HandOver};
use lb_ebpf::packet::{Bytes as _, raw32};

use super::DROP;
use crate::memory::Memory;

const SIZE: usize = size_of::<HandOver>();

/// Sends such a packet. All others, which are nearly all, have nothing before them.
#[inline(always)]
pub(super) fn handed_over(ctx: &TcContext) -> Option<i32> {
    let before = Memory::new(word::<META>(ctx), word::<DATA>(ctx));
    let told = before.window::<SIZE>(0)?;
    if raw32::<0, SIZE>(told) != HAND_OVER {
        return None;
    }
    Some(send(ctx, raw32::<4, SIZE>(told)))
}

/// Sends a packet out of a device, when the stack knows who takes its frame.
#[inline(always)]
pub(super) fn send(ctx: &TcContext, device: u32) -> i32 {
    // The tag that it came with; a device of another VLAN puts its own on.
    // SAFETY: the kernel passes a valid context.
    if unsafe { (*ctx.skb.skb).vlan_present != 0 && bpf_skb_vlan_pop(ctx.skb.skb) != 0 } {
        return DROP;
    }
    // SAFETY: a plain helper call; without parameters the kernel asks its routes.
    let answer = unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) };
    if answer == i64::from(TC_ACT_REDIRECT) {
        TC_ACT_REDIRECT
    } else {
        DROP
    }
}

const META: usize = core::mem::offset_of!(aya_ebpf::bindings::__sk_buff, data_meta);
const DATA: usize = core::mem::offset_of!(aya_ebpf::bindings::__sk_buff, data);

/// One of the pointers of the context, which are four bytes there and eight for who reads them.
#[inline(always)]
fn word<const AT: usize>(ctx: &TcContext) -> usize {
    let word: usize;
    // SAFETY: the kernel passes a valid context.
    unsafe {
        asm!(
            "{word} = *(u32 *)({context} + {at})",
            word = lateout(reg) word,
            context = in(reg) ctx.skb.skb,
            at = const AT,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    word
}
