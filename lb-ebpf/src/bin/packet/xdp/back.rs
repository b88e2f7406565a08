//! From a backend back to its client.

use core::mem::offset_of;

use lb_common::packet::{Fate, Reply, Way};

use super::{
    PASS,
    carry::{departure, stays},
    drop_told,
    leave::leave,
    wire::{Both, Seen, Wire},
};
use crate::{
    context::Ctx,
    count,
    family::Peer as _,
    reply::{answered, ports},
    sample,
};

const _: () = assert!(offset_of!(Reply, client) == 0);

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
    let Some(reply) = answered::<F>(&peer, seen.flags) else {
        return PASS;
    };
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
    // SAFETY: as above.
    let hop = unsafe { &raw mut (*reply.cast::<Reply>()).hop };
    let (departs, fate) = departure::<F>(
        ctx,
        seen,
        hop,
        &new.destination,
        Way::Full,
        0,
        Fate::Answered,
        reply.cast::<[u32; 4]>(),
    );
    sample::some(&ctx, fate);
    let Some(departs) = departs else {
        return stays(ctx, seen, hop, 0, fate, service);
    };
    if F::rewrite(&mut ctx.memory(), seen, &new, 1).is_none() {
        return drop_told(Fate::Malformed, service);
    }
    match leave(ctx, hop, departs) {
        Ok(verdict) => {
            count::fate(fate);
            verdict
        }
        Err(fate) => drop_told(fate, service),
    }
}
