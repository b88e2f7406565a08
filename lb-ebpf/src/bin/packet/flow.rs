//! Flows: what a packet of a client belongs to, and where it goes.

use core::{hint::cold_path, ptr};

use lb_common::{
    Be16, FlowHash, PROTO_TCP,
    packet::{Endpoint, Fate, Flow, Target, Way, endpoint_flag, seen},
};
use lb_ebpf::{
    packet::{Known, Missed, known, missed, seen_of, seen_with, tcp_flag},
    whole_seconds,
};

use crate::{
    count::began,
    endpoint::{find, pick, target},
    family::{Ends as _, Family},
    kernel::now,
    maps::{RATES, SETTINGS},
    place::{Place, is_local},
    reply::{held, recall, release, reply_of, reserve},
};

/// A packet from a client to a VIP.
pub(crate) struct Packet<F: Family> {
    pub(crate) ends: F::Ends,
    /// Flags of TCP; 0 for UDP.
    pub(crate) flags: u8,
}

/// Where it goes. Written in place and not answered as an `Option`: LLVM would read what is in none, which the verifier
/// refuses.
pub(crate) struct Onward {
    /// Null if it goes nowhere.
    pub(crate) target: *const Target,
    /// What becomes of it.
    pub(crate) fate: Fate,
    pub(crate) way: Way,
    /// Whether the endpoint wants each packet told; of known flows, `sample` finds out.
    pub(crate) trace: bool,
    /// Whether a tunnel leads here.
    pub(crate) clamp: bool,
    /// Whether the packet begins a flow: then that may be given any port, and else only the one that it must have had.
    pub(crate) begins: bool,
    /// [`Flow::local_port`].
    pub(crate) local_port: Be16,
    /// Index in `TARGETS`.
    pub(crate) backend: u32,
    /// [`Endpoint::service`]; 0 if there is none.
    pub(crate) service: u32,
}

impl Onward {
    /// Nowhere yet.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            target: ptr::null(),
            fate: Fate::NoEndpoint,
            way: Way::Destination,
            trace: false,
            clamp: false,
            begins: false,
            local_port: Be16::from_raw(0),
            backend: 0,
            service: 0,
        }
    }
}

/// Finds where a packet that came at `now` goes; its flow is written down, or written on, as the protocols want it. No flow begins
/// with a frame that is for a group of hosts, each of which would begin one of its own.
#[inline(always)]
pub(crate) fn onward<F: Family, P: Place>(
    packet: &Packet<F>,
    now: u32,
    to: &mut Onward,
    is_for_group: impl Fn() -> bool,
) {
    let mut known = false;
    if let Some(flow) = F::flow(&packet.ends) {
        if along::<F, P>(packet, flow, now, to) {
            return;
        }
        known = true;
        // Nothing stays of what is over: the verifier would walk on with each state of it.
        *to = Onward::new();
    }
    cold_path();
    if is_for_group() {
        to.fate = Fate::Passed;
        return;
    }
    begin::<F, P>(packet, now, known, to);
}

/// Coarse monotonic seconds.
#[inline(always)]
pub(crate) fn seconds() -> u32 {
    whole_seconds(now())
}

/// Goes on by what is written down; whether that says where.
#[inline(always)]
fn along<F: Family, P: Place>(
    packet: &Packet<F>,
    flow: *mut Flow,
    now: u32,
    to: &mut Onward,
) -> bool {
    // SAFETY: elements live as long as the map; aligned words are not torn. Another flow may be given the element, but not
    // so soon after it was looked up.
    let (backend, generation, service, last, local_port, way, before) = unsafe {
        (
            (*flow).backend,
            (*flow).generation,
            (*flow).service,
            (*flow).last_seconds,
            (*flow).local_port,
            (*flow).way,
            (*flow).seen,
        )
    };
    to.service = service;
    let Some(target) = target(backend, generation) else {
        cold_path();
        return gone(packet, way, to);
    };
    to.target = target;
    to.backend = backend;
    to.local_port = local_port;
    let way = match P::known_way(way, target) {
        Ok(Some(way)) => way,
        Ok(None) => {
            cold_path();
            return false;
        }
        Err(fate) => {
            let goes_on = elsewhere(packet, to, flow, now);
            to.fate = fate;
            to.target = ptr::null();
            return goes_on;
        }
    };
    to.way = way;
    to.fate = fate_of(way);
    let mut seen = before;
    if packet.ends.proto() == PROTO_TCP {
        // Nearly all packets are neither, and have been acknowledged before.
        if packet.flags & (tcp_flag::SYN | tcp_flag::RST) == 0 {
            seen = seen_with(before, packet.flags);
        } else {
            cold_path();
            match turn(packet, to, flow, now) {
                Known::Keep(bits) => seen = bits,
                Known::Select => return false,
                // Its element may be another flow's already.
                Known::Remove => return true,
            }
        }
    } else if now.wrapping_sub(last) > udp_seconds() {
        cold_path();
        return false;
    }
    // A line that several CPUs share is written to as rarely as possible.
    // SAFETY: as above.
    unsafe {
        if last != now {
            cold_path();
            if !matches!(way, Way::Tunnel) && !held::<F>(&packet.ends, to, now) {
                return false;
            }
            (*flow).last_seconds = now;
        }
        if seen != before {
            (*flow).seen = seen;
        }
    }
    true
}

