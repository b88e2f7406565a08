//! Packets of the stack: of clients on this host whose sockets no hook sees, and of backends on this host that clients
//! elsewhere reach by the network card.
//!
//! Both ways of a flow are translated on one device, so that all else of the stack sees the client and the backend alone.

mod hand_over;
mod message;
mod rare;
mod read;
mod reset;
mod segment;
mod write;

use core::marker::PhantomData;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    Be16, PROTO_TCP,
    packet::{Fate, Reply, Way, oddity},
};
use lb_ebpf::packet::{Bytes as _, IPV4, IPV6, Link, link, opaque, raw16, tcp_flag};

use crate::{
    count,
    family::{Ends as _, V4, V6},
    flow::{Onward, Packet, onward, seconds},
    maps::OWN_ADDRESS,
    place::{Client, Local, Place},
    reply::answered,
    sample,
};
use rare::{Rare, any};
use read::{Heads, Seen, memory, pulled};
use write::{Both, back, offset, rewrite};

/// The kernel's `PACKET_BROADCAST`: the frame is for all hosts.
const PACKET_BROADCAST: u32 = 1;
/// The kernel's `PACKET_MULTICAST`: the frame is for a group of hosts.
const PACKET_MULTICAST: u32 = 2;

/// None of ours: the next program is asked.
const PASS: i32 = TC_ACT_UNSPEC;
/// Ours, and on its way.
const DONE: i32 = TC_ACT_OK;
const DROP: i32 = TC_ACT_SHOT;

/// From a client on this host.
#[classifier]
pub fn tc_client_in(ctx: TcContext) -> i32 {
    entry::<In<Client>>(&ctx)
}

/// To a client on this host.
#[classifier]
pub fn tc_client_out(ctx: TcContext) -> i32 {
    entry::<Out<Client>>(&ctx)
}

/// From the network, on the way up the stack.
#[classifier]
pub fn tc_card_in(ctx: TcContext) -> i32 {
    if let Some(verdict) = hand_over::handed_over(&ctx) {
        return verdict;
    }
    entry::<In<Local>>(&ctx)
}

/// To the network.
#[classifier]
pub fn tc_card_out(ctx: TcContext) -> i32 {
    entry::<Out<Local>>(&ctx)
}

/// What is done with packets that go one way.
trait Direction {
    /// A packet whose head of IP begins at `network`. Most are none of ours.
    fn packet<F: Rare>(ctx: &TcContext, network: usize) -> i32;
}

struct In<P>(PhantomData<P>);
struct Out<P>(PhantomData<P>);

#[inline(always)]
fn entry<D: Direction>(ctx: &TcContext) -> i32 {
    // There are tags that neither the card nor the stack has taken out.
    let Some(Link { kind, network }) = link(&memory(ctx)) else {
        return PASS;
    };
    let network = some_place(ctx, network);
    match kind {
        IPV4 => D::packet::<V4>(ctx, network),
        IPV6 => D::packet::<V6>(ctx, network),
        _ => PASS,
    }
}

/// The same place, of which the verifier forgets which one it is: it would look at all that follows for each. No packet is so long
/// that it changes anything.
#[inline(always)]
fn some_place(ctx: &TcContext, network: usize) -> usize {
    opaque(network ^ (ctx.len() >> 27) as usize) & 31
}

impl<P: Place + Hairpins> Direction for In<P> {
    #[inline(always)]
    fn packet<F: Rare>(ctx: &TcContext, network: usize) -> i32 {
        // Nearly always its first part has its head of IP.
        let mut memory = memory(ctx);
        if F::destination(&memory, network).is_none() {
            memory = pulled(ctx);
        }
        let Some(destination) = F::destination(&memory, network) else {
            return PASS;
        };
        let Some(vip) = F::is_vip(&destination) else {
            return if P::HAIRPINS && destination == F::hairpin() {
                hairpin::<F>(ctx, network)
            } else {
                PASS
            };
        };
        // Whatever is for the agent itself, messages and fragments too.
        if vip.raw() == OWN_ADDRESS.load() {
            return PASS;
        }
        if F::is_message(&memory, network) {
            return F::message_in(ctx, offset(network));
        }
        match towards::<F, P>(ctx, network) {
            // The stack is too short to do that from there.
            refused if refused >= REFUSED => {
                let transport = (refused - REFUSED) as u32;
                F::refuse(ctx, offset(network), transport, !P::HAIRPINS)
            }
            verdict => verdict,
        }
    }
}

