//! From a backend back to its client.

use lb_common::{
    Be16,
    packet::{Fate, Way},
};
use lb_ebpf::packet::{Bytes as _, Fragment, raw16};

use super::{
    PASS,
    carry::{departure, stays},
    drop_told, dropped,
    leave::leave,
    wire::{Both, Seen, Wire},
};
use crate::{
    context::Ctx,
    count,
    family::Peer as _,
    flow::seconds,
    hop::Leg,
    reply::{answered, ports},
    sample,
};

/// A part of a packet to this host. The first one of an answer is dropped: the rest has no ports, and the stack would tell the backend
/// that nobody is there.
#[inline(never)]
pub(super) fn part<F: Wire>(ctx: Ctx, seen: &Seen<F>) -> u32 {
    if !matches!(seen.fragment, Fragment::First) || !seen.has_ports() {
        return PASS;
    }
    let memory = ctx.memory();
    let Some(head) = memory.window::<4>(seen.transport()) else {
        return PASS;
    };
    let peer = F::Peer::new(
        seen.ends.source,
        Be16::from_raw(raw16::<0, 4>(head)),
        seen.ends.destination,
        Be16::from_raw(raw16::<2, 4>(head)),
        seen.proto,
    );
    let Some(reply) = F::reply(&peer) else {
        return PASS;
    };
    // SAFETY: elements live as long as the map.
    let service = unsafe { (*reply).service };
    dropped(ctx, Fate::Fragment, service)
}

/// A packet of TCP or UDP to this host, which is an answer if somebody waits for it. All else is the stack's.
#[inline(always)]
pub(super) fn back<F: Wire>(ctx: Ctx, seen: &Seen<F>) -> u32 {
    if !ports().holds(seen.ends.destination_port) {
        return PASS;
    }
    let peer = F::Peer::new(
        seen.ends.source,
        seen.ends.source_port,
        seen.ends.destination,
        seen.ends.destination_port,
        seen.proto,
    );
    let Some(reply) = F::reply(&peer) else {
        return PASS;
    };
    let now = seconds();
    answered(reply, seen.flags, now);
    // SAFETY: elements live as long as the map; any bytes are integers.
    let (way, service, new) = unsafe {
        let ends = Both::<F> {
            source: F::vip((*reply).vip),
            destination: *F::narrow(&(*reply).client),
            source_port: (*reply).vip_port,
            destination_port: (*reply).client_port,
        };
        ((*reply).way, (*reply).service, ends)
    };
    if way != Way::Full as u8 {
        return PASS;
    }
    let leg = Leg::to_client(reply, now);
    let (departs, fate) = departure::<F>(ctx, seen, leg, &new.destination, 0, Fate::Answered);
    sample::some(&ctx, fate);
    let Some(departs) = departs else {
        return stays(ctx, seen, leg.hop(), 0, fate, service);
    };
    if F::rewrite(&mut ctx.memory(), seen, &new, 1).is_none() {
        return drop_told(Fate::Malformed, service);
    }
    match leave(ctx, leg.hop(), departs) {
        Ok(verdict) => {
            count::fate(fate);
            verdict
        }
        Err(fate) => drop_told(fate, service),
    }
}
