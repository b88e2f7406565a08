//! The socket path: IPv4 TCP connects to a VIP are balanced inside `connect()`.
//!
//! `connect4` chooses and rewrites, `getpeername4` answers the VIP, `sock_release` and `sock_ops` keep the
//! count of open flows exact, and `sock_ops` sees a connect fail. A destination outside the pool costs a
//! mask and a compare.
#![no_std]
#![no_main]
// The entry points are found by section, and their macros lose the doc comments.
#![allow(missing_docs, unreachable_pub)]
// Atomics that answer the old value: core's atomic types have no such methods for BPF targets.
#![feature(core_intrinsics)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the fields of one context or record are read and written together, under one promise"
)]
#![expect(internal_features, reason = "see above")]

#[path = "../kernel/mod.rs"]
mod kernel;

use core::{ffi::c_void, hint::cold_path, num::NonZeroU32};

use aya_ebpf::{
    Global,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock_addr,
    },
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::{bpf_get_prandom_u32, bpf_set_retval},
    macros::{btf_map, cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use kernel::{add, exchange, fetch_add, now, stored, stored_or_new};
use lb_common::{
    ANY_PORT, Active, Backend, BackendId, Balance, Be16, Be32, Counters, Cursor, Event, EventKind,
    HOST_VIEW, PROTO_TCP, RECORD_VERSION, Record, SLOTS, SUSPICION_NS, Service, ServiceKey,
    Suspect, Table,
};
use lb_ebpf::{Load, Slots, in_pool, select, suspected};

/// The pool's prefix and mask and the agent's own address, raw network-order integers. Constants for the
/// verifier: the loader sets them before it loads the programs.
#[unsafe(no_mangle)]
static POOL_PREFIX: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static POOL_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OWN_ADDRESS: Global<u32> = Global::new(0);

/// `SLOTS - 1`, in a form that the compiler cannot see through: it would drop a mask that the verifier needs.
#[unsafe(no_mangle)]
static SLOT_MASK: Global<u32> = Global::new(SLOTS - 1);

// Sizes are defaults; the loader sets them from the configured capacities.
#[btf_map]
static SERVICES: HashMap<ServiceKey, Service, 4096> = HashMap::new();
#[btf_map]
static TABLES: Array<Table, 4096> = Array::new();
#[btf_map]
static CURSORS: Array<Cursor, 4096> = Array::new();
/// Per CPU: written without atomics.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 4096> = PerCpuArray::new();
#[btf_map]
static BACKENDS: Array<Backend, 16384> = Array::new();
/// Shared by all CPUs: whole-value writes only.
#[btf_map]
static SUSPECTS: Array<Suspect, 16384> = Array::new();
/// Shared by all CPUs and all map versions: atomic adds only.
#[btf_map]
static ACTIVE: Array<Active, 16384> = Array::new();
#[btf_map]
static RECORDS: SkStorage<Record> = SkStorage::new();
#[btf_map]
static EVENTS: RingBuf<Event, 65536> = RingBuf::new();

/// What a cgroup hook answers to let the call go on.
const PROCEED: i32 = 1;
/// What it answers to refuse it, with the error that was set before.
const REFUSE: i32 = 0;
/// `-ECONNREFUSED`.
const CONNECTION_REFUSED: i32 = -111;
/// The callbacks of `sock_ops` we need between SYN and the end of the handshake.
const HANDSHAKE_CALLBACKS: u32 = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;

/// `connect()` of an IPv4 socket, before routing.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each field access.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    // The pool test comes first, before any other field is read: it is all that a bystander pays.
    if !in_pool(address, POOL_PREFIX.load(), POOL_MASK.load()) {
        return PROCEED;
    }
    balance(ctx.sock_addr)
}

