//! The record of a flow: written at the connect, read when its peer is asked for, taken out of the count at its end.

use core::{ffi::c_void, hint::cold_path};

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock_addr},
    helpers::generated::bpf_skc_to_mptcp_sock,
    programs::SockOpsContext,
};
use lb_common::{
    Backend, BackendId, Be16, Be32, Event, EventKind, Form, RECORD_VERSION, Record, SUSPICION_NS,
};
use lb_ebpf::MAPPED_HIGH;

use crate::{
    choose::{Choice, Wish},
    count::{add_flow, established, fail, remove_flow},
    kernel::{exchange, now, stored, stored_or_new},
    maps::{BACKENDS, EVENTS, RECORDS, SUSPECTS},
};

/// The callbacks of `sock_ops` we need between SYN and the end of the handshake.
const HANDSHAKE_CALLBACKS: u32 = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;

/// The address family of IPv6 sockets.
const AF_INET6: u32 = 10;

/// Writes the flow's record and counts it. A socket may connect again after a failure: what its record
/// still counts is given back first.
#[inline(always)]
pub(crate) fn record(sa: *mut bpf_sock_addr, wish: &Wish, choice: &Choice) {
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let record = stored_or_new(&RECORDS, sk.cast());
    if record.is_null() {
        // No memory: the flow works, uncounted and with its real peer name.
        return;
    }
    let counted_at = choice.backend.counted_at;
    let [first, second, third, last] = choice.backend.address;
    // SAFETY: the storage belongs to the socket that is connecting, which the caller has locked.
    unsafe {
        (*record).start_ns = now();
        (*record).vip = wish.vip;
        (*record).vip_port = wish.port;
        (*record).proto = wish.proto;
        (*record).version = RECORD_VERSION;
        (*record).address = Be32::from_raw(last);
        (*record).port = choice.backend.port;
        (*record).table = choice.service.table;
        (*record).failed = 0;
        (*record).target = choice.index;
        (*record).form = wish.form as u32;
        (*record).high = [first, second, third];
    }
    add_flow(BackendId::from_bits(counted_at).index);
    // SAFETY: as above.
    if unsafe { (*record).backend } == 0 {
        // Only a connect puts an id in, so nobody can have done so since: no need of an atomic exchange.
        // SAFETY: as above.
        unsafe { (*record).backend = counted_at };
        return;
    }
    cold_path();
    // SAFETY: as above; the field is aligned.
    let old = unsafe { exchange(&raw mut (*record).backend, counted_at) };
    if old != 0 {
        remove_flow(BackendId::from_bits(old).index);
    }
}

/// The record of a socket that went through a VIP.
#[inline(always)]
pub(crate) fn flow(sk: *mut c_void) -> Option<*mut Record> {
    let record = stored(&RECORDS, sk);
    if record.is_null() { None } else { Some(record) }
}

/// What an IPv4 socket connected to, if `address`:`port` is where the flow of its record goes. A socket may have been
/// connected again, elsewhere or directly, since the record was made.
#[inline(always)]
pub(crate) fn called(record: *const Record, address: u32, port: Be16) -> Option<(u32, Be16)> {
    // SAFETY: storage of a live socket.
    unsafe {
        ((*record).backend != 0
            && address == (*record).address.raw()
            && port.raw() == (*record).port.raw())
        .then(|| ((*record).vip.raw(), (*record).vip_port))
    }
}

/// The same of an IPv6 socket; with it, whether the application wrote the IPv6 VIP.
#[inline(always)]
pub(crate) fn called6(
    record: *const Record,
    address: [u32; 4],
    port: Be16,
) -> Option<(u32, Be16, bool)> {
    let (vip, vip_port) = called(record, address[3], port)?;
    // SAFETY: storage of a live socket.
    unsafe {
        let high = (*record).high;
        (address[0] == high[0] && address[1] == high[1] && address[2] == high[2])
            .then(|| (vip, vip_port, (*record).form == Form::V6 as u32))
    }
}

/// Takes the flow out of the count, once, however many hooks see the end of it. Answers the id it had.
#[inline(always)]
pub(crate) fn release(record: *mut Record) -> u64 {
    // SAFETY: storage of a live socket; the field is aligned and only exchanged atomically.
    let old = unsafe { exchange(&raw mut (*record).backend, 0) };
    if old != 0 {
        remove_flow(BackendId::from_bits(old).index);
    }
    old
}

/// The socket goes elsewhere: what its record still counts is given back. The callbacks of TCP tell that for TCP.
#[inline(never)]
pub(crate) fn leave(sa: *mut bpf_sock_addr) {
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    if let Some(record) = flow(sk.cast()) {
        release(record);
    }
}

/// A SYN is about to be sent.
#[inline(always)]
pub(crate) fn connecting(ctx: &SockOpsContext) {
    let Some(record) = flow(socket_of(ctx)) else {
        return;
    };
    if leads_to_backend(ctx, record) {
        watch(ctx, ctx.cb_flags() | HANDSHAKE_CALLBACKS);
    } else {
        // The socket was disconnected (AF_UNSPEC) and goes elsewhere, past the pool test.
        release(record);
    }
}

