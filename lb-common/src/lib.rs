//! What the kernel programs and the agent must agree on: map keys and values, and their constants.
//!
//! The kernel compares keys byte by byte and its maps outlive the agent, so these types hold integers
//! only, with explicit padding, a byte order in the type, and asserted sizes. The only logic here is which slot is a client's or a flow's.
//! A changed layout bumps [`MAP_VERSION`], which is part of the pin path; [`Record`] and [`Active`] are
//! shared by every version and carry [`RECORD_VERSION`] instead.
#![no_std]

mod bytes;
mod flow;
mod flow_hash;
pub mod packet;
mod service;
mod slot;
mod trace;
#[cfg(feature = "user")]
mod user;

pub use bytes::{Be16, Be32};
pub use flow::{Active, BackendId, Event, EventKind, Form, RECORD_VERSION, Record};
pub use flow_hash::{FlowHash, flow_hash4, flow_hash6};
pub use service::{
    Affinity, AffinityKey, Backend, Balance, Client, Cursor, FAMILY_ANY, FAMILY_V6, FIRST_OWN_VIEW,
    HOST_VIEW, Half, INTERNAL_VIEW, OUTSIDE_VIEW, Peer, PeerKey, SLOTS, Service, ServiceKey,
    Suspect, Table, UnknownBalance, flag,
};
pub use slot::{mix, random_slot};
pub use trace::{Counters, FIRST_BUCKET_MICROS, LATENCY_BUCKETS, Latency, Refusal, Trace};

/// Version of all map layouts except [`Record`] and [`Active`]; part of the pin path.
pub const MAP_VERSION: u32 = 2;

/// How long the kernel skips a backend that it saw fail, in nanoseconds of the coarse monotonic clock.
pub const SUSPICION_NS: u64 = 10_000_000_000;

/// Any port: the port in the key of a VIP that answers on every port.
pub const ANY_PORT: Be16 = Be16::from_host(0);

/// IANA protocol number of TCP.
pub const PROTO_TCP: u8 = 6;

/// IANA protocol number of UDP.
pub const PROTO_UDP: u8 = 17;

/// Names of the maps, which are also the names of their pins.
pub mod map {
    /// `HASH`: [`ServiceKey`](crate::ServiceKey) to [`Service`](crate::Service).
    pub const SERVICES: &str = "SERVICES";
    /// `ARRAY`: table index to [`Table`](crate::Table).
    pub const TABLES: &str = "TABLES";
    /// `ARRAY`: backend index to [`Backend`](crate::Backend).
    pub const BACKENDS: &str = "BACKENDS";
    /// `ARRAY`: backend index to [`Suspect`](crate::Suspect).
    pub const SUSPECTS: &str = "SUSPECTS";
    /// `ARRAY`: table index to [`Cursor`](crate::Cursor).
    pub const CURSORS: &str = "CURSORS";
    /// `PERCPU_ARRAY`: table index to [`Counters`](crate::Counters).
    pub const COUNTERS: &str = "COUNTERS";
    /// `ARRAY`: backend index to [`Latency`](crate::Latency).
    pub const LATENCIES: &str = "LATENCIES";
    /// `HASH`: cookie of a network namespace to [`Client`](crate::Client).
    pub const CLIENTS: &str = "CLIENTS";
    /// `LRU_HASH`: [`AffinityKey`](crate::AffinityKey) to [`Affinity`](crate::Affinity).
    pub const AFFINITY: &str = "AFFINITY";
    /// The same for datagrams, whose clients are sockets.
    pub const DATAGRAMS: &str = "DATAGRAMS";
    /// `LRU_HASH`: [`PeerKey`](crate::PeerKey) to [`Peer`](crate::Peer).
    pub const PEERS: &str = "PEERS";
    /// `RINGBUF` of [`Event`](crate::Event).
    pub const EVENTS: &str = "EVENTS";
    /// `RINGBUF` of [`Trace`](crate::Trace).
    pub const TRACES: &str = "TRACES";
    /// `ARRAY`: backend index to [`Active`](crate::Active). Pinned outside the map version.
    pub const ACTIVE: &str = "ACTIVE";
    /// `SK_STORAGE`: socket to [`Record`](crate::Record). Pinned outside the map version.
    pub const RECORDS: &str = "RECORDS";
}
