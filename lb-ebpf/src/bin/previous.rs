//! The programs of map version 1, for tests of the change to the next version: the same maps, the same order of
//! writes and the same records as an agent of then had, and only so much of the choice as a test needs (the
//! slots in turn, a VIP that answers on every port). Never part of the agent.
#![no_std]
#![no_main]
// The entry points are found by section, and their macros lose the doc comments.
#![allow(missing_docs, unreachable_pub)]
// For the atomics of the shared kernel module.
#![feature(core_intrinsics)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the fields of one context or record are read and written together, under one promise"
)]
#![expect(internal_features, reason = "see above")]

#[path = "../kernel/mod.rs"]
#[expect(dead_code, reason = "shared with the objects that use all of it")]
mod kernel;

use core::{ffi::c_void, num::NonZeroU64};

use aya_ebpf::{
    Global,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock_addr,
    },
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::bpf_set_retval,
    macros::{btf_map, cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use kernel::{add, exchange, fetch_add, now, stored, stored_or_new};
use lb_common::{
    Active, BackendId, Be16, Be32, Cursor, Event, PROTO_TCP, Record, SLOTS, ServiceKey, Suspect,
};

/// The values that another layout has today.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Service {
    table: u32,
    half: u32,
    count: u32,
    generation: u32,
    balance: u32,
    spare: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Half {
    generation: u32,
    vip: Be32,
    slots: [u32; SLOTS as usize],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Table {
    halves: [Half; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Backend {
    address: Be32,
    port: Be16,
    weight: u16,
    generation: u32,
    spare: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Counters {
    flows: u64,
    refused: u64,
    failed: u64,
    spare: u64,
}

#[unsafe(no_mangle)]
static POOL_PREFIX: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static POOL_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OWN_ADDRESS: Global<u32> = Global::new(0);
/// `SLOTS - 1`, in a form that the compiler cannot see through: it would drop a mask that the verifier needs.
#[unsafe(no_mangle)]
static SLOT_MASK: Global<u32> = Global::new(SLOTS - 1);

#[btf_map]
static SERVICES: HashMap<ServiceKey, Service, 4096> = HashMap::new();
#[btf_map]
static TABLES: Array<Table, 4096> = Array::new();
#[btf_map]
static CURSORS: Array<Cursor, 4096> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 4096> = PerCpuArray::new();
#[btf_map]
static BACKENDS: Array<Backend, 16384> = Array::new();
#[btf_map]
static SUSPECTS: Array<Suspect, 16384> = Array::new();
#[btf_map]
static ACTIVE: Array<Active, 16384> = Array::new();
#[btf_map]
static RECORDS: SkStorage<Record> = SkStorage::new();
#[btf_map]
static EVENTS: RingBuf<Event, 65536> = RingBuf::new();

const PROCEED: i32 = 1;
const REFUSE: i32 = 0;
/// `-ECONNREFUSED`.
const CONNECTION_REFUSED: i32 = -111;
/// The version of the records of then.
const RECORD_VERSION: u8 = 1;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context; the verifier checks each field access.
    let (address, port, protocol) = unsafe { ((*sa).user_ip4, (*sa).user_port, (*sa).protocol) };
    if address & POOL_MASK.load() != POOL_PREFIX.load()
        || protocol != u32::from(PROTO_TCP)
        || address == OWN_ADDRESS.load()
    {
        return PROCEED;
    }
    let vip = Be32::from_raw(address);
    if let Some((table, index, backend)) = choose(vip) {
        record(sa, vip, port_of(port), table, index, &backend);
        if let Some(counters) = COUNTERS.get_ptr_mut(table) {
            // SAFETY: array values live as long as the map; aligned, and only changed by adds.
            unsafe { add(&raw mut (*counters).flows, 1) };
        }
        // SAFETY: as above; both fields are writable here.
        unsafe {
            (*sa).user_ip4 = backend.address.raw();
            (*sa).user_port = u32::from(backend.port.raw());
        }
        return PROCEED;
    }
    // SAFETY: a plain helper call.
    unsafe { bpf_set_retval(CONNECTION_REFUSED) };
    REFUSE
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let record = stored(&RECORDS, sk.cast());
    if record.is_null() {
        return PROCEED;
    }
    // SAFETY: storage of a live socket; the context is valid, both fields are writable.
    unsafe {
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

#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    release(stored(&RECORDS, ctx.sock.cast()));
    PROCEED
}

#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    // SAFETY: the kernel passes a valid context; the pointer may be null.
    let sk: *mut c_void = unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast();
    let op = ctx.op();
    let watched = match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB => ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => ctx.cb_flags() & !BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB => {
            if ctx.arg(0) == BPF_TCP_SYN_SENT && ctx.arg(1) == BPF_TCP_CLOSE {
                fail(stored(&RECORDS, sk));
            }
            return 1;
        }
        _ => return 1,
    };
    if !stored(&RECORDS, sk).is_null() {
        // It fails only for a socket that is not full.
        let _ = ctx.set_cb_flags(watched.cast_signed());
    }
    1
}

/// A connect was refused: the flow is over and the backend becomes suspect.
#[inline(always)]
fn fail(record: *mut Record) {
    let backend = release(record);
    if backend == 0 {
        return;
    }
    // SAFETY: storage of a live socket, as `release` answered.
    let table = unsafe { (*record).table };
    if let Some(counters) = COUNTERS.get_ptr_mut(table) {
        // SAFETY: array values live as long as the map; aligned, and only changed by adds.
        unsafe { add(&raw mut (*counters).failed, 1) };
    }
    if let Some(suspect) = SUSPECTS.get_ptr_mut(BackendId::from_bits(backend).index) {
        // SAFETY: as above; an aligned write is not torn.
        unsafe { (*suspect).until_ns = now() + lb_common::SUSPICION_NS };
    }
    let event = Event {
        backend,
        kind: 1,
        table,
    };
    let _ = EVENTS.output(event, 0);
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the high bits are empty")]
const fn port_of(field: u32) -> Be16 {
    Be16::from_raw(field as u16)
}

/// The table of the service, the index of the next backend, and the backend.
#[inline(always)]
fn choose(vip: Be32) -> Option<(u32, u32, Backend)> {
    let key = ServiceKey::new(vip, lb_common::ANY_PORT, PROTO_TCP, lb_common::HOST_VIEW);
    // SAFETY: the value is copied out at once.
    let service = unsafe { SERVICES.get(key) }.copied()?;
    let table: *const Table = TABLES.get_ptr(service.table)?;
    // SAFETY: array values live as long as the map; the half is masked.
    let half = unsafe { &raw const (*table).halves[(service.half & 1) as usize] };
    // SAFETY: as above; both are aligned integers.
    let (generation, owner) = unsafe { ((*half).generation, (*half).vip) };
    if generation != service.generation || owner.raw() != vip.raw() {
        return None;
    }
    let cursor = CURSORS.get_ptr_mut(service.table)?;
    // SAFETY: as above; the field is aligned and only changed here.
    let turn = unsafe { fetch_add(&raw mut (*cursor).turn, 1) };
    let count = NonZeroU64::new(service.count.into())?;
    #[expect(clippy::cast_possible_truncation, reason = "it is below the count")]
    let slot = (turn % count) as u32 & SLOT_MASK.load();
    // SAFETY: as above; the mask keeps the slot below `SLOTS`.
    let index = unsafe {
        let slots = (&raw const (*table).halves[(service.half & 1) as usize].slots).cast::<u32>();
        *slots.add(slot as usize)
    };
    let backend = *BACKENDS.get(index)?;
    (backend.port.raw() != 0).then_some((service.table, index, backend))
}

#[inline(always)]
fn record(
    sa: *mut bpf_sock_addr,
    vip: Be32,
    vip_port: Be16,
    table: u32,
    index: u32,
    backend: &Backend,
) {
    // SAFETY: the kernel passes a valid context.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    let record = stored_or_new(&RECORDS, sk.cast());
    if record.is_null() {
        return;
    }
    let id = BackendId {
        index,
        generation: backend.generation,
    };
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
    flows(index, 1);
    // SAFETY: as above; the field is aligned.
    let old = unsafe { exchange(&raw mut (*record).backend, id.to_bits()) };
    if old != 0 {
        flows(BackendId::from_bits(old).index, u64::MAX);
    }
}

/// Takes the flow out of the count, once. Answers the id it had.
#[inline(always)]
fn release(record: *mut Record) -> u64 {
    if record.is_null() {
        return 0;
    }
    // SAFETY: storage of a live socket; the field is aligned and only exchanged atomically.
    let old = unsafe { exchange(&raw mut (*record).backend, 0) };
    if old != 0 {
        // Adding -1 wraps to a subtraction.
        flows(BackendId::from_bits(old).index, u64::MAX);
    }
    old
}

#[inline(always)]
fn flows(index: u32, more: u64) {
    if let Some(active) = ACTIVE.get_ptr_mut(index) {
        // SAFETY: array values live as long as the map; aligned, and only changed by adds.
        unsafe { add(&raw mut (*active).flows, more) };
    }
}