/// Whether the socket's peer is the one in its record.
#[inline(always)]
fn leads_to_backend(ctx: &SockOpsContext, record: *const Record) -> bool {
    // SAFETY: storage of a live socket; the context is valid. `remote_port` holds the port in its high
    // 16 bits, in network order.
    unsafe {
        if crate::port_of(ctx.remote_port() >> 16).raw() != (*record).port.raw() {
            return false;
        }
        let [first, second, third] = (*record).high;
        let mapped = [first, second, third] == MAPPED_HIGH;
        if mapped || (*record).form == Form::V4 as u32 {
            return ctx.remote_ip4() == (*record).address.raw();
        }
        // Word by word: the kernel takes no wider read of it.
        let words = (&raw const (*ctx.ops).remote_ip6).cast::<u32>();
        ctx.family() == AF_INET6
            && words.read_volatile() == first
            && words.add(1).read_volatile() == second
            && words.add(2).read_volatile() == third
            && words.add(3).read_volatile() == (*record).address.raw()
    }
}

/// The handshake is over. From here on the flow costs nothing: no callback runs while data flows.
#[inline(always)]
pub(crate) fn connected(ctx: &SockOpsContext) {
    if ctx.cb_flags() & HANDSHAKE_CALLBACKS == 0 {
        return;
    }
    let Some(record) = flow(socket_of(ctx)) else {
        return;
    };
    let mut callbacks = ctx.cb_flags() & !HANDSHAKE_CALLBACKS;
    if is_subflow(ctx) {
        // It is a socket of the kernel's own, for which no `sock_release` runs.
        callbacks |= BPF_SOCK_OPS_STATE_CB_FLAG;
    }
    watch(ctx, callbacks);
    // The kernel measures the handshake by itself, in eighths of a microsecond: no clock is read for it.
    // SAFETY: the kernel passes a valid context; storage of a live socket.
    let (micros, target) = unsafe { ((*ctx.ops).srtt_us >> 3, (*record).target) };
    established(target, micros);
}

/// Whether the socket is a subflow of Multipath TCP.
#[inline(always)]
fn is_subflow(ctx: &SockOpsContext) -> bool {
    let sk = socket_of(ctx);
    // SAFETY: a plain helper call; the verifier wants no null.
    !sk.is_null() && unsafe { !bpf_skc_to_mptcp_sock(sk).is_null() }
}

/// A subflow of Multipath TCP is closed.
#[inline(always)]
pub(crate) fn closed(ctx: &SockOpsContext) {
    if let Some(record) = flow(socket_of(ctx)) {
        release(record);
    }
}

/// The backend at the index `target`, if its address is the one in the record: the index of one that was taken out may have
/// been given to another since.
#[inline(always)]
fn still_there(target: u32, record: *const Record) -> Option<&'static Backend> {
    BACKENDS.get(target).filter(|backend| {
        let [first, second, third, last] = backend.address;
        // SAFETY: storage of a live socket.
        unsafe {
            backend.port == (*record).port
                && last == (*record).address.raw()
                // Records that an earlier version made have no more than this of an IPv4 socket.
                && ((*record).form == Form::V4 as u32 || [first, second, third] == (*record).high)
        }
    })
}

/// A connect failed: the backend becomes suspect and the agent is told.
#[inline(always)]
pub(crate) fn failed(ctx: &SockOpsContext, kind: EventKind) {
    let Some(record) = flow(socket_of(ctx)) else {
        return;
    };
    // SAFETY: storage of a live socket.
    let (table, target, known) =
        unsafe { ((*record).table, (*record).target, (*record).failed != 0) };
    let counted_at = if matches!(kind, EventKind::Refused) {
        // The flow is over.
        release(record)
    } else {
        // An unanswered one goes on trying and stays counted.
        // SAFETY: storage of a live socket.
        unsafe {
            (*record).failed = 1;
            (*record).backend
        }
    };
    // Without a backend the application closed the socket before: not the backend's failure.
    if counted_at == 0 || known {
        return;
    }
    // Version 1 of the record had no target.
    let index = if target == 0 {
        BackendId::from_bits(counted_at).index
    } else {
        target
    };
    let Some(backend) = still_there(index, record) else {
        return;
    };
    fail(table, index);
    let Some(suspect) = SUSPECTS.get_ptr_mut(index) else {
        return;
    };
    let now = now();
    // SAFETY: array values live as long as the map; aligned eight-byte accesses are not torn.
    let before = unsafe { (*suspect).until_ns };
    // SAFETY: as above.
    unsafe { (*suspect).until_ns = now + SUSPICION_NS };
    if before <= now {
        // Told once for each suspicion, so that a storm of connects is no storm of events. A full ring loses the hint,
        // not the mark: the agent's own probes find out too.
        let id = BackendId {
            index,
            generation: backend.generation,
        };
        let event = Event {
            backend: id.to_bits(),
            kind: kind as u32,
            table,
        };
        let _ = EVENTS.output(event, 0);
    }
}

#[inline(always)]
fn socket_of(ctx: &SockOpsContext) -> *mut c_void {
    // SAFETY: the kernel passes a valid context; the pointer may be null.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast()
}

#[inline(always)]
#[expect(clippy::cast_possible_wrap, reason = "flags are the low bits")]
fn watch(ctx: &SockOpsContext, callbacks: u32) {
    // It fails only for a socket that is not full, and then there is nothing to watch.
    let _ = ctx.set_cb_flags(callbacks as i32);
}
