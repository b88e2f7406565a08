//! Layouts that select a backend: service, table of slots, backend. Versioned by [`crate::MAP_VERSION`].

use core::cmp::Ordering;

use crate::{Be16, Be32};

/// Slots in one half of a [`Table`]: a power of two, so that a masked index satisfies the verifier.
pub const SLOTS: u32 = 1024;

/// The view of the host itself and of every client that is not known to stand elsewhere.
pub const HOST_VIEW: u32 = 0;

/// The view of a container that shares no network with a service's instances, but reaches other hosts.
pub const OUTSIDE_VIEW: u32 = 1;

/// The view of a container that reaches nothing but its own networks, none of which an instance is on.
pub const INTERNAL_VIEW: u32 = 2;

/// The first view that stands for one set of clients.
pub const FIRST_OWN_VIEW: u32 = 16;

/// The family in the key of an element for every client; the backends of IPv4 sockets.
pub const FAMILY_ANY: u8 = 0;

/// The family in the key of an element for IPv6 sockets alone, where they can reach more than others.
pub const FAMILY_V6: u8 = 6;

/// Key of `SERVICES`: one virtual endpoint as one view sees it.
///
/// Every endpoint has an element for [`HOST_VIEW`] and [`FAMILY_ANY`]; its flags say whether there are others. An
/// IPv6 VIP has the host part of the IPv4 one, so there is one key for both.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The virtual address.
    pub vip: Be32,
    /// The port, or [`crate::ANY_PORT`].
    pub port: Be16,
    /// IANA protocol number (6 = TCP, 17 = UDP).
    pub proto: u8,
    /// [`FAMILY_ANY`] or [`FAMILY_V6`].
    pub family: u8,
    /// Where the client stands: [`HOST_VIEW`] or a set of Docker networks.
    pub view: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 12);

/// By endpoint, then as a look-up goes: the host's view, from which it goes on to another, and in each view the element
/// for every client, from which it goes on to that for IPv6 sockets.
impl Ord for ServiceKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |it: &Self| (it.vip, it.port, it.proto, it.view, it.family);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for ServiceKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ServiceKey {
    /// The key of `vip`:`port`/`proto` as `view` sees it, for clients of every family.
    pub const fn new(vip: Be32, port: Be16, proto: u8, view: u32) -> Self {
        Self {
            vip,
            port,
            proto,
            family: FAMILY_ANY,
            view,
        }
    }

    /// The same for IPv6 sockets alone.
    pub const fn for_v6(self) -> Self {
        Self {
            family: FAMILY_V6,
            ..self
        }
    }

    /// The same as `view` sees it.
    pub const fn seen_from(self, view: u32) -> Self {
        Self { view, ..self }
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
    /// [`flag`]s.
    pub flags: u32,
    /// For how many seconds after its last flow a client keeps its backend; 0 means not at all.
    pub affinity_seconds: u32,
    /// Spare, zero.
    pub spare: u32,
}

const _: () = assert!(size_of::<Service>() == 32);

/// Bits of [`Service::flags`].
pub mod flag {
    /// Other views than this one may have an element of their own. Only in that of [`HOST_VIEW`](super::HOST_VIEW).
    pub const VIEWS: u32 = 1;
    /// IPv6 sockets have an element of their own.
    pub const V6: u32 = 2;
    /// There are usable backends, but none that this view reaches.
    pub const NO_PATH: u32 = 4;
    /// Clients of this view are not let in.
    pub const DENIED: u32 = 8;
    /// Somebody follows the decisions: each is written to `TRACES`.
    pub const TRACE: u32 = 16;
}

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
    /// The slot that the client hashes to.
    Maglev = 3,
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
            3 => Ok(Self::Maglev),
            other => Err(UnknownBalance(other)),
        }
    }
}

/// One half of a [`Table`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// Counts the publications of all tables, so that no two share one; 0 means never written.
    pub generation: u32,
    /// The endpoint that the half was written for. With the generation it tells a program that the
    /// service's value it read was overtaken: the kernel reuses the element of a replaced or removed entry.
    pub owner: ServiceKey,
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

const _: () = assert!(size_of::<Table>() == 2 * (16 + 4 * SLOTS as usize));

/// Value of `BACKENDS`: one address of a backend. An instance that clients reach by several addresses has an
/// element for each, of which one counts the flows of all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Where the flow really goes, as an IPv6 address; an IPv4 one as `::ffff:a.b.c.d`. Four raw integers in
    /// network order.
    pub address: [u32; 4],
    /// Its port; 0 means that the index is free.
    pub port: Be16,
    /// Relative share, 1 to 65535; divides the active count in least-connections.
    pub weight: u16,
    /// Second half of the id. It stays when the index is freed, so that no id comes back.
    pub generation: u32,
    /// [`BackendId::to_bits`](crate::BackendId::to_bits) of the element that flows are counted at, which may be
    /// this one.
    pub counted_at: u64,
}

