//! Messages of ICMP: echoes for VIPs, and errors about packets of flows, which are for the other end of the flow.

use lb_common::{
    Be32,
    packet::{Fate, Hop, Reply, Way, target_flag},
};
use lb_ebpf::packet::{ICMP_HEAD, Message, Places, QUOTED, move_link};

use super::{
    PASS,
    carry::departure,
    drop_told, dropped,
    leave::{leave, out, return_to_sender},
    refuse::cut,
    tunnel,
    wire::{Both, Known, Seen, Told, Wire},
};
use crate::{
    context::Ctx,
    count,
    endpoint::target,
    family::{Ends as _, Peer as _},
    flow::seconds,
    hop::{Leg, hold},
    maps::{HOPS, VIPS},
    reply::{local, ports},
    sample,
};

/// A message to a VIP.
#[inline(always)]
pub(super) fn to_vip<F: Wire>(ctx: Ctx, known: &mut Known<F>, vip: Be32) -> u32 {
    let seen = &known.seen;
    match F::message(&ctx.memory(), seen.transport()) {
        None => dropped(ctx, Fate::Malformed, 0),
        Some(Message::Echo) => echo(ctx, seen, vip),
        Some(Message::Error) => about_answer(ctx, known, vip),
        // A neighbour that was answered before asks whether that still holds: the agent answers.
        Some(Message::Other) if F::is_solicitation(&ctx.memory(), seen) => PASS,
        Some(Message::Other) => dropped(ctx, Fate::Protocol, 0),
    }
}

/// Somebody asks whether a VIP is there.
#[inline(never)]
fn echo<F: Wire>(ctx: Ctx, seen: &Seen<F>, vip: Be32) -> u32 {
    if VIPS.get_ptr(vip).is_none() {
        // The stack says by its route that nobody is there.
        sample::some(&ctx, Fate::NoEndpoint);
        count::fate(Fate::NoEndpoint);
        return PASS;
    }
    sample::some(&ctx, Fate::Echo);
    match F::echo(&mut ctx.memory(), seen).and_then(|()| return_to_sender(ctx)) {
        Some(verdict) => {
            count::fate(Fate::Echo);
            verdict
        }
        None => drop_told(Fate::Malformed, 0),
    }
}

/// An error about an answer that went from a VIP to a client: for the backend.
#[inline(never)]
fn about_answer<F: Wire>(ctx: Ctx, known: &mut Known<F>, vip: Be32) -> u32 {
    if quoted(ctx, known.seen.transport() + ICMP_HEAD, known) != 0 {
        return dropped(ctx, Fate::NoFlow, 0);
    }
    let (seen, quoted) = (&known.seen, &known.quoted);
    let ends = F::Ends::new(
        quoted.destination,
        quoted.destination_port,
        vip,
        quoted.source_port,
        known.places.proto,
    );
    let Some(flow) = F::flow(&ends) else {
        return dropped(ctx, Fate::NoFlow, 0);
    };
    // SAFETY: elements live as long as the map; aligned words are not torn.
    let (backend, generation, service, local_port, way) = unsafe {
        (
            (*flow).backend,
            (*flow).generation,
            (*flow).service,
            (*flow).local_port,
            (*flow).way,
        )
    };
    if quoted.source != seen.ends.destination {
        return dropped(ctx, Fate::NoFlow, service);
    }
    let Some(target) = target(backend, generation) else {
        return dropped(ctx, Fate::BackendGone, service);
    };
    // SAFETY: array values live as long as the map.
    if unsafe { (*target).flags } & target_flag::LOCAL != 0 {
        sample::some(&ctx, Fate::Local);
        count::fate(Fate::Local);
        return PASS;
    }
    let Some(hop) = HOPS.get_ptr_mut(backend) else {
        return dropped(ctx, Fate::BackendGone, service);
    };
    if way == Way::Tunnel as u8 {
        // SAFETY: as above.
        return match F::host(unsafe { &(*target).host }) {
            Some(host) => through(ctx, seen, hop, host, F::hash(&ends).slot(), service),
            None => dropped(ctx, Fate::NoHost, service),
        };
    }
    let own = local::<F>(Way::Full, &quoted.destination);
    known.new = Told {
        source: own,
        destination: *F::of(target),
        quoted: Both {
            source: *F::of(target),
            destination: own,
            // SAFETY: array values live as long as the map.
            source_port: unsafe { (*target).port },
            destination_port: local_port,
        },
    };
    retell(
        ctx,
        known,
        Leg::to_backend(hop, Way::Full, seconds()),
        service,
    )
}

