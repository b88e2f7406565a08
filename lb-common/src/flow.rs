//! Layouts that belong to a flow. They outlive every map version: see [`RECORD_VERSION`].

use crate::{Be16, Be32};

/// Version of [`Record`] and [`Active`]. Old and new programs run side by side while links are swapped
/// one by one, so a later version may only give meaning to spare bytes. Version 1 left everything from
/// [`Record::target`] on zero.
pub const RECORD_VERSION: u8 = 2;

/// A backend's id. It is never reused while pinned state lives: an index that is used again gets
/// another generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    /// Index in `BACKENDS`, `ACTIVE` and `SUSPECTS`; 0 is never given out.
    pub index: u32,
    /// Counts the uses of the index, starting at 1.
    pub generation: u32,
}

const _: () = assert!(size_of::<BackendId>() == 8);

impl BackendId {
    /// Both halves in one integer, so that a program can exchange the id atomically.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The inverse of [`BackendId::to_bits`].
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves are taken apart"
    )]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// Value of `RECORDS`: which VIP and which backend a client's socket was given.
///
/// 56 bytes: with four more the kernel's storage element would be 192 bytes instead of 128, which costs a connect
/// more than all else here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// [`BackendId::to_bits`] of the backend that the flow is counted at in `ACTIVE` while it is, else 0. Exchanged
    /// atomically: whoever takes the id out subtracts the flow, so it is subtracted once.
    pub backend: u64,
    /// Coarse monotonic nanoseconds at the connect.
    pub start_ns: u64,
    /// The IPv4 VIP that the application connected to, or that stands for its IPv6 VIP.
    pub vip: Be32,
    /// The port the application connected to.
    pub vip_port: Be16,
    /// IANA protocol number.
    pub proto: u8,
    /// [`RECORD_VERSION`] of the program that wrote the record.
    pub version: u8,
    /// Where the flow really goes; `getpeername` answers the VIP only while this is the socket's peer. The last
    /// four bytes of an IPv6 address.
    pub address: Be32,
    /// Its port.
    pub port: Be16,
    /// 1 once the flow was counted as failed: a connect that times out is refused at its end as well.
    pub failed: u16,
    /// [`crate::Service::table`] of the service.
    pub table: u32,
    /// Index in `BACKENDS` of the address in use; 0 in version 1, where it is the one in `backend`.
    pub target: u32,
    /// A [`Form`] as its integer.
    pub form: u32,
    /// The first twelve bytes of the peer's address, as in [`Backend::address`](crate::Backend::address). Earlier versions
    /// left them zero where `form` is [`Form::V4`].
    pub high: [u32; 3],
}

const _: () = assert!(size_of::<Record>() == 56);

/// How an application wrote the VIP that it connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Form {
    /// The address of an IPv4 socket.
    V4 = 0,
    /// `::ffff:` and the IPv4 VIP, on an IPv6 socket.
    Mapped = 1,
    /// The IPv6 VIP, whose host part is that of the IPv4 one.
    V6 = 2,
}

/// Value of `ACTIVE`, the size of a cache line: every connect on every CPU writes one of these.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// Flows that were given this backend, by whichever of its addresses, and are not closed. Changed by atomic
    /// adds only.
    pub flows: u64,
    /// Spare, zero.
    pub spare: [u64; 7],
}

const _: () = assert!(size_of::<Active>() == 64);

/// What the kernel tells the agent through the `EVENTS` ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// [`BackendId::to_bits`] of the address concerned.
    pub backend: u64,
    /// An [`EventKind`] as its integer.
    pub kind: u32,
    /// [`crate::Service::table`] of the service concerned.
    pub table: u32,
}

const _: () = assert!(size_of::<Event>() == 16);

/// Why a backend became suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// The connect ended in SYN_SENT without the application closing the socket.
    Refused = 1,
    /// The SYN was sent a third time.
    Unanswered = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Agents of all versions read what earlier ones wrote.
    #[test]
    fn an_id_is_one_integer_with_the_index_in_its_lower_half() {
        let id = BackendId {
            index: 0x8000_0001,
            generation: 0x7fff_fff3,
        };
        assert_eq!(id.to_bits(), 0x7fff_fff3_8000_0001);
        assert_eq!(BackendId::from_bits(id.to_bits()), id);
        assert_eq!(BackendId::from_bits(0), BackendId::default());
    }
}
