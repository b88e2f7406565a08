//! Layouts that select a backend: service, table of slots, backend. Versioned by [`crate::MAP_VERSION`].

use crate::{Be16, Be32};

/// Slots in one half of a [`Table`]: a power of two, so that a masked index satisfies the verifier.
pub const SLOTS: u32 = 1024;

/// The view of the host itself and of every client that is not known to stand elsewhere.
pub const HOST_VIEW: u32 = 0;

/// Key of `SERVICES`: one virtual endpoint as one view sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The virtual address.
    pub vip: Be32,
    /// The port, or [`crate::ANY_PORT`].
    pub port: Be16,
    /// IANA protocol number (6 = TCP, 17 = UDP).
    pub proto: u8,
    // The kernel hashes every byte of a key: padding is a field, private, zero in `new`.
    _pad: u8,
    /// Where the client stands: [`HOST_VIEW`] or a set of Docker networks.
    pub view: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 12);

impl ServiceKey {
    /// The key of `vip`:`port`/`proto` as `view` sees it.
    pub const fn new(vip: Be32, port: Be16, proto: u8, view: u32) -> Self {
        Self {
            vip,
            port,
            proto,
            _pad: 0,
            view,
        }
    }
}

/// Value of `SERVICES`. One element update of it publishes a new set of backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Index of this service's value in `TABLES`, `CURSORS` and `COUNTERS`; 0 is never given out.
    pub table: u32,
    /// The live half of the table: 0 or 1.
    pub half: u32,
    /// Slots in use in that half, at most [`SLOTS`]. 0 means that no backend is usable.
    pub count: u32,
    /// Equals [`Half::generation`] of the live half unless that half is being rewritten.
    pub generation: u32,
    /// A [`Balance`] as its integer.
    pub balance: u32,
    /// Spare, zero.
    pub spare: u32,
}

const _: () = assert!(size_of::<Service>() == 24);

/// How a backend is chosen from the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Balance {
    /// Two random slots; the backend with fewer active flows per weight wins.
    LeastConn = 0,
    /// The slots in turn.
    RoundRobin = 1,
    /// One random slot.
    Random = 2,
}

/// An integer that names no [`Balance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownBalance(pub u32);

impl TryFrom<u32> for Balance {
    type Error = UnknownBalance;

    fn try_from(value: u32) -> Result<Self, UnknownBalance> {
        match value {
            0 => Ok(Self::LeastConn),
            1 => Ok(Self::RoundRobin),
            2 => Ok(Self::Random),
            other => Err(UnknownBalance(other)),
        }
    }
}

/// One half of a [`Table`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// Counts the publications of this table, starting at 1; 0 means never written.
    pub generation: u32,
    /// The virtual address that the half was written for. With the generation it tells a program that the
    /// service's value it read was overtaken: the kernel reuses the element of a replaced or removed entry.
    pub vip: Be32,
    /// Backend indexes: the first [`Service::count`] over and over, so that every read of a half that is
    /// being rewritten is still a backend.
    pub slots: [u32; SLOTS as usize],
}

/// Value of `TABLES`: two halves, of which the service's value names the live one. The idle one is
/// written while nobody reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Indexed by [`Service::half`].
    pub halves: [Half; 2],
}

const _: () = assert!(size_of::<Table>() == 2 * (8 + 4 * SLOTS as usize));

/// Value of `BACKENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Where the flow really goes.
    pub address: Be32,
    /// Its port; 0 means that the index is free.
    pub port: Be16,
    /// Relative share, 1 to 65535; divides the active count in least-connections.
    pub weight: u16,
    /// Second half of the backend's id. It stays when the index is freed, so that no id comes back.
    pub generation: u32,
    /// Spare, zero.
    pub spare: u32,
}

const _: () = assert!(size_of::<Backend>() == 16);

/// Value of `SUSPECTS`: written by the kernel, cleared by the agent when the index gets another meaning. Not
/// part of [`Backend`], which the agent rewrites.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspect {
    /// Coarse monotonic nanoseconds until which the backend is skipped; 0 means not suspected.
    pub until_ns: u64,
}

const _: () = assert!(size_of::<Suspect>() == 8);

/// Value of `CURSORS`, the size of a cache line: every round-robin connect of a service writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Connects so far. Changed by atomic adds only.
    pub turn: u64,
    /// Spare, zero.
    pub spare: [u64; 7],
}

const _: () = assert!(size_of::<Cursor>() == 64);