/// Makes the error the one that it is to be; not 0 if its heads are not all there.
#[inline(never)]
fn rewritten<F: Wire>(ctx: Ctx, known: &Known<F>) -> u32 {
    let places = Places {
        network: known.places.network & 1023,
        transport: known.places.transport & 2047,
        proto: known.places.proto,
    };
    let (seen, old, new) = (&known.seen, &known.old, &known.new);
    F::retell(&mut ctx.memory(), seen, places, old, new)
        .is_none()
        .into()
}

/// Sends an error on to the host of the backend that it is for, in a tunnel.
#[inline(always)]
fn through<F: Wire>(
    ctx: Ctx,
    seen: &Seen<F>,
    hop: *mut Hop,
    host: &F::Address,
    label: u32,
    service: u32,
) -> u32 {
    let more = F::HEAD;
    let leg = Leg::to_backend(hop, Way::Tunnel, seconds());
    let (departs, fate) = departure::<F>(ctx, seen, leg, host, more, Fate::Error);
    sample::some(&ctx, fate);
    let Some(departs) = departs else {
        return drop_told(fate, service);
    };
    let left = match tunnel::enclose(ctx, seen, host, label) {
        Fate::Tunnelled => leave(ctx, hop, departs),
        fate => Err(fate),
    };
    counted(left, fate, service)
}

/// Counts a packet that left, or could not.
#[inline(always)]
fn counted(left: Result<u32, Fate>, fate: Fate, service: u32) -> u32 {
    match left {
        Ok(verdict) => {
            count::fate(fate);
            verdict
        }
        Err(fate) => drop_told(fate, service),
    }
}

/// Reads the packet that is quoted at `at`; not 0 if it is none of TCP or UDP.
#[inline(never)]
fn quoted<F: Wire>(ctx: Ctx, at: usize, known: &mut Known<F>) -> u32 {
    F::quoted(&ctx.memory(), at & 1023, known).is_none().into()
}

/// A message to this host: an error about a packet that went to a backend in the name of a client, or in a tunnel. All else is the stack's.
#[inline(never)]
pub(super) fn to_own<F: Wire>(ctx: Ctx, known: &mut Known<F>) -> u32 {
    let seen = &known.seen;
    if !matches!(
        F::message(&ctx.memory(), seen.transport()),
        Some(Message::Error)
    ) {
        return PASS;
    }
    if quoted(ctx, seen.transport() + ICMP_HEAD, known) != 0 {
        return about_tunnel(ctx, known);
    }
    let (seen, quoted) = (&known.seen, &known.quoted);
    if quoted.source != seen.ends.destination || !ports().holds(quoted.source_port) {
        return PASS;
    }
    let peer = F::Peer::new(
        quoted.destination,
        quoted.destination_port,
        quoted.source,
        quoted.source_port,
        known.places.proto,
    );
    let Some(reply) = F::reply(&peer) else {
        return PASS;
    };
    let reply: *mut Reply = reply;
    // SAFETY: elements live as long as the map; any bytes are integers.
    let (way, service) = unsafe {
        let (vip, client) = (F::vip((*reply).vip), *F::narrow(&(*reply).client));
        known.new = Told {
            source: vip,
            destination: client,
            quoted: Both {
                source: client,
                destination: vip,
                source_port: (*reply).client_port,
                destination_port: (*reply).vip_port,
            },
        };
        ((*reply).way, (*reply).service)
    };
    if way != Way::Full as u8 {
        return PASS;
    }
    retell(ctx, known, Leg::to_client(reply, seconds()), service)
}

