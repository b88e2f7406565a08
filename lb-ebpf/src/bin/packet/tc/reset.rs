//! Telling a client of TCP that nobody takes its packet.

use aya_ebpf::{
    helpers::generated::{bpf_skb_change_tail, bpf_skb_load_bytes},
    programs::TcContext,
};
use lb_common::{
    Be16, Be32, PROTO_TCP,
    packet::{FlowKey4, FlowKey6},
};
use lb_ebpf::packet::{
    Bytes as _, Delta, ETHERNET, IPV4_HEAD, IPV6_HEAD, Places, Reset, fold, raw16,
};

use super::{
    DROP,
    hand_over::send,
    message::HOPS,
    read::{Heads, Seen, memory},
    write::{Write, back, covered, offset, put},
};
use crate::{
    family::{Ends as _, Family as _, V4, V6},
    hop::{Routed, device_to},
    memory::Memory,
};

/// Where the checksum is in a head of TCP.
const CHECK: usize = 16;

/// Sends a TCP packet back as its reset, unless it is one. `routed` says that the frame may have come from another than the
/// packet did: out of a tunnel.
#[inline(always)]
pub(super) fn refuse<F: Answer + Routed>(ctx: &TcContext, seen: &Seen<F>, routed: bool) -> i32 {
    let Some(vip) = F::is_vip(&seen.destination) else {
        return DROP;
    };
    let ends = F::Ends::new(
        seen.source,
        seen.source_port,
        vip,
        seen.destination_port,
        PROTO_TCP,
    );
    if !reset::<F>(ctx, seen.heads(), &ends) {
        return DROP;
    }
    if routed && seen.network == ETHERNET {
        // SAFETY: the kernel passes a valid context.
        let device = unsafe { (*ctx.skb.skb).ifindex };
        if let Some(device) = device_to::<F>(ctx.skb.skb.cast(), device, ends.client()) {
            return send(ctx, device);
        }
    }
    back(ctx)
}

#[inline(always)]
fn reset<F: Answer>(ctx: &TcContext, heads: Heads, ends: &F::Ends) -> bool {
    let places = Places {
        network: heads.network,
        transport: heads.transport,
        proto: heads.proto,
    };
    let memory = memory(ctx);
    let Some(total) = F::total(&memory, heads.network) else {
        return false;
    };
    let Some(reset) = Reset::answering(&memory, places, total) else {
        return false;
    };
    let Some(partial) = is_partial(ctx, heads.transport + CHECK) else {
        return false;
    };
    // What is not summed yet is summed from where its head of TCP was.
    if partial && heads.transport != heads.network + F::HEAD {
        return false;
    }
    let end = heads.network + F::HEAD + size_of::<TcpHead>();
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_skb_change_tail(ctx.skb.skb, offset(end), 0) } != 0 {
        return false;
    }
    let (sequence, acknowledgement, flags) = reset.says();
    let mut tcp = TcpHead {
        source: ends.vip_port(),
        destination: ends.client_port(),
        sequence: sequence.to_be(),
        acknowledgement: acknowledgement.to_be(),
        size: 0x50,
        flags,
        window: 0,
        check: 0,
        urgent: 0,
    };
    let pseudo = F::pseudo_sum(ends) + u64::from(PSEUDO);
    tcp.check = if partial {
        fold(pseudo)
    } else {
        !fold(pseudo + tcp.sum())
    };
    F::put_head(ctx, heads.network, ends) && put(ctx, heads.network + F::HEAD, &tcp)
}

/// What a pseudo head has besides addresses: the length of a head of TCP, and that it is one.
const PSEUDO: u32 = (20_u16 + PROTO_TCP as u16).to_be() as u32;

/// A head of TCP without options.
#[repr(C)]
struct TcpHead {
    source: Be16,
    destination: Be16,
    sequence: u32,
    acknowledgement: u32,
    size: u8,
    flags: u8,
    window: u16,
    check: u16,
    urgent: u16,
}

const _: () = assert!(size_of::<TcpHead>() == 20);

impl TcpHead {
    /// The sum of what is not 0.
    #[inline(always)]
    fn sum(&self) -> u64 {
        u64::from(self.source.raw())
            + u64::from(self.destination.raw())
            + u64::from(self.sequence)
            + u64::from(self.acknowledgement)
            + u64::from(u16::from_ne_bytes([self.size, self.flags]))
    }
}

