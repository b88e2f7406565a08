//! Answers: whom a backend sees, so that what it says finds the client.

use core::{arch::asm, ptr};

use lb_common::{
    Be16, FlowHash,
    packet::{Fate, Reply, Target, Way},
};
use lb_ebpf::packet::{PROBES, Ports, seen_with};

use crate::{
    endpoint::target,
    family::{Ends as _, Family, Peer as _},
    flow::Onward,
    kernel::replaced,
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

/// Whom the answers of a flow are for, before there is one. Null if there is no room to say it.
#[inline(always)]
fn draft<F: Family>(ends: &F::Ends, to: &Onward, now: u32) -> *const Reply {
    let Some(draft) = DRAFTS.get_ptr_mut(0) else {
        return ptr::null();
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
    // How frames get to the client is not known yet: nobody writes that here, and it stays the zeroes that the map began with.
    draft
}

/// Whether the answers of a known flow find its client. Whoever takes out what is over may have met a flow that has just gone on:
/// then it is written down again whom they are for, unless the port is another flow's by now.
#[inline(never)]
pub(crate) fn held<F: Family>(ends: &F::Ends, to: &Onward, now: u32) -> bool {
    let peer = peer::<F>(ends, to.way, to.target, to.local_port);
    if let Some(reply) = F::reply(&peer) {
        // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
        return is_of::<F>(unsafe { &*reply }, ends);
    }
    let new = draft::<F>(ends, to, now);
    if !new.is_null() {
        // Without room, the next second may have some; whose it is that was there first is found then.
        // SAFETY: as above.
        let _ = F::add_reply(&peer, unsafe { &*new });
    }
    true
}

/// Writes down whom the answers of a flow are for, and so finds the port that its backend is to see: whether there is one, else
/// the fate says why. A port is free if nobody has it, if this very flow does, or one whose backend is gone.
///
/// Not part of the caller, whose stack has no room for it.
#[inline(never)]
pub(crate) fn reserve<F: Family>(
    ends: &F::Ends,
    hash: FlowHash,
    to: &mut Onward,
    now: u32,
) -> bool {
    let new = draft::<F>(ends, to, now);
    if new.is_null() {
        to.fate = Fate::TableFull;
        return false;
    }
    // SAFETY: array values live as long as the map.
    let new = unsafe { &*new };
    let ports = ports();
    let full = matches!(to.way, Way::Full);
    to.local_port = ends.client_port();
    let mut peer = peer::<F>(ends, to.way, to.target, to.local_port);
    let ends = again(ends);
    for probe in 0..PROBES {
        // Who keeps its address keeps its port, too, if it can.
        if full || probe != 0 {
            if ports.count == 0 {
                break;
            }
            to.local_port = ports.probe(hash, probe);
            peer.set_local_port(to.local_port);
        }
        match F::add_reply(&peer, new) {
            Ok(()) => return true,
            Err(EXISTS) => {}
            Err(_) => {
                to.fate = Fate::TableFull;
                return false;
            }
        }
        let Some(reply) = F::reply(&peer) else {
            continue;
        };
        // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
        let own = is_of::<F>(unsafe { &*reply }, ends);
        // Not written over: whoever took it out meanwhile may have given its element to another flow.
        if own || claimed(reply) {
            F::remove_reply(&peer);
            match F::add_reply(&peer, new) {
                Ok(()) => return true,
                Err(EXISTS) => {}
                Err(_) => {
                    to.fate = Fate::TableFull;
                    return false;
                }
            }
            // There is one again: of another packet of the flow, on another CPU, or of a flow that was faster.
            if let Some(reply) = F::reply(&peer) {
                // SAFETY: as above.
                if is_of::<F>(unsafe { &*reply }, ends) {
                    return true;
                }
            }
        }
    }
    to.fate = Fate::NoPort;
    false
}

/// The same for a packet that was not seen to begin: its flow has the port that its answers are written down for, or its own, where
/// its address is kept.
#[inline(never)]
pub(crate) fn recall<F: Family>(ends: &F::Ends, hash: FlowHash, to: &mut Onward, now: u32) -> bool {
    let ports = ports();
    let full = matches!(to.way, Way::Full);
    to.local_port = ends.client_port();
    let mut peer = peer::<F>(ends, to.way, to.target, to.local_port);
    let ends = again(ends);
    for probe in 0..PROBES {
        if full || probe != 0 {
            if ports.count == 0 {
                break;
            }
            to.local_port = ports.probe(hash, probe);
            peer.set_local_port(to.local_port);
        }
        if let Some(reply) = F::reply(&peer) {
            // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
            if is_of::<F>(unsafe { &*reply }, ends) {
                return true;
            }
        }
    }
    if full {
        to.fate = Fate::NoFlow;
        return false;
    }
    let new = draft::<F>(ends, to, now);
    if new.is_null() {
        to.fate = Fate::TableFull;
        return false;
    }
    to.local_port = ends.client_port();
    peer.set_local_port(to.local_port);
    // SAFETY: array values live as long as the map.
    match F::add_reply(&peer, unsafe { &*new }) {
        Ok(()) => return true,
        Err(EXISTS) => to.fate = Fate::NoPort,
        Err(_) => to.fate = Fate::TableFull,
    }
    false
}

/// The same, of which the compiler forgets what it has read: it would keep all of that, for which the stack has no room.
#[inline(always)]
fn again<T>(value: &T) -> &T {
    let mut value = ptr::from_ref(value);
    // SAFETY: it changes nothing.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, readonly, nostack)) };
    // SAFETY: it is what it was.
    unsafe { &*value }
}

/// Whether a reply is of a flow whose backend is gone, and this is the only CPU that gives its port to another one: nobody has the
/// generation 0.
#[inline(always)]
fn claimed(reply: *mut Reply) -> bool {
    // SAFETY: elements live as long as the map; aligned words are not torn.
    let (backend, before) = unsafe { ((*reply).backend, (*reply).generation) };
    // SAFETY: it is aligned. What else is written to it is a new element.
    before != 0
        && target(backend, before).is_none()
        && unsafe { replaced(&raw mut (*reply).generation, before, 0) }
}

/// Whether the answers that a reply is for are those of the flow.
#[inline(always)]
fn is_of<F: Family>(reply: &Reply, ends: &F::Ends) -> bool {
    let mut differs = F::differs(ends.client(), &reply.client)
        | (reply.vip.raw() ^ ends.vip().raw())
        | u32::from(reply.client_port.raw() ^ ends.client_port().raw())
        | u32::from(reply.vip_port.raw() ^ ends.vip_port().raw());
    // One branch, and not one for each field, which the verifier would all walk through.
    // SAFETY: it changes nothing.
    unsafe { asm!("{0} = {0}", inout(reg) differs, options(pure, nomem, nostack)) };
    differs == 0
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

/// Writes down that an answer of a backend came. TCP's flags are 0 for UDP.
#[inline(always)]
pub(crate) fn answered(reply: *mut Reply, flags: u8, now: u32) {
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
}
