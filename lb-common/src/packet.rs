//! Maps of the packet path, which balances what no socket hook sees: their keys, values and constants. Versioned by
//! [`PACKET_VERSION`], apart from the socket path's, so that neither has to be given up for a change of the other.
//!
//! One address of an IPv6 VIP has the host part of the IPv4 one, so a VIP is four bytes for both families.

use crate::{Be16, Be32};

/// Version of all layouts of this module; part of the pin path.
pub const PACKET_VERSION: u32 = 1;

/// Slots of a table: the prime of the Maglev paper's larger evaluation, the same on every host.
pub const MAGLEV_SLOTS: u32 = 65_537;

/// Most backends of the packet path: a slot is two bytes, and 0 names none.
pub const MAX_PACKET_BACKENDS: u32 = 65_535;

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

/// Key of `ENDPOINTS`: one virtual endpoint for the packets of one family that come one way.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The IPv4 VIP, or the one that stands for the IPv6 VIP.
    pub vip: Be32,
    /// The port, or [`crate::ANY_PORT`].
    pub port: Be16,
    /// IANA protocol number: 6 is TCP, 17 UDP.
    pub proto: u8,
    /// [`scope`] bits.
    pub scope: u8,
}

const _: () = assert!(size_of::<EndpointKey>() == 8);

/// Bits of [`EndpointKey::scope`].
pub mod scope {
    /// IPv6 packets, which only IPv6 backends can be sent; without it, IPv4.
    pub const V6: u8 = 1;
    /// Backends of this host alone: where packets go on from the network card, and from a tunnel.
    pub const LOCAL: u8 = 2;
}

/// Value of `ENDPOINTS`. One element update of it publishes a new table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Index in `SERVICE_TRAFFIC`; 0 is never given out.
    pub service: u32,
    /// Index in `MAGLEVS` of the live table.
    pub table: u32,
    /// [`endpoint_flag`]s.
    pub flags: u32,
    /// Counts publications; for people.
    pub generation: u32,
}

const _: () = assert!(size_of::<Endpoint>() == 16);

/// Bits of [`Endpoint::flags`].
pub mod endpoint_flag {
    /// Packets for backends of other hosts go through a tunnel, and answers straight to the client.
    pub const TUNNEL: u32 = 1;
    /// No backend is usable: the table is not to be read.
    pub const EMPTY: u32 = 2;
    /// Every packet is written to `SAMPLES`.
    pub const TRACE: u32 = 4;
}

/// Value of `MAGLEVS`: one table. The idle one of a service's two is written while nobody reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// Backend indexes, never 0 in a live table. The first [`MAGLEV_SLOTS`] are in use.
    pub slots: [u16; MAGLEV_SLOTS as usize + 3],
}

const _: () = assert!(size_of::<Maglev>() == 131_080);

/// Value of `TARGETS`: where packets of a backend go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The backend's address, as an IPv6 one; an IPv4 address as `::ffff:a.b.c.d`. Four raw integers in network order.
    pub address: [u32; 4],
    /// Its host's address in the same form, where the end of a tunnel is; zeroes if there is none.
    pub host: [u32; 4],
    /// Its port; 0 means that nobody is here, and flows that name the index are over.
    pub port: Be16,
    /// [`target_flag`]s.
    pub flags: u16,
    /// Second half of the id: a flow that names another one is over.
    pub generation: u32,
}

const _: () = assert!(size_of::<Target>() == 40);

/// Bits of [`Target::flags`].
pub mod target_flag {
    /// It is on this host: packets from the network card go up the stack to it.
    pub const LOCAL: u16 = 1;
}

/// Value of `HOPS`, and part of [`Reply`]: how frames get to an address, kept for a second or so. Written by the kernel field
/// by field; who reads it while it changes sends one frame to nobody.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Coarse monotonic seconds until which it holds; 0 means never known.
    pub until_seconds: u32,
    /// Interface index of the device that frames leave by.
    pub device: u32,
    /// Who takes them.
    pub destination: [u8; 6],
    /// The device's own address.
    pub source: [u8; 6],
    /// Greatest packet that fits, without the link's head.
    pub mtu: u16,
    /// The [`Way`] that it is for, as its integer: a tunnel leads elsewhere than to the backend.
    pub way: u16,
}