/// Whether a flow that another place carries and writes on does go on, or begins anew.
#[inline(always)]
fn elsewhere<F: Family>(packet: &Packet<F>, to: &Onward, flow: *mut Flow, now: u32) -> bool {
    if packet.ends.proto() != PROTO_TCP {
        // SAFETY: elements live as long as the map; aligned words are not torn.
        return now.wrapping_sub(unsafe { (*flow).last_seconds }) <= udp_seconds();
    }
    !opens(packet) || matches!(turn(packet, to, flow, now), Known::Keep(_))
}

/// What becomes of a packet by a way.
#[inline(always)]
const fn fate_of(way: Way) -> Fate {
    match way {
        Way::Destination => Fate::Destination,
        // Both ends are replaced for a client that is its own backend, too.
        Way::Full | Way::Hairpin => Fate::Full,
        Way::Tunnel => Fate::Tunnelled,
    }
}

/// Whether a packet may be given a backend.
#[inline(always)]
fn opens<F: Family>(packet: &Packet<F>) -> bool {
    packet.ends.proto() != PROTO_TCP || matches!(missed(packet.flags), Missed::Opens)
}

/// The backend of a flow is gone. What begins has another one; the end of the rest is told, unless the packet is that itself. At
/// the end of a tunnel another backend may have the flow: that goes by the table.
#[inline(always)]
fn gone<F: Family>(packet: &Packet<F>, way: u8, to: &mut Onward) -> bool {
    if opens(packet) || way == Way::Tunnel as u8 {
        return false;
    }
    to.fate = if packet.flags & tcp_flag::RST == 0 {
        Fate::Reset
    } else {
        Fate::BackendGone
    };
    true
}

/// What a SYN or a RST does to its flow.
#[inline(never)]
fn turn<F: Family>(packet: &Packet<F>, to: &Onward, flow: *const Flow, now: u32) -> Known {
    // SAFETY: elements live as long as the map; aligned words are not torn.
    let (seen, start) = unsafe { ((*flow).seen, (*flow).start_seconds) };
    let answered = reply_of::<F>(&packet.ends, to.way, to.target, to.local_port);
    let answered = answered.map_or(0, |reply| {
        // SAFETY: as above.
        unsafe { (*reply).seen }
    });
    let known = known(packet.flags, seen, answered, now.wrapping_sub(start));
    if matches!(known, Known::Remove) {
        release::<F>(&packet.ends, to.way, to.target, to.local_port);
        F::remove_flow(&packet.ends);
    }
    known
}

/// Seconds after which a UDP flow without packets is over.
#[inline(always)]
fn udp_seconds() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.udp_seconds)
}

/// Whether this CPU has seen more new flows in this second than it is to write down.
#[inline(always)]
fn flooded(now: u32) -> bool {
    let (Some(settings), Some(rate)) = (SETTINGS.get(0), RATES.get_ptr_mut(0)) else {
        return false;
    };
    // SAFETY: array values live as long as the map; nobody else writes those of this CPU.
    let flows = unsafe {
        if (*rate).second != now {
            (*rate).second = now;
            (*rate).flows = 0;
        }
        (*rate).flows = (*rate).flows.wrapping_add(1);
        (*rate).flows
    };
    settings.flood != 0 && flows > settings.flood
}

/// Goes by the table. `known` says that a flow is written down, and over.
///
/// Its steps are no part of it, one after the other and not one in the other: the stack has room for one at a time.
#[inline(always)]
fn begin<F: Family, P: Place>(packet: &Packet<F>, now: u32, known: bool, to: &mut Onward) {
    let hash = F::hash(&packet.ends);
    let goes = match choose::<F, P>(packet, hash, now, known, to) {
        Step::Stop => false,
        Step::Go => true,
        Step::Write => {
            let held = match to.way {
                Way::Tunnel => true,
                _ if to.begins => reserve::<F>(&packet.ends, hash, to, now),
                _ => recall::<F>(&packet.ends, hash, to, now),
            };
            held && (packet.flags & tcp_flag::RST != 0 || write_down(packet, now, known, to))
        }
    };
    if !goes {
        to.target = ptr::null();
    }
}

/// What is still to be done for a packet of no flow.
#[repr(u32)]
enum Step {
    /// It goes nowhere.
    Stop,
    /// It goes on, and nothing is written down.
    Go,
    /// Its flow is written down.
    Write,
}

