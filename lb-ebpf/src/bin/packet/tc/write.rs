//! Changing a packet of the stack, whose checksums the card, or nobody, may have to make yet: only helpers know.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_REDIRECT},
    helpers::generated::{
        bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use lb_common::{Be16, Be32, PROTO_TCP, PROTO_UDP, packet::PortPair};
use lb_ebpf::packet::{Bytes as _, Delta, IPV4_HEAD, IPV6_HEAD, raw16};

use super::read::{Heads, Read, memory};
use crate::family::{V4, V6};

/// `BPF_F_IPV6`: the sum of all of the packet, which some cards give, stays as it is. Since Linux 6.16; other kernels
/// refuse it.
const SIX: u64 = 1 << 7;
/// `-EINVAL`.
const INVALID: i64 = -22;
/// Where the checksum is in a head of IPv4.
pub(super) const IPV4_CHECK: usize = 10;

/// Both ends of a packet.
pub(super) struct Both<'a, F: Read> {
    pub(super) source: &'a F::Address,
    pub(super) destination: &'a F::Address,
    pub(super) source_port: Be16,
    pub(super) destination_port: Be16,
}

/// How a family is written.
pub(super) trait Write: Read {
    /// Adds to a sum what the change of one address is.
    fn change(delta: Delta, old: &Self::Address, new: &Self::Address) -> Delta;
    /// Lets the head of IP at `network`, and the sum of the whole packet, know of a change of addresses that a
    /// checksum inside makes up for.
    fn balance(ctx: &TcContext, network: usize, delta: Delta) -> bool;
    /// Lets the checksum at `at` know of a change of addresses.
    fn pseudo(ctx: &TcContext, at: usize, delta: Delta, flags: u64) -> bool;
    /// The same for the checksum of a message, which covers addresses in one of the families alone.
    fn message_pseudo(ctx: &TcContext, at: usize, delta: Delta) -> bool;
    /// What of a change of the addresses of a quoted packet nothing in its own head makes up for.
    fn uncompensated(delta: Delta) -> Delta;
    /// Writes new ends over those of a packet: in as few pieces as there are, for each is a call of the kernel. `delta` is the change
    /// of the addresses.
    fn put_ends(ctx: &TcContext, heads: Heads, new: &Both<'_, Self>, delta: Delta) -> bool;
    /// Sets the time to live.
    fn set_hops(ctx: &TcContext, network: usize, hops: u8) -> bool;
}

impl Write for V4 {
    #[inline(always)]
    fn change(delta: Delta, old: &Be32, new: &Be32) -> Delta {
        delta.replace32(old.raw(), new.raw())
    }

    #[inline(always)]
    fn balance(ctx: &TcContext, network: usize, delta: Delta) -> bool {
        let at = offset(network + IPV4_CHECK);
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_l3_csum_replace(ctx.skb.skb, at, 0, delta.partial().into(), 0) == 0 }
    }

    #[inline(always)]
    fn pseudo(ctx: &TcContext, at: usize, delta: Delta, flags: u64) -> bool {
        l4(ctx, at, delta, flags | u64::from(BPF_F_PSEUDO_HDR)) == 0
    }

    #[inline(always)]
    fn message_pseudo(_: &TcContext, _: usize, _: Delta) -> bool {
        true
    }

    #[inline(always)]
    fn uncompensated(_: Delta) -> Delta {
        Delta::new()
    }

    #[inline(always)]
    fn put_ends(ctx: &TcContext, heads: Heads, new: &Both<'_, Self>, delta: Delta) -> bool {
        let Heads {
            network, transport, ..
        } = heads;
        // The checksum of this head is whole, always: what is left to cards is that of TCP and UDP.
        let check = {
            let memory = memory(ctx);
            let Some(head) = memory.window::<IPV4_HEAD>(network) else {
                return false;
            };
            delta.apply(raw16::<IPV4_CHECK, IPV4_HEAD>(head))
        };
        let [s0, s1] = halves(new.source.raw());
        let [d0, d1] = halves(new.destination.raw());
        let ports = [new.source_port.raw(), new.destination_port.raw()];
        if transport == network + IPV4_HEAD {
            let all = [check, s0, s1, d0, d1, ports[0], ports[1]];
            put(ctx, network + IPV4_CHECK, &all)
        } else {
            put(ctx, network + IPV4_CHECK, &[check, s0, s1, d0, d1]) && put(ctx, transport, &ports)
        }
    }

    #[inline(always)]
    fn set_hops(ctx: &TcContext, network: usize, hops: u8) -> bool {
        let memory = memory(ctx);
        let Some(head) = memory.window::<IPV4_HEAD>(network) else {
            return false;
        };
        let before = raw16::<8, IPV4_HEAD>(head);
        let after = u16::from_ne_bytes([hops, before.to_ne_bytes()[1]]);
        let delta = Delta::new().replace16(before, after);
        Self::balance(ctx, network, delta) && put(ctx, network + 8, &hops)
    }
}

impl Write for V6 {
    #[inline(always)]
    fn change(delta: Delta, old: &[u32; 4], new: &[u32; 4]) -> Delta {
        delta.replace128(*old, *new)
    }

