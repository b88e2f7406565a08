//! What few packets need. The verifier looks at a global function once, for any argument, and not again from every place and
//! state that it is called from: so the programs load in milliseconds. Hence integers only.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use lb_common::{Be16, PROTO_TCP, packet::Fate};
use lb_ebpf::packet::{Bytes as _, raw16};

use super::{
    DROP, message,
    read::{Read, Seen, memory, pulled},
    reset::{self, Answer},
    segment,
};
use crate::family::{V4, V6};

/// No head of IP begins further on, and nothing that is inside of one.
const NETWORK: u32 = 31;
const TRANSPORT: u32 = 1023;
/// Where in the answer of [`Rare::find_heads`] a fate is, as its integer and one more.
const FATE: u32 = 48;

/// The global functions of a family.
pub(super) trait Rare: Answer {
    /// Reads a packet that is not as nearly all are: see [`found`].
    fn find_heads(ctx: &TcContext, network: u32) -> u64;
    /// A message to a VIP.
    fn message_in(ctx: &TcContext, network: u32) -> i32;
    /// A message to a client.
    fn message_out(ctx: &TcContext, network: u32) -> i32;
    /// A TCP packet that nobody takes.
    fn refuse(ctx: &TcContext, network: u32, transport: u32, routed: bool) -> i32;
    /// The SYN of an answer that a tunnel leads to.
    fn lower(ctx: &TcContext, transport: u32) -> i32;
}

/// Reads a packet that is not as nearly all are.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "heads are short, and parts of the answer are"
)]
pub(super) fn any<F: Rare>(ctx: &TcContext, seen: &mut Seen<F>) -> Result<(), Fate> {
    let found = F::find_heads(ctx, seen.network as u32);
    let memory = memory(ctx);
    let Some((source, destination)) = F::addresses(&memory, seen.network) else {
        return Err(Fate::Malformed);
    };
    seen.source = source;
    seen.destination = destination;
    if found >> FATE != 0 {
        seen.proto = (found >> 16) as u8;
        seen.transport = (found as u32 & TRANSPORT) as usize;
        return Err(match (found >> FATE) as u32 - 1 {
            fate if fate == Fate::Fragment as u32 => Fate::Fragment,
            fate if fate == Fate::Protocol as u32 => Fate::Protocol,
            _ => Fate::Malformed,
        });
    }
    seen.transport = (found as u32 & TRANSPORT) as usize;
    seen.proto = (found >> 16) as u8;
    seen.flags = (found >> 24) as u8;
    seen.options = (found >> 32) & 1 != 0;
    if seen.proto != F::ICMP {
        let Some(ports) = memory.window::<4>(seen.transport) else {
            return Err(Fate::Malformed);
        };
        seen.source_port = Be16::from_raw(raw16::<0, 4>(ports));
        seen.destination_port = Be16::from_raw(raw16::<2, 4>(ports));
    }
    Ok(())
}

/// What [`any`] unpacks.
#[inline(always)]
fn found<F: Read>(ctx: &TcContext, network: u32) -> u64 {
    let mut seen = Seen::<F>::new((network & NETWORK) as usize);
    match F::any(&pulled(ctx), &mut seen) {
        Ok(()) => {
            seen.transport as u64
                | u64::from(seen.proto) << 16
                | u64::from(seen.flags) << 24
                | u64::from(seen.options) << 32
        }
        // Of a first part, where its ports are.
        Err(fate) if seen.first => {
            (fate as u64 + 1) << FATE | u64::from(seen.proto) << 16 | seen.transport as u64
        }
        Err(fate) => (fate as u64 + 1) << FATE,
    }
}

/// What is read again of a packet whose heads are known.
#[inline(always)]
fn again<F: Read>(ctx: &TcContext, network: u32, transport: u32, proto: u8) -> Option<Seen<F>> {
    let mut seen = Seen::<F>::new((network & NETWORK) as usize);
    let memory = memory(ctx);
    (seen.source, seen.destination) = F::addresses(&memory, seen.network)?;
    seen.transport = (transport & TRANSPORT) as usize;
    seen.proto = proto;
    let ports = memory.window::<4>(seen.transport)?;
    seen.source_port = Be16::from_raw(raw16::<0, 4>(ports));
    seen.destination_port = Be16::from_raw(raw16::<2, 4>(ports));
    Some(seen)
}

/// What a message's own heads say.
#[inline(always)]
fn message<F: Read>(ctx: &TcContext, network: u32) -> Result<Seen<F>, Fate> {
    let mut seen = Seen::<F>::new((network & NETWORK) as usize);
    let memory = pulled(ctx);
    (seen.source, seen.destination) = F::addresses(&memory, seen.network).ok_or(Fate::Malformed)?;
    seen.transport = F::message_at(&memory, seen.network)?;
    seen.proto = F::ICMP;
    Ok(seen)
}

macro_rules! rare {
    ($family:ty, $any:ident, $message_in:ident, $message_out:ident, $refuse:ident, $lower:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $any(ctx: *mut __sk_buff, network: u32) -> u64 {
            found::<$family>(&TcContext::new(ctx), network)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $message_in(ctx: *mut __sk_buff, network: u32) -> i32 {
            let ctx = TcContext::new(ctx);
            match message::<$family>(&ctx, network) {
                Ok(seen) => message::inwards(&ctx, &seen),
                Err(fate) => message::drop(&ctx, fate),
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $message_out(ctx: *mut __sk_buff, network: u32) -> i32 {
            let ctx = TcContext::new(ctx);
            match message::<$family>(&ctx, network) {
                Ok(seen) => message::outwards(&ctx, &seen),
                Err(_) => super::PASS,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $refuse(
            ctx: *mut __sk_buff,
            network: u32,
            transport: u32,
            routed: u32,
        ) -> i32 {
            let ctx = TcContext::new(ctx);
            match again::<$family>(&ctx, network, transport, PROTO_TCP) {
                Some(seen) => reset::refuse(&ctx, &seen, routed != 0),
                None => DROP,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $lower(ctx: *mut __sk_buff, transport: u32) -> i32 {
            let transport = (transport & TRANSPORT) as usize;
            segment::lower::<$family>(&TcContext::new(ctx), transport).into()
        }

        impl Rare for $family {
            #[inline(always)]
            fn find_heads(ctx: &TcContext, network: u32) -> u64 {
                $any(ctx.skb.skb, network)
            }

            #[inline(always)]
            fn message_in(ctx: &TcContext, network: u32) -> i32 {
                $message_in(ctx.skb.skb, network)
            }

            #[inline(always)]
            fn message_out(ctx: &TcContext, network: u32) -> i32 {
                $message_out(ctx.skb.skb, network)
            }

            #[inline(always)]
            fn refuse(ctx: &TcContext, network: u32, transport: u32, routed: bool) -> i32 {
                $refuse(ctx.skb.skb, network, transport, routed.into())
            }

            #[inline(always)]
            fn lower(ctx: &TcContext, transport: u32) -> i32 {
                $lower(ctx.skb.skb, transport)
            }
        }
    };
}

rare!(
    V4,
    tc_any4,
    tc_message_in4,
    tc_message_out4,
    tc_refuse4,
    tc_lower4
);
rare!(
    V6,
    tc_any6,
    tc_message_in6,
    tc_message_out6,
    tc_refuse6,
    tc_lower6
);