const _: () = assert!(size_of::<Hop>() == 24);

/// Before the bytes of a packet that XDP rewrote and hands over to `tc_card_in`, which lets the stack find out who takes its frame.
/// Nobody can send it: it is the card's metadata.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// [`HAND_OVER`].
    pub mark: u32,
    /// Interface index of the device that the packet leaves by.
    pub device: u32,
}

const _: () = assert!(size_of::<HandOver>() == 8);

/// What says that it is a [`HandOver`].
pub const HAND_OVER: u32 = u32::from_be_bytes(*b"lbho");

/// Two ports as they lie one after the other in a head of TCP or UDP. Keys of flows are whole words: the kernel hashes words, and
/// a processor that reads a word which it has just written in parts waits until they are in its cache.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPair(u32);

impl PortPair {
    /// Of two ports.
    #[inline(always)]
    pub const fn new(first: Be16, second: Be16) -> Self {
        Self((second.raw() as u32) << 16 | first.raw() as u32)
    }

    /// The bytes as they lie in memory, read as one native integer.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// From these.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The first one.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    pub const fn first(self) -> Be16 {
        Be16::from_raw(self.0 as u16)
    }

    /// The second one.
    #[inline(always)]
    pub const fn second(self) -> Be16 {
        Be16::from_raw((self.0 >> 16) as u16)
    }
}

/// Programs are little-endian, as are the machines that run them.
const _: () = assert!(u16::from_le(1) == 1);

/// Key of `FLOWS4`: an IPv4 flow as its client sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey4 {
    /// The client's address.
    pub client: Be32,
    /// The VIP.
    pub vip: Be32,
    /// The client's port and the VIP's.
    pub ports: PortPair,
    /// IANA protocol number.
    pub proto: u32,
}

const _: () = assert!(size_of::<FlowKey4>() == 16);

impl FlowKey4 {
    /// The key of a flow.
    #[inline(always)]
    pub const fn new(
        client: Be32,
        client_port: Be16,
        vip: Be32,
        vip_port: Be16,
        proto: u8,
    ) -> Self {
        Self {
            client,
            vip,
            ports: PortPair::new(client_port, vip_port),
            proto: proto as u32,
        }
    }
}

/// Key of `FLOWS6`: an IPv6 flow as its client sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey6 {
    /// The client's address, as raw integers in network order.
    pub client: [u32; 4],
    /// The IPv4 VIP that stands for the IPv6 one.
    pub vip: Be32,
    /// The client's port and the VIP's.
    pub ports: PortPair,
    /// IANA protocol number.
    pub proto: u32,
}

const _: () = assert!(size_of::<FlowKey6>() == 28);

impl FlowKey6 {
    /// The key of a flow.
    #[inline(always)]
    pub const fn new(
        client: [u32; 4],
        client_port: Be16,
        vip: Be32,
        vip_port: Be16,
        proto: u8,
    ) -> Self {
        Self {
            client,
            vip,
            ports: PortPair::new(client_port, vip_port),
            proto: proto as u32,
        }
    }
}

/// Value of `FLOWS4` and `FLOWS6`: what became of the flow's first packet. Written in place by whoever sees the next
/// one; on several CPUs at once they write the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Index in `TARGETS`.
    pub backend: u32,
    /// Its generation: another one means that the backend is gone.
    pub generation: u32,
    /// [`Endpoint::service`].
    pub service: u32,
    /// Coarse monotonic seconds of the last packet from the client.
    pub last_seconds: u32,
    /// The port that the backend sees; the client's own where its address is kept and nobody else has it there.
    pub local_port: Be16,
    /// A [`Way`] as its integer.
    pub way: u8,
    /// [`seen`] bits of what came from the client.
    pub seen: u8,
    /// Coarse monotonic seconds of the first packet.
    pub start_seconds: u32,
}

