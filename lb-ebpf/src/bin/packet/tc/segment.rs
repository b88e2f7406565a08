//! Lowering the greatest segment that a backend asks for, where what its client sends comes by a tunnel.

use aya_ebpf::{helpers::generated::bpf_check_mtu, programs::TcContext};
use lb_ebpf::packet::greatest_segment;

use super::{
    read::pulled,
    reset::Answer,
    write::{checksum_of, covered, offset, put},
};

/// Length of a head of TCP.
const TCP: u32 = 20;

/// Lowers it in the head of TCP at `transport` so that a packet and the outer head of its tunnel fit the device. What cannot be
/// lowered is told by the tunnel's beginning; whether it was necessary and possible.
#[inline(always)]
pub(super) fn lower<F: Answer>(ctx: &TcContext, transport: usize) -> bool {
    let mut fits = 0_u32;
    // SAFETY: the kernel passes a valid context. What fits is written whatever is answered, if the device is there.
    unsafe { bpf_check_mtu(ctx.skb.skb.cast(), 0, &raw mut fits, 0, 0) };
    let heads = 2 * offset(F::HEAD) + TCP;
    let (Some(most), Some(found)) = (
        fits.checked_sub(heads)
            .and_then(|most| u16::try_from(most).ok()),
        greatest_segment(&pulled(ctx), transport),
    ) else {
        return false;
    };
    if found.bytes <= most {
        return false;
    }
    let (check, flags) = checksum_of(lb_common::PROTO_TCP);
    let delta = found.lowered(transport, most);
    covered(ctx, transport + check, delta, flags) && put(ctx, found.at, &most.to_be())
}