/// Finds the endpoint, a backend and the way to it.
#[inline(never)]
fn choose<F: Family, P: Place>(
    packet: &Packet<F>,
    hash: FlowHash,
    now: u32,
    known: bool,
    to: &mut Onward,
) -> Step {
    match chosen::<F, P>(packet, hash, now, known, to) {
        Ok(step) => step,
        Err(fate) => {
            to.fate = fate;
            Step::Stop
        }
    }
}

#[inline(always)]
fn chosen<F: Family, P: Place>(
    packet: &Packet<F>,
    hash: FlowHash,
    now: u32,
    known: bool,
    to: &mut Onward,
) -> Result<Step, Fate> {
    let ends = &packet.ends;
    if !F::may_begin(ends.client()) {
        return Err(Fate::Malformed);
    }
    let mut endpoint = Endpoint::default();
    let found = given::<F, P>(ends, hash, &mut endpoint);
    to.service = endpoint.service;
    to.trace = endpoint.flags & endpoint_flag::TRACE != 0;
    let (backend, target) = found?;
    let way = P::way::<F>(ends, &endpoint, target)?;
    to.target = target;
    to.backend = backend;
    to.way = way;
    to.local_port = ends.client_port();
    to.fate = fate_of(way);
    to.clamp = P::SCOPE != 0 && endpoint.flags & endpoint_flag::TUNNEL != 0;
    to.begins = opens(packet);
    let full = matches!(way, Way::Full);
    let tunnel = matches!(way, Way::Tunnel);
    if !to.begins {
        let ends_it = packet.flags & tcp_flag::RST != 0;
        if !full {
            to.fate = Fate::Unknown;
        }
        // The end of the tunnel knows the flow, or says that it does not. And nothing is written down for an end, but that
        // the backend must see it by the port that it knows.
        if tunnel || (ends_it && !full) {
            return Ok(Step::Go);
        }
    }
    // What is written over another takes no room.
    if !known && flooded(now) {
        return if tunnel {
            Ok(Step::Go)
        } else {
            Err(Fate::Flood)
        };
    }
    Ok(Step::Write)
}

/// The backend of a flow by the tables, and its target; `endpoint` is the one that it has it from, if there is one.
///
/// Where only backends of this host may have it, the table of all goes first: so a flow that another host has sent here is at the
/// backend that it is at by that host's books.
#[inline(always)]
fn given<F: Family, P: Place>(
    ends: &F::Ends,
    hash: FlowHash,
    endpoint: &mut Endpoint,
) -> Result<(u32, *const Target), Fate> {
    if P::SCOPE != 0
        && find::<F>(ends, F::SCOPE, endpoint)
        && let Ok((backend, target)) = pick(endpoint, hash)
        && is_local(target)
    {
        return Ok((backend, target));
    }
    if !find::<F>(ends, F::SCOPE | P::SCOPE, endpoint) {
        return Err(Fate::NoEndpoint);
    }
    pick(endpoint, hash)
}

/// Writes the flow down; whether there was room.
#[inline(never)]
fn write_down<F: Family>(packet: &Packet<F>, now: u32, known: bool, to: &mut Onward) -> bool {
    // SAFETY: array values live as long as the map.
    let generation = unsafe { (*to.target).generation };
    let mut new = Flow {
        backend: to.backend,
        generation,
        service: to.service,
        last_seconds: now,
        local_port: to.local_port,
        way: to.way as u8,
        seen: seen_of(packet.flags),
        start_seconds: now,
    };
    // Whoever took it out meanwhile may have given its element to another flow.
    let found = if known { F::flow(&packet.ends) } else { None };
    let Some(flow) = found else {
        if F::add_flow(&packet.ends, &new).is_err() {
            if !matches!(to.way, Way::Tunnel) {
                release::<F>(&packet.ends, to.way, to.target, to.local_port);
            }
            to.fate = Fate::TableFull;
            return false;
        }
        began(to.service, to.backend);
        return true;
    };
    // SAFETY: elements live as long as the map; any bytes are a value of the integers that it consists of.
    let old = unsafe { *flow };
    let same = old.backend == new.backend
        && old.generation == generation
        && old.way == new.way
        && old.local_port == new.local_port;
    // A SYN may be sent more than once.
    let again = same && old.seen == seen::SYN;
    if again {
        new.start_seconds = old.start_seconds;
    }
    // SAFETY: as above.
    unsafe { *flow = new };
    if !again {
        began(to.service, to.backend);
    }
    if !same {
        leave(packet, &old);
    }
    true
}

/// The flow goes to another backend now: the port at the old one is free.
#[inline(always)]
fn leave<F: Family>(packet: &Packet<F>, old: &Flow) {
    if let (Ok(way), Some(target)) = (Way::try_from(old.way), target(old.backend, old.generation)) {
        release::<F>(&packet.ends, way, target, old.local_port);
    }
}
