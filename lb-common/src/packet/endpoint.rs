//! Virtual endpoints, their tables, the backends that these name, and how frames get there.

use super::MAGLEV_SLOTS;
use crate::{Be16, Be32};

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

/// Value of `HOPS`, and part of [`Reply`](super::Reply): how frames get to an address, kept for a second or so. Written by the kernel field
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
    /// The [`Way`](super::Way) that it is for, as its integer: a tunnel leads elsewhere than to the backend.
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