/// The same for a destination in the pool. Not part of the entry, so that a bystander's few instructions lie
/// together and save no registers.
#[inline(never)]
fn balance(sa: *mut bpf_sock_addr) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each field access.
    let (address, port, protocol) = unsafe { ((*sa).user_ip4, (*sa).user_port, (*sa).protocol) };
    // glibc's resolver connects UDP sockets to the agent's own address; other protocols have no hook yet.
    if protocol != u32::from(PROTO_TCP) || address == OWN_ADDRESS.load() {
        return PROCEED;
    }
    let vip = Be32::from_raw(address);
    let vip_port = port_of(port);
    match choose(vip, vip_port) {
        Some((service, index, backend)) => {
            let id = BackendId {
                index,
                generation: backend.generation,
            };
            record(sa, vip, vip_port, service.table, id, &backend);
            count(service.table, Figure::Flows);
            // SAFETY: as above; both fields are writable in connect4.
            unsafe {
                (*sa).user_ip4 = backend.address.raw();
                (*sa).user_port = u32::from(backend.port.raw());
            }
            PROCEED
        }
        None => {
            cold_path();
            // SAFETY: a plain helper call. Without it the application would see EPERM.
            unsafe { bpf_set_retval(CONNECTION_REFUSED) };
            REFUSE
        }
    }
}

/// `getpeername()` and `accept()`: a client that connected to a VIP is answered the VIP.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let Some(record) = flow(sk.cast()) else {
        return PROCEED;
    };
    // SAFETY: storage of a live socket, as `flow` says; the context is valid, both fields are writable.
    unsafe {
        // A socket may have been connected again, elsewhere or directly, since the record was made.
        if (*record).backend != 0
            && (*sa).user_ip4 == (*record).address.raw()
            && port_of((*sa).user_port).raw() == (*record).port.raw()
        {
            (*sa).user_ip4 = (*record).vip.raw();
            (*sa).user_port = u32::from((*record).vip_port.raw());
        }
    }
    PROCEED
}

/// The last descriptor of a socket was closed.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    if let Some(record) = flow(ctx.sock.cast()) {
        release(record);
    }
    PROCEED
}

/// TCP events. Runs about nine times for every loopback connection of the host, so it returns at once
/// unless the event can concern a flow.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        connecting(&ctx);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        // From here on the flow costs nothing: no callback runs while data flows.
        if ctx.cb_flags() & HANDSHAKE_CALLBACKS != 0 && flow(socket_of(&ctx)).is_some() {
            watch(&ctx, ctx.cb_flags() & !HANDSHAKE_CALLBACKS);
        }
    } else if op == BPF_SOCK_OPS_STATE_CB {
        if ctx.arg(0) == BPF_TCP_SYN_SENT && ctx.arg(1) == BPF_TCP_CLOSE {
            failed(&ctx, EventKind::Refused);
        }
    } else if op == BPF_SOCK_OPS_RTO_CB {
        // `arg(0)` counts the retransmissions before this one, so the second one has 1.
        // SAFETY: the kernel passes a valid context.
        if unsafe { (*ctx.ops).state } == BPF_TCP_SYN_SENT && ctx.arg(0) == 1 {
            failed(&ctx, EventKind::Unanswered);
        }
    }
    1
}

/// The port of a context's field: network order, in the low 16 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the high bits are empty")]
const fn port_of(field: u32) -> Be16 {
    Be16::from_raw(field as u16)
}

/// Finds the service of `vip`:`port` and a backend for one more flow.
#[inline(always)]
fn choose(vip: Be32, port: Be16) -> Option<(Service, u32, Backend)> {
    let mut service = find(vip, port)?;
    let mut table = TABLES.get_ptr(service.table)?;
    if !written_for(table, &service, vip) {
        cold_path();
        // Its value was overtaken between the two look-ups: there is a newer one by now.
        service = find(vip, port)?;
        table = TABLES.get_ptr(service.table)?;
    }
    let Some(slots) = NonZeroU32::new(service.count).filter(|slots| slots.get() <= SLOTS) else {
        count(service.table, Figure::Refused);
        return None;
    };
    let balance = Balance::try_from(service.balance).unwrap_or(Balance::LeastConn);
    let index = select(
        balance,
        slots,
        &Live {
            table,
            half: service.half,
            index: service.table,
        },
    );
    let backend = *BACKENDS.get(index)?;
    if backend.port == Be16::from_host(0) {
        count(service.table, Figure::Refused);
        return None;
    }
    Some((service, index, backend))
}

