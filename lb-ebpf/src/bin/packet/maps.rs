//! The maps and the constants that the loader sets.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    Be32,
    packet::{
        Endpoint, EndpointKey, FATES as FATE_COUNT, Flow, FlowKey4, FlowKey6, Hop, MAGLEV_SLOTS,
        MAX_PACKET_HOSTS, MAX_PACKET_VIPS, Maglev, Rate, Reply, ReplyKey4, ReplyKey6,
        STEPS as STEP_COUNT, Sample, Settings, Target, Traffic,
    },
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

/// This host's own address, which backends and the ends of tunnels see; 0 if there is none.
#[unsafe(no_mangle)]
pub(crate) static SOURCE4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOURCE6_0: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOURCE6_1: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOURCE6_2: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOURCE6_3: Global<u32> = Global::new(0);

/// The ports that are this host's to give out, in host order.
#[unsafe(no_mangle)]
pub(crate) static PORT_FIRST: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static PORT_COUNT: Global<u32> = Global::new(0);

/// What a client that is its own backend sees as its peer.
#[unsafe(no_mangle)]
pub(crate) static HAIRPIN4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HAIRPIN6_0: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HAIRPIN6_1: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HAIRPIN6_2: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HAIRPIN6_3: Global<u32> = Global::new(0);

/// [`MAGLEV_SLOTS`], in a form that the compiler cannot see through: it would drop a comparison that the verifier needs.
#[unsafe(no_mangle)]
pub(crate) static SLOTS: Global<u32> = Global::new(MAGLEV_SLOTS);

/// The pools as constants.
#[inline(always)]
pub(crate) fn pools() -> Pools {
    Pools {
        prefix: POOL_PREFIX.load(),
        mask: POOL_MASK.load(),
        high: [POOL6_HIGH0.load(), POOL6_HIGH1.load(), POOL6_HIGH2.load()],
    }
}

/// This host's own IPv6 address; zeroes if there is none.
#[inline(always)]
pub(crate) fn source6() -> [u32; 4] {
    [
        SOURCE6_0.load(),
        SOURCE6_1.load(),
        SOURCE6_2.load(),
        SOURCE6_3.load(),
    ]
}

/// [`HAIRPIN4`] for IPv6.
#[inline(always)]
pub(crate) fn hairpin6() -> [u32; 4] {
    [
        HAIRPIN6_0.load(),
        HAIRPIN6_1.load(),
        HAIRPIN6_2.load(),
        HAIRPIN6_3.load(),
    ]
}

// Sizes are defaults; the loader sets them from the configured capacities.
#[btf_map]
pub(crate) static ENDPOINTS: HashMap<EndpointKey, Endpoint, 4096> = HashMap::new();
/// Two for each service.
#[btf_map]
pub(crate) static MAGLEVS: Array<Maglev, 128> = Array::new();
#[btf_map]
pub(crate) static TARGETS: Array<Target, 4096> = Array::new();
/// Shared by all CPUs: each field is written as a whole.
#[btf_map]
pub(crate) static HOPS: Array<Hop, 4096> = Array::new();
/// Devices that run the program of XDP, and so may be sent frames by it.
#[btf_map]
pub(crate) static CARDS: HashMap<u32, u32, 64> = HashMap::new();
#[btf_map]
pub(crate) static VIPS: HashMap<Be32, u32, MAX_PACKET_VIPS> = HashMap::new();
/// Values are written in place: a second insertion costs as much as the first.
#[btf_map]
pub(crate) static FLOWS4: LruHashMap<FlowKey4, Flow, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static FLOWS6: LruHashMap<FlowKey6, Flow, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static REPLIES4: HashMap<ReplyKey4, Reply, 65536> = HashMap::new();
#[btf_map]
pub(crate) static REPLIES6: HashMap<ReplyKey6, Reply, 65536> = HashMap::new();
#[btf_map]
pub(crate) static HOSTS: HashMap<[u32; 4], u32, MAX_PACKET_HOSTS> = HashMap::new();
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();
// The programs of this object run in softirqs or with softirqs off, one at a time on each CPU: figures are added to without
// atomics.
#[btf_map]
pub(crate) static RATES: PerCpuArray<Rate, 1> = PerCpuArray::new();
/// Where an answer's value is put together, which the stack has no room for. No pin: nothing in it lasts.
#[btf_map]
pub(crate) static DRAFTS: PerCpuArray<Reply, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static SERVICE_TRAFFIC: PerCpuArray<Traffic, 64> = PerCpuArray::new();
#[btf_map]
pub(crate) static TARGET_TRAFFIC: PerCpuArray<Traffic, 4096> = PerCpuArray::new();
#[btf_map]
pub(crate) static FATES: PerCpuArray<u64, { FATE_COUNT as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Sample, 1_048_576> = RingBuf::new();
/// What is known of a packet that is not as nearly all are. The verifier forgets what it knew of a value that lay in a map: what
/// follows is looked at once, not for each way in which a packet may be read. And the stack has no room for it.
#[btf_map]
pub(crate) static KNOWN: PerCpuArray<[u64; 48], 1> = PerCpuArray::new();
/// What `xdp_card` goes on with: each [`step`](lb_common::packet::step) has a stack and a look of the verifier of its own.
#[btf_map]
pub(crate) static STEPS: ProgramArray<{ STEP_COUNT as usize }> = ProgramArray::new();