const _: () = assert!(size_of::<Flow>() == 24);

/// How the packets of a flow get to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// The VIP is replaced; the backend sees the client's address.
    Destination = 0,
    /// Both ends are replaced: the backend sees this host's address and a port of its pool.
    Full = 1,
    /// Unchanged in a tunnel to the backend's host, which does the rest.
    Tunnel = 2,
    /// The client is its own backend: it sees the address that is reserved for this.
    Hairpin = 3,
}

/// An integer that names no [`Way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWay(pub u8);

impl TryFrom<u8> for Way {
    type Error = UnknownWay;

    fn try_from(value: u8) -> Result<Self, UnknownWay> {
        match value {
            0 => Ok(Self::Destination),
            1 => Ok(Self::Full),
            2 => Ok(Self::Tunnel),
            3 => Ok(Self::Hairpin),
            other => Err(UnknownWay(other)),
        }
    }
}

/// Bits of [`Flow::seen`] and [`Reply::seen`].
pub mod seen {
    /// A SYN, with or without an ACK.
    pub const SYN: u8 = 1;
    /// An ACK without a SYN: on the client's side the handshake is done.
    pub const ACK: u8 = 2;
    /// A FIN.
    pub const FIN: u8 = 4;
    /// A RST.
    pub const RST: u8 = 8;
    /// A SYN in the midst of the flow.
    pub const SYN_AGAIN: u8 = 16;
}

/// Key of `REPLIES4`: the same flow as its backend sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyKey4 {
    /// The backend's address.
    pub backend: Be32,
    /// Whom it answers: the client, this host, or the address reserved for hairpins.
    pub local: Be32,
    /// The backend's port and [`Flow::local_port`].
    pub ports: PortPair,
    /// IANA protocol number.
    pub proto: u32,
}

const _: () = assert!(size_of::<ReplyKey4>() == 16);

impl ReplyKey4 {
    /// The key of a flow's answers.
    #[inline(always)]
    pub const fn new(
        backend: Be32,
        backend_port: Be16,
        local: Be32,
        local_port: Be16,
        proto: u8,
    ) -> Self {
        Self {
            backend,
            local,
            ports: PortPair::new(backend_port, local_port),
            proto: proto as u32,
        }
    }
}

/// Key of `REPLIES6`: as [`ReplyKey4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyKey6 {
    /// The backend's address, as raw integers in network order.
    pub backend: [u32; 4],
    /// Whom it answers.
    pub local: [u32; 4],
    /// The backend's port and [`Flow::local_port`].
    pub ports: PortPair,
    /// IANA protocol number.
    pub proto: u32,
}

const _: () = assert!(size_of::<ReplyKey6>() == 40);

impl ReplyKey6 {
    /// The key of a flow's answers.
    #[inline(always)]
    pub const fn new(
        backend: [u32; 4],
        backend_port: Be16,
        local: [u32; 4],
        local_port: Be16,
        proto: u8,
    ) -> Self {
        Self {
            backend,
            local,
            ports: PortPair::new(backend_port, local_port),
            proto: proto as u32,
        }
    }
}

/// Value of `REPLIES4` and `REPLIES6`: whom the answers of a flow are really for. Never evicted: the agent takes out what
/// is over, since an answer without one cannot be told from a packet of a direct flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The client's address, in the form of [`Target::address`].
    pub client: [u32; 4],
    /// The IPv4 VIP, or the one that stands for the IPv6 VIP.
    pub vip: Be32,
    /// Its port.
    pub vip_port: Be16,
    /// The client's port.
    pub client_port: Be16,
    /// Index in `TARGETS`.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
    /// [`Endpoint::service`].
    pub service: u32,
    /// Coarse monotonic seconds of the last packet from the backend; at first, of the flow's first packet.
    pub last_seconds: u32,
    /// A [`Way`] as its integer.
    pub way: u8,
    /// [`seen`] bits of what came from the backend.
    pub seen: u8,
    /// 1 where the greatest segment of its handshake is lowered, because a tunnel leads here.
    pub clamp: u8,
    /// Spare, zero.
    pub spare: u8,
    /// How frames get to the client.
    pub hop: Hop,
}