/// A service answers on every port or on named ones, never on both: which lookup comes first is only a
/// matter of speed.
#[inline(always)]
fn find(vip: Be32, port: Be16) -> Option<Service> {
    let any = ServiceKey::new(vip, ANY_PORT, PROTO_TCP, HOST_VIEW);
    // SAFETY: the value is copied out at once. The kernel may reuse a replaced element meanwhile, for another
    // service even: `written_for` tells.
    if let Some(service) = unsafe { SERVICES.get(any) } {
        return Some(*service);
    }
    let named = ServiceKey::new(vip, port, PROTO_TCP, HOST_VIEW);
    // SAFETY: as above.
    unsafe { SERVICES.get(named) }.copied()
}

/// Whether the half that the value names is the one it was published with.
#[inline(always)]
fn written_for(table: *const Table, service: &Service, vip: Be32) -> bool {
    // SAFETY: array values live as long as the map, which outlives the program; the half is masked.
    let half = unsafe { &raw const (*table).halves[(service.half & 1) as usize] };
    // SAFETY: as above; both are aligned integers.
    let (generation, owner) = unsafe { ((*half).generation, (*half).vip) };
    generation == service.generation && owner.raw() == vip.raw()
}

/// The live maps as the choice reads them.
struct Live {
    /// The table and its live half, apart: a pointer into the half would be computed before the null check.
    table: *const Table,
    half: u32,
    index: u32,
}

impl Slots for Live {
    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a plain helper call.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn turn(&self) -> u64 {
        CURSORS.get_ptr_mut(self.index).map_or(0, |cursor| {
            // SAFETY: array values live as long as the map; the field is aligned and only changed here.
            unsafe { fetch_add(&raw mut (*cursor).turn, 1) }
        })
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> u32 {
        let slot = (slot & SLOT_MASK.load()) as usize;
        // SAFETY: as in `written_for`; the mask keeps the slot below `SLOTS`, which the verifier checks again. The
        // agent writes the idle half only, and every slot of a half names a backend of the service.
        unsafe {
            let slots =
                (&raw const (*self.table).halves[(self.half & 1) as usize].slots).cast::<u32>();
            *slots.add(slot)
        }
    }

    #[inline(always)]
    fn load(&self, backend: u32) -> Load {
        let flows = ACTIVE.get(backend).map_or(0, |active| active.flows);
        let weight = BACKENDS.get(backend).map_or(1, |backend| backend.weight);
        Load { flows, weight }
    }

    #[inline(always)]
    fn suspected(&self, backend: u32) -> bool {
        let until = SUSPECTS.get(backend).map_or(0, |suspect| suspect.until_ns);
        suspected(until, now)
    }
}

/// Writes the flow's record and counts it. A socket may connect again after a failure: what its record
/// still counts is given back first.
#[inline(always)]
fn record(
    sa: *mut bpf_sock_addr,
    vip: Be32,
    vip_port: Be16,
    table: u32,
    id: BackendId,
    backend: &Backend,
) {
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let record = stored_or_new(&RECORDS, sk.cast());
    if record.is_null() {
        // No memory: the flow works, uncounted and with its real peer name.
        return;
    }
    // SAFETY: the storage belongs to the socket that is connecting, which the caller has locked.
    unsafe {
        (*record).start_ns = now();
        (*record).vip = vip;
        (*record).vip_port = vip_port;
        (*record).proto = PROTO_TCP;
        (*record).version = RECORD_VERSION;
        (*record).address = backend.address;
        (*record).port = backend.port;
        (*record).table = table;
        (*record).failed = 0;
    }
    add_flow(id.index);
    // SAFETY: as above.
    if unsafe { (*record).backend } == 0 {
        // Only a connect puts an id in, so nobody can have done so since: no need of an atomic exchange.
        // SAFETY: as above.
        unsafe { (*record).backend = id.to_bits() };
        return;
    }
    cold_path();
    // SAFETY: as above; the field is aligned.
    let old = unsafe { exchange(&raw mut (*record).backend, id.to_bits()) };
    if old != 0 {
        remove_flow(BackendId::from_bits(old).index);
    }
}

/// A SYN is about to be sent.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let Some(record) = flow(socket_of(ctx)) else {
        return;
    };
    // SAFETY: storage of a live socket; the context is valid. `remote_port` holds the port in its high
    // 16 bits, in network order.
    let to_backend = unsafe {
        ctx.remote_ip4() == (*record).address.raw()
            && port_of(ctx.remote_port() >> 16).raw() == (*record).port.raw()
    };
    if to_backend {
        watch(ctx, ctx.cb_flags() | HANDSHAKE_CALLBACKS);
    } else {
        // The socket was disconnected (AF_UNSPEC) and goes elsewhere, past the pool test.
        release(record);
    }
}

