//! Answers: whom a backend sees, so that what it says finds the client.

use lb_common::{
    Be16,
    packet::{Fate, Hop, Reply, Target, Way},
};
use lb_ebpf::packet::{PROBES, Ports, seen_of};

use crate::{
    endpoint::target,
    family::{Ends as _, Family, Peer as _},
    flow::{Onward, seconds},
    maps::{DRAFTS, PORT_COUNT, PORT_FIRST},
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
    let Some(draft) = DRAFTS.get_ptr_mut(0) else {
        to.fate = Fate::TableFull;
        return false;
    };
    // SAFETY: array values live as long as the map, and nobody else on this CPU uses it before this program ends.
    let new = unsafe { &mut *draft };
    F::widen(ends.client(), &mut new.client);
    new.vip = ends.vip();
    new.vip_port = ends.vip_port();
    new.client_port = ends.client_port();
    new.backend = to.backend;
    // SAFETY: array values live as long as the map.
    new.generation = unsafe { (*to.target).generation };
    new.service = to.service;
    new.last_seconds = now;
    new.way = to.way as u8;
    new.seen = 0;
    new.clamp = to.clamp.into();
    new.spare = 0;
    new.hop = Hop::default();
    let new = &*new;
    let (ports, hash) = (ports(), F::hash(ends));
    let full = matches!(to.way, Way::Full);
    to.local_port = ends.client_port();
    let mut peer = peer::<F>(ends, to.way, to.target, to.local_port);
    for probe in 0..PROBES {
        // Who keeps its address keeps its port, too, if it can.
        if full || probe != 0 {
            if ports.count == 0 {
                break;
            }
            to.local_port = ports.probe(hash, probe);
            peer.set_local_port(to.local_port);
        }
        if adds {
            match F::add_reply(&peer, new) {
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
        let own = F::is_wide(ends.client(), &known.client)
            && known.client_port == ends.client_port()
            && known.vip == ends.vip()
            && known.vip_port == ends.vip_port();
        if own && !to.begins {
            return true;
        }
        if to.begins && (own || target(known.backend, known.generation).is_none()) {
            *known = *new;
            return true;
        }
    }
    // What was not seen to begin has the port that it had: if none is written down, its own, where its address is kept.
    if !to.begins && !full {
        to.local_port = ends.client_port();
        peer.set_local_port(to.local_port);
        match F::add_reply(&peer, &new) {
            Ok(()) => return true,
            Err(EXISTS) => {}
            Err(_) => {
                to.fate = Fate::TableFull;
                return false;
            }
        }
    }
    to.fate = if to.begins || !full {
        Fate::NoPort
    } else {
        Fate::NoFlow
    };
    false
}

/// Whether a reply is of a flow whose backend is gone, and this is the only CPU that gives its port to another one, whose backend
/// has the generation.
#[inline(always)]
fn claimed(reply: *mut Reply, generation: u32) -> bool {
    // SAFETY: elements live as long as the map; aligned words are not torn.
    let (backend, before) = unsafe { ((*reply).backend, (*reply).generation) };
    // SAFETY: it is aligned. What else is written to it is a new element.
    target(backend, before).is_none()
        && unsafe { replaced(&raw mut (*reply).generation, before, generation) }
}

/// Whether the answers that a reply is for are those of the flow.
#[inline(always)]
fn is_of<F: Family>(reply: &Reply, ends: &F::Ends) -> bool {
    answers(
        reply,
        F::wide(ends.client()),
        ends.client_port(),
        ends.vip(),
        ends.vip_port(),
    )
}

/// The value of a flow's answers, if they are still its own.
#[inline(always)]
pub(crate) fn reply_of<F: Family>(
    ends: &F::Ends,
    way: Way,
    target: *const Target,
    port: Be16,
) -> Option<*mut Reply> {
    let reply = F::reply(&peer::<F>(ends, way, target, port))?;
    // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
    is_of::<F>(unsafe { &*reply }, ends).then_some(reply)
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

/// Forgets whom the answers of a flow are for, unless that is another flow's by now.
#[inline(always)]
pub(crate) fn release<F: Family>(ends: &F::Ends, way: Way, target: *const Target, port: Be16) {
    if reply_of::<F>(ends, way, target, port).is_some() {
        F::remove_reply(&peer::<F>(ends, way, target, port));
    }
}

/// What an answer of a backend belongs to, if to anything, and that it came. TCP's flags are 0 for UDP.
#[inline(always)]
pub(crate) fn answered<F: Family>(peer: &F::Peer, flags: u8) -> Option<*mut Reply> {
    let reply = F::reply(peer)?;
    let now = seconds();
    // SAFETY: elements live as long as the map; aligned words are not torn.
    unsafe {
        let known = (*reply).seen;
        let seen = seen_with(known, flags);
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