/// Tells the other end of a flow what was told of it.
#[inline(never)]
fn retell<F: Wire>(ctx: Ctx, known: &mut Known<F>, leg: Leg, service: u32) -> u32 {
    known.old = Told {
        source: known.seen.ends.source,
        destination: known.seen.ends.destination,
        quoted: known.quoted,
    };
    let (seen, new) = (&known.seen, &known.new);
    let (departs, fate) = departure::<F>(ctx, seen, leg, &new.destination, 0, Fate::Error);
    sample::some(&ctx, fate);
    let Some(departs) = departs else {
        // Nobody is told of what was told.
        return drop_told(fate, service);
    };
    if rewritten(ctx, known) != 0 {
        return drop_told(Fate::Malformed, service);
    }
    counted(leave(ctx, leg.hop(), departs), fate, service)
}

/// An error about a tunnel that is too narrow for a packet in it: for the client. It is made anew from what is quoted of that packet.
#[inline(never)]
fn about_tunnel<F: Wire>(ctx: Ctx, known: &mut Known<F>) -> u32 {
    let seen = &known.seen;
    let network = seen.network();
    // The head of the error, its own, and the outer one of the packet.
    let skipped = 2 * F::HEAD + ICMP_HEAD;
    let Some(found) = F::tunnel_too_big(&ctx.memory(), seen) else {
        return PASS;
    };
    if found.inner != network + skipped {
        return PASS;
    }
    if quoted(ctx, network + skipped, known) != 0 {
        return PASS;
    }
    let service = tunnelled(known);
    if service == 0 {
        return dropped(ctx, Fate::NoFlow, 0);
    }
    let (seen, quoted) = (&known.seen, &known.quoted);
    let hop = &raw mut known.hop;
    // SAFETY: it is a value of ours.
    unsafe { (*hop).until_seconds = 0 };
    let held = hold::<F>(
        ctx,
        Leg::to_backend(hop, Way::Full, seconds()),
        &quoted.source,
    );
    let fate = held.err().unwrap_or(Fate::Error);
    sample::some(&ctx, fate);
    if held.is_err() {
        return drop_told(fate, service);
    }
    let departs = out(ctx, hop, seen.is_tagged());
    if !cut(ctx, network + skipped + QUOTED)
        || move_link(&mut ctx.memory(), network, 0, skipped).is_none()
        || !ctx.grow_head(F::ROOM as isize - skipped as isize)
    {
        return drop_told(Fate::Resize, service);
    }
    let told = F::tell_too_big(
        &mut ctx.memory(),
        network,
        quoted.destination,
        quoted.source,
        found.mtu,
    );
    if told.is_none() {
        return drop_told(Fate::Malformed, service);
    }
    counted(leave(ctx, hop, departs), fate, service)
}

/// The service of the flow that the quoted packet belongs to, if that goes through a tunnel; else 0.
#[inline(never)]
fn tunnelled<F: Wire>(known: &Known<F>) -> u32 {
    let quoted = &known.quoted;
    let Some(vip) = F::is_vip(&quoted.destination) else {
        return 0;
    };
    let ends = F::Ends::new(
        quoted.source,
        quoted.source_port,
        vip,
        quoted.destination_port,
        known.places.proto,
    );
    let Some(flow) = F::flow(&ends) else {
        return 0;
    };
    // SAFETY: elements live as long as the map; aligned words are not torn.
    let (way, service) = unsafe { ((*flow).way, (*flow).service) };
    if way == Way::Tunnel as u8 { service } else { 0 }
}