/// A connect failed: the backend becomes suspect and the agent is told.
#[inline(always)]
fn failed(ctx: &SockOpsContext, kind: EventKind) {
    let Some(record) = flow(socket_of(ctx)) else {
        return;
    };
    // SAFETY: storage of a live socket.
    let (table, known) = unsafe { ((*record).table, (*record).failed != 0) };
    let backend = if matches!(kind, EventKind::Refused) {
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
    if backend == 0 || known {
        return;
    }
    count(table, Figure::Failed);
    let Some(suspect) = SUSPECTS.get_ptr_mut(BackendId::from_bits(backend).index) else {
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
        let event = Event {
            backend,
            kind: kind as u32,
            table,
        };
        let _ = EVENTS.output(event, 0);
    }
}

/// The record of a socket that went through a VIP.
#[inline(always)]
fn flow(sk: *mut c_void) -> Option<*mut Record> {
    let record = stored(&RECORDS, sk);
    if record.is_null() { None } else { Some(record) }
}

/// Takes the flow out of the count, once, however many hooks see the end of it. Answers the id it had.
#[inline(always)]
fn release(record: *mut Record) -> u64 {
    // SAFETY: storage of a live socket; the field is aligned and only exchanged atomically.
    let old = unsafe { exchange(&raw mut (*record).backend, 0) };
    if old != 0 {
        remove_flow(BackendId::from_bits(old).index);
    }
    old
}

#[inline(always)]
fn add_flow(index: u32) {
    if let Some(active) = ACTIVE.get_ptr_mut(index) {
        // SAFETY: array values live as long as the map; the field is aligned and only changed atomically.
        unsafe { add(&raw mut (*active).flows, 1) };
    }
}

#[inline(always)]
fn remove_flow(index: u32) {
    if let Some(active) = ACTIVE.get_ptr_mut(index) {
        // SAFETY: as in `add_flow`. Adding -1 wraps to a subtraction.
        unsafe { add(&raw mut (*active).flows, u64::MAX) };
    }
}

/// One of the [`Counters`].
enum Figure {
    Flows,
    Refused,
    Failed,
}

/// Adds one to a figure of a table.
#[inline(always)]
fn count(table: u32, figure: Figure) {
    if let Some(counters) = COUNTERS.get_ptr_mut(table) {
        // SAFETY: array values live as long as the map; the fields are aligned and only changed here. Atomic although
        // they are this CPU's own: a program in a softirq may interrupt one in a system call.
        unsafe {
            match figure {
                Figure::Flows => add(&raw mut (*counters).flows, 1),
                Figure::Refused => add(&raw mut (*counters).refused, 1),
                Figure::Failed => add(&raw mut (*counters).failed, 1),
            }
        }
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