    #[inline(always)]
    fn balance(_: &TcContext, _: usize, _: Delta) -> bool {
        true
    }

    #[inline(always)]
    fn pseudo(ctx: &TcContext, at: usize, delta: Delta, flags: u64) -> bool {
        let flags = flags | u64::from(BPF_F_PSEUDO_HDR);
        match l4(ctx, at, delta, flags | SIX) {
            0 => true,
            INVALID => {
                // The kernel takes the change out of the sum of the whole packet, though nothing makes up for that as
                // the head of IPv4 does: it is put in again.
                let done = l4(ctx, at, delta, flags) == 0;
                // SAFETY: the kernel passes a valid context. It fails where there is no such sum.
                let _ = unsafe { bpf_csum_update(ctx.skb.skb, delta.partial()) };
                done
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn message_pseudo(ctx: &TcContext, at: usize, delta: Delta) -> bool {
        Self::pseudo(ctx, at, delta, 0)
    }

    #[inline(always)]
    fn uncompensated(delta: Delta) -> Delta {
        delta
    }

    #[inline(always)]
    fn put_ends(ctx: &TcContext, heads: Heads, new: &Both<'_, Self>, _: Delta) -> bool {
        let Heads {
            network, transport, ..
        } = heads;
        let at = network + Self::SOURCE_AT;
        let ports = PortPair::new(new.source_port, new.destination_port).raw();
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (*new.source, *new.destination);
        if transport == network + IPV6_HEAD {
            put(ctx, at, &[s0, s1, s2, s3, d0, d1, d2, d3, ports])
        } else {
            put(ctx, at, &[s0, s1, s2, s3, d0, d1, d2, d3]) && put(ctx, transport, &ports)
        }
    }

    #[inline(always)]
    fn set_hops(ctx: &TcContext, network: usize, hops: u8) -> bool {
        put(ctx, network + 7, &hops)
    }
}

/// The two halves of four bytes, in the order in which they lie.
#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    let [b0, b1, b2, b3] = word.to_ne_bytes();
    [u16::from_ne_bytes([b0, b1]), u16::from_ne_bytes([b2, b3])]
}

/// An offset as helpers take it, which check it themselves.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "packets are short")]
pub(super) const fn offset(at: usize) -> u32 {
    at as u32
}

#[inline(always)]
fn l4(ctx: &TcContext, at: usize, delta: Delta, flags: u64) -> i64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset(at), 0, delta.partial().into(), flags) }
}

/// Lets the checksum at `at` know of a change of what it covers but addresses.
#[inline(always)]
pub(super) fn covered(ctx: &TcContext, at: usize, delta: Delta, flags: u64) -> bool {
    l4(ctx, at, delta, flags) == 0
}

/// Writes a value over the packet's bytes from `at` on.
#[inline(always)]
pub(super) fn put<T>(ctx: &TcContext, at: usize, value: &T) -> bool {
    // SAFETY: the kernel passes a valid context; the value is there.
    unsafe {
        bpf_skb_store_bytes(
            ctx.skb.skb,
            offset(at),
            core::ptr::from_ref(value).cast(),
            offset(size_of::<T>()),
            0,
        ) == 0
    }
}

/// Where the checksum is in a head of TCP or UDP, and the flags for it.
#[inline(always)]
pub(super) const fn checksum_of(proto: u8) -> (usize, u64) {
    match proto {
        PROTO_TCP => (16, 0),
        // Zero says that there is none.
        PROTO_UDP => (6, BPF_F_MARK_MANGLED_0 as u64),
        // ICMP.
        _ => (2, 0),
    }
}

/// Makes `new` of the ends of a TCP or UDP packet, which are `old`; whether that was possible.
#[inline(always)]
pub(super) fn rewrite<F: Write>(
    ctx: &TcContext,
    heads: Heads,
    old: &Both<'_, F>,
    new: &Both<'_, F>,
) -> bool {
    let (check, flags) = checksum_of(heads.proto);
    let check = heads.transport + check;
    let addresses = F::change(Delta::new(), old.source, new.source);
    let addresses = F::change(addresses, old.destination, new.destination);
    let (before, after) = (
        PortPair::new(old.source_port, old.destination_port),
        PortPair::new(new.source_port, new.destination_port),
    );
    // Where a card makes the checksum, it is that of the addresses alone until then: hence one call for each.
    F::pseudo(ctx, check, addresses, flags)
        && (before == after
            || covered(
                ctx,
                check,
                Delta::new().replace32(before.raw(), after.raw()),
                flags,
            ))
        && F::put_ends(ctx, heads, new, addresses)
}

/// Sends the packet back by the device that it came by.
#[inline(always)]
pub(super) fn back(ctx: &TcContext) -> i32 {
    let mut addresses = [[0_u8; 6]; 2];
    // SAFETY: the kernel passes a valid context; there is room for both.
    let loaded =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, addresses.as_mut_ptr().cast(), 12) };
    let [destination, source] = addresses;
    if loaded != 0 || !put(ctx, 0, &[source, destination]) {
        return super::DROP;
    }
    // SAFETY: as above.
    let answer = unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) };
    if answer == i64::from(TC_ACT_REDIRECT) {
        TC_ACT_REDIRECT
    } else {
        super::DROP
    }
}