const _: () = assert!(size_of::<Reply>() == 68);

/// Value of `SETTINGS`: what may change while programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// One packet of so many that concern VIPs is written to `SAMPLES`; 0 means none.
    pub sample: u32,
    /// New flows for each CPU and second above which none is written down any more; 0 means no limit.
    pub flood: u32,
    /// Seconds after which a UDP flow without packets is over.
    pub udp_seconds: u32,
    /// 1 while an endpoint has [`endpoint_flag::TRACE`]: `ENDPOINTS` is not asked about packets of known flows otherwise.
    pub traced: u32,
}

const _: () = assert!(size_of::<Settings>() == 16);

/// Value of `RATES`: new flows of this second, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Which coarse monotonic second.
    pub second: u32,
    /// Flows that began in it.
    pub flows: u32,
}

const _: () = assert!(size_of::<Rate>() == 8);

/// Value of `SERVICE_TRAFFIC` and `TARGET_TRAFFIC`, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets towards backends.
    pub packets: u64,
    /// Their bytes, without the link's head.
    pub bytes: u64,
    /// Flows that began.
    pub flows: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

const _: () = assert!(size_of::<Traffic>() == 32);

/// What became of a packet: the index in `FATES`, and the label in metrics. Whatever is dropped has one that says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Fate {
    /// None of ours, or the stack's to answer.
    Passed = 0,
    /// To a backend, with both ends replaced; also to a client that is its own backend.
    Full = 1,
    /// To a backend, with the VIP replaced.
    Destination = 2,
    /// To a backend's host, in a tunnel.
    Tunnelled = 3,
    /// Out of a tunnel: counted once more with what becomes of what was in it.
    Untunnelled = 4,
    /// An answer of a backend to its client.
    Answered = 5,
    /// An ICMP error to the end of the flow that it is about.
    Error = 6,
    /// An echo request, answered for the VIP.
    Echo = 7,
    /// For a backend of this host: up the stack, where it is counted once more with what becomes of it.
    Local = 8,
    /// By the stack: the next hop was not known, or it leaves by a device that XDP cannot send to.
    Stack = 9,
    /// Too big for the way to the backend: the client was told.
    TooBig = 10,
    /// A TCP packet that nobody takes: the client was told.
    Reset = 11,
    /// A packet in the midst of a flow that was not known: sent by the table. Where its backend sees the client's address, the flow is
    /// known from then on.
    Unknown = 12,
    /// Dropped: not as the protocols are.
    Malformed = 13,
    /// Dropped: a fragment, which has no ports.
    Fragment = 14,
    /// Nobody has the address, or not on this port: the stack's route of the pool says so.
    NoEndpoint = 15,
    /// Dropped: no backend is usable. A client of TCP is told.
    NoBackend = 16,
    /// Dropped: the backend of the flow is gone.
    BackendGone = 17,
    /// Dropped: of no flow that is known. A client of TCP is told.
    NoFlow = 18,
    /// Dropped: all ports to the backend are in use.
    NoPort = 19,
    /// Dropped: the maps of flows are full.
    TableFull = 20,
    /// Dropped: too many new flows.
    Flood = 21,
    /// Dropped: it has been under way for too long.
    Expired = 22,
    /// Dropped: there is no way to the backend.
    NoRoute = 23,
    /// Dropped: a tunnel from a host that is none of ours.
    Stranger = 24,
    /// Dropped: the backend's host is not known.
    NoHost = 25,
    /// Dropped: a protocol that VIPs do not speak.
    Protocol = 26,
    /// Dropped: the packet could not be given another size.
    Resize = 27,
}

