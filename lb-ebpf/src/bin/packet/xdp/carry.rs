//! From a client to a backend.

use lb_common::{
    Be32, PROTO_TCP,
    packet::{Fate, Hop, Way},
};

use super::{
    PASS, drop_told, dropped,
    leave::{Out, leave, out},
    refuse, tunnel,
    wire::{Both, Seen, Wire},
};
use crate::{
    context::Ctx,
    count,
    family::Ends as _,
    flow::{Onward, Packet, onward, seconds},
    hop::{Leg, hold},
    maps::HOPS,
    place::Card,
    reply::local,
    sample,
};

/// A packet of TCP or UDP to a VIP.
#[inline(always)]
pub(super) fn carry<F: Wire>(ctx: Ctx, seen: &Seen<F>, vip: Be32) -> u32 {
    let packet = Packet::<F> {
        ends: F::Ends::new(
            seen.ends.source,
            seen.ends.source_port,
            vip,
            seen.ends.destination_port,
            seen.proto,
        ),
        flags: seen.flags,
    };
    let now = seconds();
    let mut to = Onward::new();
    onward::<F, Card>(&packet, now, &mut to, || ctx.is_for_group());
    if to.target.is_null() {
        sample::some_of::<F>(&ctx, to.fate, &packet.ends, 0, to.trace);
        return nowhere(ctx, seen, &to);
    }
    let Some(hop) = HOPS.get_ptr_mut(to.backend) else {
        return drop_told(Fate::BackendGone, to.service);
    };
    if matches!(to.way, Way::Tunnel) {
        return through::<F>(ctx, seen, &packet, &to, hop, now);
    }
    let address = F::of(to.target);
    let leg = Leg::to_backend(hop, Way::Full, now);
    let (departs, fate) = departure::<F>(ctx, seen, leg, address, 0, to.fate);
    sample::some_of::<F>(&ctx, fate, &packet.ends, 0, to.trace);
    let Some(departs) = departs else {
        return stays(ctx, seen, hop, 0, fate, to.service);
    };
    let new = Both::<F> {
        source: local::<F>(Way::Full, &seen.ends.source),
        destination: *address,
        source_port: to.local_port,
        // SAFETY: array values live as long as the map.
        destination_port: unsafe { (*to.target).port },
    };
    if F::rewrite(&mut ctx.memory(), seen, &new, 1).is_none() {
        return drop_told(Fate::Malformed, to.service);
    }
    left(leave(ctx, hop, departs), seen, fate, &to)
}

/// To a backend's host, in a tunnel.
#[inline(always)]
fn through<F: Wire>(
    ctx: Ctx,
    seen: &Seen<F>,
    packet: &Packet<F>,
    to: &Onward,
    hop: *mut Hop,
    now: u32,
) -> u32 {
    // SAFETY: array values live as long as the map.
    let Some(host) = F::host(unsafe { &(*to.target).host }) else {
        return dropped(ctx, Fate::NoHost, to.service);
    };
    let more = F::HEAD;
    let leg = Leg::to_backend(hop, Way::Tunnel, now);
    let (departs, fate) = departure::<F>(ctx, seen, leg, host, more, to.fate);
    sample::some_of::<F>(&ctx, fate, &packet.ends, 0, to.trace);
    let Some(departs) = departs else {
        return stays(ctx, seen, hop, more, fate, to.service);
    };
    let label = F::hash(&packet.ends).slot();
    match tunnel::enclose(ctx, seen, host, label) {
        Fate::Tunnelled => left(leave(ctx, hop, departs), seen, fate, to),
        fate => drop_told(fate, to.service),
    }
}

/// Counts a packet that left, or could not.
#[inline(always)]
fn left<F: Wire>(verdict: Result<u32, Fate>, seen: &Seen<F>, fate: Fate, to: &Onward) -> u32 {
    match verdict {
        Ok(verdict) => {
            count::fate(fate);
            count::traffic(to.service, to.backend, seen.total);
            verdict
        }
        Err(fate) => drop_told(fate, to.service),
    }
}

/// How a packet departs that grows by `more` bytes before that, and what becomes of it: `fate` if nothing is in the way.
#[inline(always)]
pub(super) fn departure<F: Wire>(
    ctx: Ctx,
    seen: &Seen<F>,
    leg: Leg,
    to: &F::Address,
    more: usize,
    fate: Fate,
) -> (Option<Out>, Fate) {
    if seen.hops <= 1 {
        return (None, Fate::Expired);
    }
    match hold::<F>(ctx, leg, to) {
        Ok(()) => {}
        Err(Fate::Stack) => return (Some(Out::Stack), Fate::Stack),
        Err(fate) => return (None, fate),
    }
    let hop = leg.hop();
    // SAFETY: values live as long as the map.
    let mtu = usize::from(unsafe { (*hop).mtu });
    // One that nobody knows is none.
    if mtu != 0 && seen.total as usize + more > mtu {
        return (None, Fate::TooBig);
    }
    match out(ctx, hop, seen.is_tagged()) {
        Out::Stack => (Some(Out::Stack), Fate::Stack),
        departs => (Some(departs), fate),
    }
}

/// A packet that cannot depart.
#[inline(always)]
pub(super) fn stays<F: Wire>(
    ctx: Ctx,
    seen: &Seen<F>,
    hop: *const Hop,
    more: usize,
    fate: Fate,
    service: u32,
) -> u32 {
    if !matches!(fate, Fate::TooBig) {
        return drop_told(fate, service);
    }
    // SAFETY: values live as long as the map.
    let mtu = usize::from(unsafe { (*hop).mtu });
    refuse::too_big(ctx, seen, mtu.saturating_sub(more), service)
}

/// A packet that no backend gets.
#[inline(always)]
fn nowhere<F: Wire>(ctx: Ctx, seen: &Seen<F>, to: &Onward) -> u32 {
    match to.fate {
        // The stack's, with what `tc_card_in` makes of it.
        Fate::Local => {
            count::fate(to.fate);
            PASS
        }
        // Which counts this: the packet comes to its end there.
        Fate::NoEndpoint | Fate::Passed => PASS,
        Fate::NoBackend | Fate::NoFlow | Fate::Reset if seen.proto == PROTO_TCP => {
            refuse::reset(ctx, seen, to.fate, to.service)
        }
        fate => drop_told(fate, to.service),
    }
}