/// What [`towards`] adds to where the head of TCP begins, for a packet whose sender is to be told that nobody takes it.
const REFUSED: i32 = 1 << 16;

/// Whether a client can be its own backend.
trait Hairpins {
    const HAIRPINS: bool;
}

impl Hairpins for Client {
    const HAIRPINS: bool = true;
}

impl Hairpins for Local {
    const HAIRPINS: bool = false;
}

/// A packet to an address of the pool.
#[inline(never)]
fn towards<F: Rare, P: Place>(ctx: &TcContext, network: usize) -> i32 {
    // What was read is not kept beside what it says: the stack is short.
    let (packet, heads) = {
        let mut seen = Seen::<F>::new(network);
        let verdict = read(ctx, &mut seen);
        let Some(vip) = F::is_vip(&seen.destination) else {
            return PASS;
        };
        if let Err(fate) = verdict {
            sample::some(ctx, fate);
            count::fate(fate);
            return DROP;
        }
        if seen.options {
            count::place(oddity::OPTIONS);
        }
        // A message behind extension headers.
        if seen.proto == F::ICMP {
            count::fate(Fate::Protocol);
            return DROP;
        }
        let packet = Packet::<F> {
            ends: F::Ends::new(
                seen.source,
                seen.source_port,
                vip,
                seen.destination_port,
                seen.proto,
            ),
            flags: seen.flags,
        };
        (packet, seen.heads())
    };
    let mut to = Onward::new();
    onward::<F, P>(&packet, seconds(), &mut to, || is_for_group(ctx));
    let ends = &packet.ends;
    sample::some_of::<F>(ctx, to.fate, ends, P::SCOPE, to.trace);
    if to.target.is_null() {
        return nowhere::<F>(&heads, &packet, &to);
    }
    if !redirected::<F>(ctx, &heads, ends, &to) {
        count::fate(Fate::Resize);
        count::dropped(to.service);
        return DROP;
    }
    count::fate(to.fate);
    count::traffic(to.service, to.backend, length(ctx, network));
    if matches!(to.way, Way::Hairpin) {
        back(ctx)
    } else {
        DONE
    }
}

/// Gives a packet the ends by which its backend knows the flow.
#[inline(never)]
fn redirected<F: Rare>(ctx: &TcContext, heads: &Heads, ends: &F::Ends, to: &Onward) -> bool {
    let hairpin = F::hairpin();
    let old = Both::<F> {
        source: ends.client(),
        destination: &F::vip(ends.vip()),
        source_port: ends.client_port(),
        destination_port: ends.vip_port(),
    };
    let new = Both::<F> {
        source: if matches!(to.way, Way::Hairpin) {
            &hairpin
        } else {
            old.source
        },
        destination: F::of(to.target),
        source_port: to.local_port,
        // SAFETY: array values live as long as the map.
        destination_port: unsafe { (*to.target).port },
    };
    rewrite(ctx, *heads, &old, &new)
}

/// Reads a packet.
#[inline(always)]
fn read<F: Rare>(ctx: &TcContext, seen: &mut Seen<F>) -> Result<(), Fate> {
    if F::plain(&memory(ctx), seen) {
        Ok(())
    } else {
        any(ctx, seen)
    }
}

/// Whether the frame is for several hosts.
#[inline(always)]
fn is_for_group(ctx: &TcContext) -> bool {
    // SAFETY: the kernel passes a valid context.
    let kind = unsafe { (*ctx.skb.skb).pkt_type };
    kind == PACKET_BROADCAST || kind == PACKET_MULTICAST
}

/// Bytes of the packet without the link's head.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a link's head is short")]
fn length(ctx: &TcContext, network: usize) -> u32 {
    ctx.len().wrapping_sub(network as u32)
}