const _: () = assert!(size_of::<Backend>() == 32);

impl Backend {
    /// Whether the address is an IPv4 one.
    pub const fn is_v4(&self) -> bool {
        self.address[0] == 0 && self.address[1] == 0 && self.address[2] == 0xffff_u32.to_be()
    }
}

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

/// Value of `CLIENTS`, by network namespace cookie: where a client stands. Who is not there stands on the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its view, which services may have an element for.
    pub view: u32,
    /// The view of services that have none: [`OUTSIDE_VIEW`] or [`INTERNAL_VIEW`].
    pub otherwise: u32,
}

const _: () = assert!(size_of::<Client>() == 8);

/// Key of `AFFINITY`: a client of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityKey {
    /// The cookie of its network namespace; of its socket for a datagram's.
    pub client: u64,
    /// The virtual address.
    pub vip: Be32,
    /// The virtual port; 0 where all ports of the address go to the same backend.
    pub port: Be16,
    /// IANA protocol number.
    pub proto: u8,
    // The kernel hashes every byte of a key.
    _pad: u8,
}

const _: () = assert!(size_of::<AffinityKey>() == 16);

impl AffinityKey {
    /// The key of `client` at `vip`:`port`/`proto`.
    pub const fn new(client: u64, vip: Be32, port: Be16, proto: u8) -> Self {
        Self {
            client,
            vip,
            port,
            proto,
            _pad: 0,
        }
    }
}

/// Value of `AFFINITY`: the backend that a client was given last. Valid while the service's slots name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Index in `BACKENDS`.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
    /// [`Service::generation`] when the slots were last seen to name it.
    pub published: u32,
    /// Coarse monotonic seconds at the last flow.
    pub last_seconds: u32,
}

const _: () = assert!(size_of::<Affinity>() == 16);

/// Key of `PEERS`: whom a socket sent a datagram to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerKey {
    /// The cookie of the sending socket.
    pub socket: u64,
    /// As in [`Backend::address`].
    pub address: [u32; 4],
    /// The backend's port.
    pub port: Be16,
    // The kernel hashes every byte of a key.
    _pad: [u16; 3],
}

const _: () = assert!(size_of::<PeerKey>() == 32);

impl PeerKey {
    /// The key of `socket` and the backend at `address`:`port`.
    pub const fn new(socket: u64, address: [u32; 4], port: Be16) -> Self {
        Self {
            socket,
            address,
            port,
            _pad: [0; 3],
        }
    }
}

/// Value of `PEERS`: what the application called it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The IPv4 VIP, or the one that stands for the IPv6 VIP.
    pub vip: Be32,
    /// Its port.
    pub port: Be16,
    /// A [`Form`](crate::Form) as its integer.
    pub form: u16,
}

const _: () = assert!(size_of::<Peer>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u32, view: u32) -> ServiceKey {
        let vip = Be32::from_host(0xc612_0000 + last);
        ServiceKey::new(vip, Be16::from_host(80), 6, view)
    }

    #[test]
    fn keys_are_in_the_order_of_a_look_up() {
        let ordered = [
            key(1, HOST_VIEW),
            key(1, HOST_VIEW).for_v6(),
            key(1, OUTSIDE_VIEW),
            key(1, OUTSIDE_VIEW).for_v6(),
            key(2, HOST_VIEW),
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(one.cmp(other), at.cmp(&other_at), "{one:?} {other:?}");
                assert_eq!(one.partial_cmp(other), Some(at.cmp(&other_at)));
            }
        }
    }

    #[test]
    fn a_key_of_another_view_or_family_is_of_the_same_endpoint() {
        let host = key(1, HOST_VIEW);
        let seen = host.for_v6().seen_from(FIRST_OWN_VIEW);
        assert_eq!((seen.family, seen.view), (FAMILY_V6, FIRST_OWN_VIEW));
        let same = (seen.vip, seen.port, seen.proto);
        assert_eq!(same, (host.vip, host.port, host.proto));
        assert_eq!(host.family, FAMILY_ANY);
    }

    #[test]
    fn ways_to_choose_are_named_by_their_integers() {
        for value in 0..6 {
            match Balance::try_from(value) {
                Ok(balance) => assert_eq!(balance as u32, value),
                Err(UnknownBalance(unknown)) => assert!(unknown == value && value > 3),
            }
        }
    }

    #[test]
    fn only_a_mapped_address_is_an_ipv4_one() {
        let backend = |address: [u32; 4]| Backend {
            address: address.map(u32::to_be),
            ..Backend::default()
        };
        assert!(backend([0, 0, 0xffff, 0x0a00_0001]).is_v4());
        for other in [
            [0, 0, 0, 1],
            [0x2001_0db8, 0, 0xffff, 1],
            [0, 1, 0xffff, 1],
            [0x2001_0db8, 1, 0, 1],
        ] {
            assert!(!backend(other).is_v4(), "{other:x?}");
        }
    }
}