/// How a family is answered.
pub(super) trait Answer: Write {
    /// Length of its head.
    const HEAD: usize;

    /// Length of a packet by its head.
    fn total(memory: &Memory, network: usize) -> Option<usize>;
    /// The sum of both addresses.
    fn pseudo_sum(ends: &Self::Ends) -> u64;
    /// Writes the head of a reset, which is from the VIP.
    fn put_head(ctx: &TcContext, network: usize, ends: &Self::Ends) -> bool;
}

#[repr(C)]
struct Ipv4Head {
    size_and_length: u32,
    identification_and_fragment: u32,
    hops_and_proto: u16,
    check: u16,
    source: Be32,
    destination: Be32,
}

impl Answer for V4 {
    const HEAD: usize = IPV4_HEAD;

    #[inline(always)]
    fn total(memory: &Memory, network: usize) -> Option<usize> {
        let head = memory.window::<IPV4_HEAD>(network)?;
        Some(u16::from_be(raw16::<2, IPV4_HEAD>(head)).into())
    }

    #[inline(always)]
    fn pseudo_sum(ends: &FlowKey4) -> u64 {
        u64::from(ends.vip.raw()) + u64::from(ends.client.raw())
    }

    #[inline(always)]
    fn put_head(ctx: &TcContext, network: usize, ends: &FlowKey4) -> bool {
        const FIRST: u32 = 0x4500_0028_u32.to_be();
        // Nobody may fragment it.
        const SECOND: u32 = 0x4000_u32.to_be();
        const THIRD: u16 = u16::from_be_bytes([HOPS, PROTO_TCP]).to_be();
        let rest = FIRST as u64 + SECOND as u64 + THIRD as u64;
        let head = Ipv4Head {
            size_and_length: FIRST,
            identification_and_fragment: SECOND,
            hops_and_proto: THIRD,
            check: !fold(Self::pseudo_sum(ends) + rest),
            source: ends.vip,
            destination: ends.client,
        };
        put(ctx, network, &head)
    }
}

#[repr(C)]
struct Ipv6Head {
    version: u32,
    length_and_hops: u32,
    source: [u32; 4],
    destination: [u32; 4],
}

impl Answer for V6 {
    const HEAD: usize = IPV6_HEAD;

    #[inline(always)]
    fn total(memory: &Memory, network: usize) -> Option<usize> {
        let head = memory.window::<IPV6_HEAD>(network)?;
        Some(IPV6_HEAD + usize::from(u16::from_be(raw16::<4, IPV6_HEAD>(head))))
    }

    #[inline(always)]
    fn pseudo_sum(ends: &FlowKey6) -> u64 {
        let sum = |words: &[u32; 4]| {
            u64::from(words[0]) + u64::from(words[1]) + u64::from(words[2]) + u64::from(words[3])
        };
        sum(&Self::vip(ends.vip)) + sum(&ends.client)
    }

    #[inline(always)]
    fn put_head(ctx: &TcContext, network: usize, ends: &FlowKey6) -> bool {
        let head = Ipv6Head {
            version: 0x6000_0000_u32.to_be(),
            length_and_hops: u32::from_be_bytes([0, 20, PROTO_TCP, HOPS]).to_be(),
            source: Self::vip(ends.vip),
            destination: ends.client,
        };
        put(ctx, network, &head)
    }
}

/// Whether the checksum at `at` is to be made yet, by the card or by nobody: the helpers let it alone then. It is not what it was
/// afterwards.
#[inline(always)]
fn is_partial(ctx: &TcContext, at: usize) -> Option<bool> {
    let before = load16(ctx, at)?;
    covered(ctx, at, Delta::new().replace16(0, 1), 0).then_some(())?;
    Some(load16(ctx, at)? == before)
}

#[inline(always)]
fn load16(ctx: &TcContext, at: usize) -> Option<u16> {
    let mut value = 0_u16;
    let to = (&raw mut value).cast();
    // SAFETY: the kernel passes a valid context; there is room for two bytes.
    (unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset(at), to, 2) } == 0).then_some(value)
}
