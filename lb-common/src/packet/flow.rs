//! Flows as their clients see them, and as their backends do.

use super::Hop;
use crate::{Be16, Be32};

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
    /// [`Endpoint::service`](super::Endpoint::service).
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
    /// The client's address, in the form of [`Target::address`](super::Target::address).
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
    /// [`Endpoint::service`](super::Endpoint::service).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_lie_as_in_a_head() {
        let (first, second) = (Be16::from_host(0x1234), Be16::from_host(0x8765));
        let pair = PortPair::new(first, second);
        assert_eq!(pair.raw().to_ne_bytes(), [0x12, 0x34, 0x87, 0x65]);
        assert_eq!((pair.first(), pair.second()), (first, second));
        assert_eq!(PortPair::from_raw(pair.raw()), pair);
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
