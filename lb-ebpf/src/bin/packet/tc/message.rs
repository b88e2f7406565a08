//! ICMP: echoes to VIPs, and errors about packets of a flow, which quote them as only one side knows them.

use aya_ebpf::programs::TcContext;
use lb_common::{
    PROTO_TCP, PROTO_UDP,
    packet::{Fate, Way},
};
use lb_ebpf::packet::{Bytes as _, Delta, ICMP_HEAD, Message, raw16};

use super::{
    DONE, DROP, PASS,
    read::{Heads, Seen, memory},
    write::{Both, Write, back, covered, put},
};
use crate::{
    count,
    endpoint::target,
    family::{Ends as _, Peer as _},
    maps::VIPS,
    sample,
};

/// Time to live of what this host says by itself.
pub(super) const HOPS: u8 = 64;
/// Where the checksum is in a message.
const CHECK: usize = 2;

/// A message to a VIP.
#[inline(always)]
pub(super) fn inwards<F: Write>(ctx: &TcContext, seen: &Seen<F>) -> i32 {
    let Some(vip) = F::is_vip(&seen.destination) else {
        return PASS;
    };
    match F::message(&memory(ctx), seen.transport) {
        Some(Message::Error) => about_answer(ctx, seen),
        Some(Message::Echo) if VIPS.get_ptr(vip).is_some() => echo(ctx, seen),
        // The stack says that nobody is there.
        Some(Message::Echo) => {
            sample::some(ctx, Fate::NoEndpoint);
            count::fate(Fate::NoEndpoint);
            PASS
        }
        // A neighbour that was answered before asks whether that still holds: the agent answers.
        Some(Message::Other) if F::is_solicitation(&memory(ctx), seen) => PASS,
        Some(Message::Other) => drop(ctx, Fate::Protocol),
        None => drop(ctx, Fate::Malformed),
    }
}

#[inline(always)]
pub(super) fn drop(ctx: &TcContext, fate: Fate) -> i32 {
    sample::some(ctx, fate);
    count::fate(fate);
    DROP
}

/// Answers for a VIP.
#[inline(always)]
fn echo<F: Write>(ctx: &TcContext, seen: &Seen<F>) -> i32 {
    sample::some(ctx, Fate::Echo);
    let asked = u16::from_ne_bytes([F::ECHO, 0]);
    let answer = u16::from_ne_bytes([F::ECHO_ANSWER, 0]);
    let delta = Delta::new().replace16(asked, answer);
    // Who asks and who answers change places, which no checksum sees.
    if !covered(ctx, seen.transport + CHECK, delta, 0)
        || !put(ctx, seen.transport, &F::ECHO_ANSWER)
        || !put(ctx, seen.network + F::SOURCE_AT, &seen.destination)
        || !put(ctx, seen.network + F::DESTINATION_AT, &seen.source)
        || !F::set_hops(ctx, seen.network, HOPS)
    {
        count::fate(Fate::Resize);
        return DROP;
    }
    count::fate(Fate::Echo);
    back(ctx)
}

/// A client, or somebody on the way to it, tells a VIP what happened to an answer: its backend is to hear that.
#[inline(always)]
fn about_answer<F: Write>(ctx: &TcContext, seen: &Seen<F>) -> i32 {
    let mut quoted = Seen::<F>::new(seen.transport + ICMP_HEAD);
    if F::quoted(&memory(ctx), &mut quoted).is_err() {
        return drop(ctx, Fate::Malformed);
    }
    let Some(vip) = F::is_vip(&quoted.source) else {
        return drop(ctx, Fate::NoFlow);
    };
    let ends = F::Ends::new(
        quoted.destination,
        quoted.destination_port,
        vip,
        quoted.source_port,
        quoted.proto,
    );
    let Some(flow) = F::flow(&ends) else {
        return drop(ctx, Fate::NoFlow);
    };
    // SAFETY: elements live as long as the map; aligned words are not torn.
    let (backend, generation, way, local_port) = unsafe {
        (
            (*flow).backend,
            (*flow).generation,
            (*flow).way,
            (*flow).local_port,
        )
    };
    let Some(target) = target(backend, generation) else {
        return drop(ctx, Fate::BackendGone);
    };
    // A client that is its own backend finds its own mistakes.
    if way != Way::Destination as u8 {
        return drop(ctx, Fate::NoFlow);
    }
    let backend = F::of(target);
    let new = Both::<F> {
        source: backend,
        destination: &quoted.destination,
        // SAFETY: array values live as long as the map.
        source_port: unsafe { (*target).port },
        destination_port: local_port,
    };
    told(ctx, seen, &quoted, (&seen.source, backend), &new)
}

