//! The maps and the constants that the loader sets.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use lb_common::{
    Active, Affinity, AffinityKey, Backend, Client, Counters, Cursor, Event, Latency, Peer,
    PeerKey, Record, SLOTS, Service, ServiceKey, Suspect, Table, Trace,
};
use lb_ebpf::Pools;

// Constants for the verifier: the loader sets them before it loads the programs. Addresses are raw network-order
// integers.
#[unsafe(no_mangle)]
static POOL_PREFIX: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static POOL_MASK: Global<u32> = Global::new(0);
/// The first twelve bytes of the IPv6 pool; no address begins with the default.
#[unsafe(no_mangle)]
static POOL6_HIGH0: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static POOL6_HIGH1: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static POOL6_HIGH2: Global<u32> = Global::new(u32::MAX);
/// The agent's own address in the pool. Its IPv6 twin has the same host part.
#[unsafe(no_mangle)]
pub(crate) static OWN_ADDRESS: Global<u32> = Global::new(0);
/// Not 0 where the kernel lets these programs ask for the process: Linux 6.10, commit eb166e522c77.
#[unsafe(no_mangle)]
pub(crate) static KNOWS_PROCESS: Global<u32> = Global::new(0);

/// `SLOTS - 1`, in a form that the compiler cannot see through: it would drop a mask that the verifier needs.
#[unsafe(no_mangle)]
pub(crate) static SLOT_MASK: Global<u32> = Global::new(SLOTS - 1);

/// The pools as constants.
#[inline(always)]
pub(crate) fn pools() -> Pools {
    Pools {
        prefix: POOL_PREFIX.load(),
        mask: POOL_MASK.load(),
        high: [POOL6_HIGH0.load(), POOL6_HIGH1.load(), POOL6_HIGH2.load()],
    }
}

// Sizes are defaults; the loader sets them from the configured capacities.
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, 4096> = HashMap::new();
#[btf_map]
pub(crate) static TABLES: Array<Table, 4096> = Array::new();
#[btf_map]
pub(crate) static CURSORS: Array<Cursor, 4096> = Array::new();
/// Per CPU, and yet added to atomically: a program in a softirq may interrupt one in a system call.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, 4096> = PerCpuArray::new();
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, 16384> = Array::new();
/// Shared by all CPUs: whole-value writes only.
#[btf_map]
pub(crate) static SUSPECTS: Array<Suspect, 16384> = Array::new();
/// Shared by all CPUs: atomic adds only.
#[btf_map]
pub(crate) static LATENCIES: Array<Latency, 16384> = Array::new();
/// Shared by all CPUs and all map versions: atomic adds only.
#[btf_map]
pub(crate) static ACTIVE: Array<Active, 16384> = Array::new();
#[btf_map]
pub(crate) static RECORDS: SkStorage<Record> = SkStorage::new();
#[btf_map]
pub(crate) static CLIENTS: HashMap<u64, Client, 4096> = HashMap::new();
/// Who is to keep its backend, and which. Shared by all CPUs: values are replaced whole.
pub(crate) type Sticky = LruHashMap<AffinityKey, Affinity, 16384>;

#[btf_map]
pub(crate) static AFFINITY: Sticky = Sticky::new();
/// Apart from [`AFFINITY`]: sockets come and go so fast that clients would lose their places to them.
#[btf_map]
pub(crate) static DATAGRAMS: Sticky = Sticky::new();
#[btf_map]
pub(crate) static PEERS: LruHashMap<PeerKey, Peer, 16384> = LruHashMap::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, 65536> = RingBuf::new();
#[btf_map]
pub(crate) static TRACES: RingBuf<Trace, 262144> = RingBuf::new();
