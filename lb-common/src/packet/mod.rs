//! Maps of the packet path, which balances what no socket hook sees: their keys, values and constants. Versioned by
//! [`PACKET_VERSION`], apart from the socket path's, so that neither has to be given up for a change of the other.
//!
//! One address of an IPv6 VIP has the host part of the IPv4 one, so a VIP is four bytes for both families.

mod endpoint;
mod fate;
mod flow;

pub use endpoint::*;
pub use fate::*;
pub use flow::*;

/// Version of all layouts of this module; part of the pin path.
pub const PACKET_VERSION: u32 = 1;

/// Slots of a table: the prime of the Maglev paper's larger evaluation, the same on every host.
pub const MAGLEV_SLOTS: u32 = 65_537;

/// Most backends of the packet path: a slot is two bytes, and 0 names none.
pub const MAX_PACKET_BACKENDS: u32 = 65_535;

/// Most VIPs that the packet path answers for.
pub const MAX_PACKET_VIPS: usize = 4096;

/// Most hosts that may send it packets in tunnels.
pub const MAX_PACKET_HOSTS: usize = 4096;

/// Names of the maps, which are also the names of their pins.
pub mod packet_map {
    /// `HASH`: [`EndpointKey`](super::EndpointKey) to [`Endpoint`](super::Endpoint).
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// `ARRAY`: twice the index of a service and the half to [`Maglev`](super::Maglev).
    pub const MAGLEVS: &str = "MAGLEVS";
    /// `ARRAY`: backend index to [`Target`](super::Target).
    pub const TARGETS: &str = "TARGETS";
    /// `ARRAY`: backend index to [`Hop`](super::Hop). Written by the kernel.
    pub const HOPS: &str = "HOPS";
    /// `HASH`: the interface index of a network card that runs the program of XDP to 1.
    pub const CARDS: &str = "CARDS";
    /// `HASH`: an IPv4 VIP to 1.
    pub const VIPS: &str = "VIPS";
    /// `LRU_HASH`: [`FlowKey4`](super::FlowKey4) to [`Flow`](super::Flow).
    pub const FLOWS4: &str = "FLOWS4";
    /// `LRU_HASH`: [`FlowKey6`](super::FlowKey6) to [`Flow`](super::Flow).
    pub const FLOWS6: &str = "FLOWS6";
    /// `HASH`: [`ReplyKey4`](super::ReplyKey4) to [`Reply`](super::Reply).
    pub const REPLIES4: &str = "REPLIES4";
    /// `HASH`: [`ReplyKey6`](super::ReplyKey6) to [`Reply`](super::Reply).
    pub const REPLIES6: &str = "REPLIES6";
    /// `HASH`: the address of a host that may send packets in a tunnel (16 bytes) to 1.
    pub const HOSTS: &str = "HOSTS";
    /// `ARRAY` of one [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// `PERCPU_ARRAY` of one [`Rate`](super::Rate).
    pub const RATES: &str = "RATES";
    /// `PERCPU_ARRAY`: index of a service to [`Traffic`](super::Traffic).
    pub const SERVICE_TRAFFIC: &str = "SERVICE_TRAFFIC";
    /// `PERCPU_ARRAY`: backend index to [`Traffic`](super::Traffic).
    pub const TARGET_TRAFFIC: &str = "TARGET_TRAFFIC";
    /// `PERCPU_ARRAY`: a [`Fate`](super::Fate) as its integer to how many packets had it (`u64`).
    pub const FATES: &str = "FATES";
    /// `PROG_ARRAY`: a [`step`](super::step) to the program that is named beside it.
    pub const STEPS: &str = "STEPS";
    /// `RINGBUF` of [`Sample`](super::Sample).
    pub const SAMPLES: &str = "SAMPLES";
}
