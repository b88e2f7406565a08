//! Answers: whom a backend sees, so that what it says finds the client.

use lb_common::{
    Be16,
    packet::{Fate, Hop, Reply, Target, Way},
};
use lb_ebpf::packet::{PROBES, Ports, answers, seen_of};

use crate::{
    endpoint::target,
    family::{Ends as _, Family, Peer as _},
    flow::{Onward, seconds},
    maps::{PORT_COUNT, PORT_FIRST},
};

/// `-EEXIST`.
const EXISTS: i32 = -17;

/// Whom the backend sees by a way.
#[inline(always)]
pub(crate) fn local<F: Family>(way: Way, client: &F::Address) -> F::Address {
    match way {
        Way::Full => F::own().unwrap_or(*client),
        Way::Hairpin => F::hairpin(),
        Way::Destination | Way::Tunnel => *client,
    }
}

/// The flow as its backend sees it.
#[inline(always)]
pub(crate) fn peer<F: Family>(
    ends: &F::Ends,
    way: Way,
    target: *const Target,
    port: Be16,
) -> F::Peer {
    // SAFETY: array values live as long as the map.
    let backend_port = unsafe { (*target).port };
    F::Peer::new(
        *F::of(target),
        backend_port,
        local::<F>(way, ends.client()),
        port,
        ends.proto(),
    )
}

/// Writes down whom the answers of a flow are for, and so finds the port that its backend is to see: whether there is one, else
/// the fate says why. A port is free if nobody has it, if this very flow does, or one whose backend is gone.
///
/// Not part of the caller, whose stack has no room for it.
#[inline(never)]
pub(crate) fn reserve<F: Family>(ends: &F::Ends, to: &mut Onward, now: u32) -> bool {
    // SAFETY: array values live as long as the map.
    let generation = unsafe { (*to.target).generation };
    let new = Reply {
        client: F::wide(ends.client()),
        vip: ends.vip(),
        vip_port: ends.vip_port(),
        client_port: ends.client_port(),
        backend: to.backend,
        generation,
        service: to.service,
        last_seconds: now,
        way: to.way as u8,
        seen: 0,
        clamp: to.clamp.into(),
        spare: 0,
        hop: Hop::default(),
    };
    let (ports, hash) = (ports(), F::hash(ends));
    let full = matches!(to.way, Way::Full);
    // What was not seen to begin has the port that it had: its own, or the one that its answers are written down for.
    let adds = to.begins || !full;
    to.local_port = ends.client_port();
    let mut peer = peer::<F>(ends, to.way, to.target, to.local_port);
    for probe in 0..PROBES {
        // Who keeps its address keeps its port, too, if it can.
        if full || probe != 0 {
            if ports.count == 0 || !to.begins && !full {
                break;
            }
            to.local_port = ports.probe(hash, probe);
            peer.set_local_port(to.local_port);
        }
        if adds {
            match F::add_reply(&peer, &new) {
                Ok(()) => return true,
                Err(EXISTS) => {}
                Err(_) => {
                    to.fate = Fate::TableFull;
                    return false;
                }
            }
        }
        let Some(reply) = F::reply(&peer) else {
            continue;
        };
        // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
        let known = unsafe { &mut *reply };
        let own = answers(known, new.client, new.client_port, new.vip, new.vip_port);
        if own && !to.begins {
            return true;
        }
        if to.begins && (own || target(known.backend, known.generation).is_none()) {
            *known = new;
            return true;
        }
    }
    to.fate = if adds { Fate::NoPort } else { Fate::NoFlow };
    false
}

/// The ports that this host gives out.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the loader sets what ports are"
)]
pub(crate) fn ports() -> Ports {
    Ports {
        first: PORT_FIRST.load() as u16,
        count: PORT_COUNT.load() as u16,
    }
}

/// Forgets whom the answers of a flow are for.
#[inline(always)]
pub(crate) fn release<F: Family>(ends: &F::Ends, way: Way, target: *const Target, port: Be16) {
    F::remove_reply(&peer::<F>(ends, way, target, port));
}

/// What an answer of a backend belongs to, if to anything, and that it came. TCP's flags are 0 for UDP.
#[inline(always)]
pub(crate) fn answered<F: Family>(peer: &F::Peer, flags: u8) -> Option<*mut Reply> {
    let reply = F::reply(peer)?;
    let now = seconds();
    // SAFETY: elements live as long as the map; aligned words are not torn.
    unsafe {
        let known = (*reply).seen;
        let seen = known | seen_of(flags);
        // A line that many CPUs share is written to as rarely as possible.
        if seen != known {
            (*reply).seen = seen;
        }
        if (*reply).last_seconds != now {
            (*reply).last_seconds = now;
        }
    }
    Some(reply)
}