/// A packet that no backend gets.
#[inline(always)]
fn nowhere<F: Rare>(heads: &Heads, packet: &Packet<F>, to: &Onward) -> i32 {
    if matches!(to.fate, Fate::Passed) {
        return PASS;
    }
    count::fate(to.fate);
    // The stack says by its route that nobody is there.
    if matches!(to.fate, Fate::NoEndpoint) {
        return PASS;
    }
    if to.fate.drops() {
        count::dropped(to.service);
    }
    match to.fate {
        Fate::Reset | Fate::NoBackend | Fate::NoFlow if packet.ends.proto() == PROTO_TCP => {
            REFUSED + offset(heads.transport) as i32
        }
        _ => DROP,
    }
}

impl<P: Place> Direction for Out<P> {
    #[inline(always)]
    fn packet<F: Rare>(ctx: &TcContext, network: usize) -> i32 {
        if F::is_message(&memory(ctx), network) {
            return F::message_out(ctx, offset(network));
        }
        outwards::<F>(ctx, network)
    }
}

/// A packet that may be an answer.
#[inline(never)]
fn outwards<F: Rare>(ctx: &TcContext, network: usize) -> i32 {
    let mut seen = Seen::<F>::new(network);
    if let Err(fate) = read(ctx, &mut seen) {
        return part(ctx, seen, fate);
    }
    let Some(reply) = F::reply(&seen.answers()) else {
        return PASS;
    };
    answered(reply, seen.flags, seconds());
    // SAFETY: elements live as long as the map.
    if unsafe { (*reply).way } != Way::Destination as u8 {
        return PASS;
    }
    answer(ctx, &seen, reply)
}

/// The first part of an answer is dropped: the rest, which has no ports, cannot be told from what is none of ours, and the client
/// would get all of it from an address that it does not know.
#[inline(always)]
fn part<F: Rare>(ctx: &TcContext, mut seen: Seen<F>, fate: Fate) -> i32 {
    if !matches!(fate, Fate::Fragment) || seen.proto == 0 {
        return PASS;
    }
    let memory = memory(ctx);
    let Some(ports) = memory.window::<4>(seen.transport) else {
        return PASS;
    };
    seen.source_port = Be16::from_raw(raw16::<0, 4>(ports));
    seen.destination_port = Be16::from_raw(raw16::<2, 4>(ports));
    let Some(reply) = F::reply(&seen.answers()) else {
        return PASS;
    };
    // SAFETY: elements live as long as the map.
    let (way, service) = unsafe { ((*reply).way, (*reply).service) };
    if way != Way::Destination as u8 {
        return PASS;
    }
    sample::some(ctx, fate);
    count::fate(fate);
    count::dropped(service);
    DROP
}

/// Gives an answer the VIP that its client knows.
#[inline(always)]
fn answer<F: Rare>(ctx: &TcContext, seen: &Seen<F>, reply: *const Reply) -> i32 {
    // SAFETY: elements live as long as the map; any bytes are integers.
    let reply = unsafe { &*reply };
    let new = Both::<F> {
        source: &F::vip(reply.vip),
        destination: F::narrow(&reply.client),
        source_port: reply.vip_port,
        destination_port: reply.client_port,
    };
    sample::some(ctx, Fate::Answered);
    if !rewrite(ctx, seen.heads(), &seen.both(), &new) {
        count::fate(Fate::Resize);
        return DROP;
    }
    count::fate(Fate::Answered);
    if reply.clamp != 0 && seen.proto == PROTO_TCP && seen.flags & tcp_flag::SYN != 0 {
        F::lower(ctx, offset(seen.transport));
    }
    DONE
}

/// A packet to the address that a client sees where it is its own backend.
#[inline(never)]
fn hairpin<F: Rare>(ctx: &TcContext, network: usize) -> i32 {
    let mut seen = Seen::<F>::new(network);
    if read(ctx, &mut seen).is_err() {
        return PASS;
    }
    let Some(reply) = F::reply(&seen.answers()) else {
        count::fate(Fate::NoFlow);
        sample::some(ctx, Fate::NoFlow);
        return DROP;
    };
    answered(reply, seen.flags, seconds());
    match answer(ctx, &seen, reply) {
        DONE => back(ctx),
        other => other,
    }
}