/// A message to a client. A backend, or somebody on the way to it, tells what happened to a packet.
#[inline(always)]
pub(super) fn outwards<F: Write>(ctx: &TcContext, seen: &Seen<F>) -> i32 {
    if !matches!(
        F::message(&memory(ctx), seen.transport),
        Some(Message::Error)
    ) {
        return PASS;
    }
    let mut quoted = Seen::<F>::new(seen.transport + ICMP_HEAD);
    if F::quoted(&memory(ctx), &mut quoted).is_err() {
        return PASS;
    }
    let peer = F::Peer::new(
        quoted.destination,
        quoted.destination_port,
        quoted.source,
        quoted.source_port,
        quoted.proto,
    );
    let Some(reply) = F::reply(&peer) else {
        return PASS;
    };
    // SAFETY: elements live as long as the map; any bytes are integers.
    let reply = unsafe { &*reply };
    if reply.way != Way::Destination as u8 {
        return PASS;
    }
    let vip = F::vip(reply.vip);
    let new = Both::<F> {
        source: &quoted.source,
        destination: &vip,
        source_port: reply.client_port,
        destination_port: reply.vip_port,
    };
    // What a backend says itself, the VIP says.
    let source = if seen.source == quoted.destination {
        &vip
    } else {
        &seen.source
    };
    told(ctx, seen, &quoted, (source, &seen.destination), &new)
}

/// Gives an error other ends, and the packet that it quotes.
#[inline(always)]
fn told<F: Write>(
    ctx: &TcContext,
    seen: &Seen<F>,
    quoted: &Seen<F>,
    (source, destination): (&F::Address, &F::Address),
    new: &Both<'_, F>,
) -> i32 {
    sample::some(ctx, Fate::Error);
    let outer = Both::<F> {
        source,
        destination,
        ..seen.both()
    };
    if rewrite_quoted(ctx, seen.heads(), quoted.heads(), &quoted.both(), new)
        && rewrite_outer(ctx, seen.heads(), &seen.both(), &outer)
    {
        count::fate(Fate::Error);
        DONE
    } else {
        count::fate(Fate::Resize);
        DROP
    }
}

/// Gives the error itself other ends.
#[inline(always)]
fn rewrite_outer<F: Write>(
    ctx: &TcContext,
    heads: Heads,
    old: &Both<'_, F>,
    new: &Both<'_, F>,
) -> bool {
    let delta = F::change(Delta::new(), old.source, new.source);
    let delta = F::change(delta, old.destination, new.destination);
    F::balance(ctx, heads.network, delta)
        && F::message_pseudo(ctx, heads.transport + CHECK, delta)
        && put(ctx, heads.network + F::SOURCE_AT, new.source)
        && put(ctx, heads.network + F::DESTINATION_AT, new.destination)
}

/// Gives the packet that is quoted other ends. The message's checksum covers all of it.
#[inline(always)]
fn rewrite_quoted<F: Write>(
    ctx: &TcContext,
    outer: Heads,
    quoted: Heads,
    old: &Both<'_, F>,
    new: &Both<'_, F>,
) -> bool {
    let addresses = F::change(Delta::new(), old.source, new.source);
    let addresses = F::change(addresses, old.destination, new.destination);
    let ports = Delta::new()
        .replace16(old.source_port.raw(), new.source_port.raw())
        .replace16(old.destination_port.raw(), new.destination_port.raw());
    let mut message = F::uncompensated(addresses).and(ports);
    let check = match quoted.proto {
        PROTO_TCP => 16,
        _ => 6,
    };
    // Only eight bytes of what is inside are sure to be there.
    let at = quoted.transport + check;
    let memory = memory(ctx);
    if let Some(head) = memory.window::<2>(at) {
        let before = raw16::<0, 2>(head);
        let delta = addresses.and(ports);
        let after = if quoted.proto == PROTO_UDP {
            delta.apply_udp(before)
        } else {
            delta.apply(before)
        };
        message = message.replace16(before, after);
        if !put(ctx, at, &after) {
            return false;
        }
    }
    F::balance(ctx, quoted.network, addresses)
        && put(ctx, quoted.network + F::SOURCE_AT, new.source)
        && put(ctx, quoted.network + F::DESTINATION_AT, new.destination)
        && put(
            ctx,
            quoted.transport,
            &[new.source_port, new.destination_port],
        )
        && covered(ctx, outer.transport + CHECK, message, 0)
}