/// Elements of `FATES`.
pub const FATES: u32 = 32;

/// Bits of a fate that are counted beside it: they are no fate of their own.
pub mod oddity {
    /// Index in `FATES` of packets with IPv4 options or IPv6 extension headers.
    pub const OPTIONS: u32 = 30;
    /// Index in `FATES` of samples that found no room.
    pub const UNTOLD: u32 = 31;
}

impl Fate {
    /// All of them, in the order of their integers.
    pub const ALL: [Self; 28] = [
        Self::Passed,
        Self::Full,
        Self::Destination,
        Self::Tunnelled,
        Self::Untunnelled,
        Self::Answered,
        Self::Error,
        Self::Echo,
        Self::Local,
        Self::Stack,
        Self::TooBig,
        Self::Reset,
        Self::Unknown,
        Self::Malformed,
        Self::Fragment,
        Self::NoEndpoint,
        Self::NoBackend,
        Self::BackendGone,
        Self::NoFlow,
        Self::NoPort,
        Self::TableFull,
        Self::Flood,
        Self::Expired,
        Self::NoRoute,
        Self::Stranger,
        Self::NoHost,
        Self::Protocol,
        Self::Resize,
    ];

    /// The word in metrics, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Full => "full",
            Self::Destination => "destination",
            Self::Tunnelled => "tunnelled",
            Self::Untunnelled => "untunnelled",
            Self::Answered => "answered",
            Self::Error => "error",
            Self::Echo => "echo",
            Self::Local => "local",
            Self::Stack => "stack",
            Self::TooBig => "too-big",
            Self::Reset => "reset",
            Self::Unknown => "unknown-flow",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::NoEndpoint => "no-endpoint",
            Self::NoBackend => "no-backend",
            Self::BackendGone => "backend-gone",
            Self::NoFlow => "no-flow",
            Self::NoPort => "no-port",
            Self::TableFull => "table-full",
            Self::Flood => "flood",
            Self::Expired => "expired",
            Self::NoRoute => "no-route",
            Self::Stranger => "stranger",
            Self::NoHost => "no-host",
            Self::Protocol => "protocol",
            Self::Resize => "resize",
        }
    }

    /// Whether the packet is gone.
    pub const fn drops(self) -> bool {
        self as u32 >= Self::Malformed as u32
    }
}

/// Elements of `STEPS`.
pub const STEPS: u32 = 2;

/// Index in `STEPS` of what `xdp_card` goes on with.
pub mod step {
    /// `xdp_card_any`: packets that are not as nearly all are.
    pub const ANY: u32 = 0;
    /// `xdp_card_message`: messages and tunnels.
    pub const MESSAGE: u32 = 1;
    /// The programs, by these.
    pub const PROGRAMS: [&str; super::STEPS as usize] = ["xdp_card_any", "xdp_card_message"];
}

/// Bytes of a packet that a [`Sample`] holds.
pub const SAMPLE_BYTES: usize = 128;

/// One packet, as `SAMPLES` tells it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Interface index of the device that it came by, or leaves by.
    pub device: u32,
    /// Its length with the link's head.
    pub length: u32,
    /// How many of `bytes` are its.
    pub kept: u32,
    /// A [`Fate`] as its integer.
    pub fate: u32,
    /// Its first bytes, as it came.
    pub bytes: [u8; SAMPLE_BYTES],
}

const _: () = assert!(size_of::<Sample>() == 152);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_listed_in_the_order_of_their_integers() {
        for (index, fate) in Fate::ALL.into_iter().enumerate() {
            assert_eq!(fate as usize, index, "{fate:?}");
        }
        assert!(Fate::ALL.len() <= oddity::OPTIONS as usize);
    }

    #[test]
    fn ways_are_named_by_their_integers() {
        for value in 0..=u8::MAX {
            match Way::try_from(value) {
                Ok(way) => assert_eq!(way as u8, value),
                Err(UnknownWay(unknown)) => assert!(unknown == value && value > 3),
            }
        }
    }
}
