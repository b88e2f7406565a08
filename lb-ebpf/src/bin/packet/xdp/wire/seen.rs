//! What is known of a packet.

use lb_common::{Be16, PROTO_TCP, PROTO_UDP, packet::Hop};
use lb_ebpf::packet::{ETHERNET, Fragment, PLAIN_NETWORK, Places, Plain};

use super::Wire;
use crate::{
    family::{Family, V6},
    maps::KNOWN,
};

/// What the heads of a packet say.
pub(in crate::xdp) struct Seen<F: Family> {
    pub(in crate::xdp) ends: Both<F>,
    pub(in crate::xdp) proto: u8,
    /// Flags of TCP.
    pub(in crate::xdp) flags: u8,
    /// Time to live.
    pub(in crate::xdp) hops: u8,
    pub(in crate::xdp) fragment: Fragment,
    /// Whether there are options or extension headers.
    pub(in crate::xdp) options: bool,
    /// Length of the packet by its head.
    pub(in crate::xdp) total: u32,
    /// Where the head of IP begins.
    pub(in crate::xdp) network: usize,
    /// Where what is inside begins.
    pub(in crate::xdp) transport: usize,
}

/// Both ends of a packet, as the pure functions have them.
#[repr(C)]
pub(in crate::xdp) struct Both<F: Family> {
    pub(in crate::xdp) source: F::Address,
    pub(in crate::xdp) destination: F::Address,
    pub(in crate::xdp) source_port: Be16,
    pub(in crate::xdp) destination_port: Be16,
}

impl<F: Family> Clone for Both<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Family> Copy for Both<F> {}

impl<F: Wire> Seen<F> {
    /// A packet as nearly all are.
    #[inline(always)]
    pub(in crate::xdp) fn plain(plain: &Plain<F::Address>) -> Self {
        Self {
            ends: Both {
                source: plain.source,
                destination: plain.destination,
                source_port: plain.source_port,
                destination_port: plain.destination_port,
            },
            proto: plain.proto,
            flags: plain.flags,
            hops: plain.hops,
            fragment: Fragment::Whole,
            options: false,
            total: plain.total,
            network: PLAIN_NETWORK,
            transport: PLAIN_NETWORK + F::HEAD,
        }
    }

    /// Nothing yet of a packet whose head of IP begins at `network`.
    #[inline(always)]
    pub(in crate::xdp) fn new(network: usize) -> Self {
        Self {
            ends: Both {
                source: F::NOBODY,
                destination: F::NOBODY,
                source_port: Be16::from_raw(0),
                destination_port: Be16::from_raw(0),
            },
            proto: 0,
            flags: 0,
            hops: 0,
            fragment: Fragment::Whole,
            options: false,
            total: 0,
            network,
            transport: 0,
        }
    }

    /// Whether its protocol has ports.
    #[inline(always)]
    pub(in crate::xdp) fn has_ports(&self) -> bool {
        self.proto == PROTO_TCP || self.proto == PROTO_UDP
    }

    /// Whether it came in a VLAN.
    #[inline(always)]
    pub(in crate::xdp) fn is_tagged(&self) -> bool {
        self.network != ETHERNET
    }

    /// Where its head begins, for the verifier, too.
    #[inline(always)]
    pub(in crate::xdp) fn network(&self) -> usize {
        self.network & 31
    }

    /// Where what is inside begins, for the verifier, too.
    #[inline(always)]
    pub(in crate::xdp) fn transport(&self) -> usize {
        self.transport & 1023
    }

    #[inline(always)]
    pub(in crate::xdp) fn places(&self) -> Places {
        Places {
            network: self.network(),
            transport: self.transport(),
            proto: self.proto,
        }
    }
}

/// An error about a packet, as the pure functions have it.
#[repr(C)]
pub(in crate::xdp) struct Told<F: Family> {
    /// Who tells.
    pub(in crate::xdp) source: F::Address,
    /// Who is told.
    pub(in crate::xdp) destination: F::Address,
    /// The ends of the packet that is quoted.
    pub(in crate::xdp) quoted: Both<F>,
}

/// What is known of a packet that is not as nearly all are, in a value of `KNOWN`.
pub(in crate::xdp) struct Known<F: Family> {
    pub(in crate::xdp) seen: Seen<F>,
    /// The packet that is quoted, and where.
    pub(in crate::xdp) quoted: Both<F>,
    pub(in crate::xdp) places: Places,
    /// The error, as it came and as it is to be.
    pub(in crate::xdp) old: Told<F>,
    pub(in crate::xdp) new: Told<F>,
    /// How frames get to whom nothing is written down of.
    pub(in crate::xdp) hop: Hop,
}

const _: () = assert!(size_of::<Known<V6>>() <= 384 && align_of::<Known<V6>>() <= 8);

impl<F: Family> Known<F> {
    /// That of this CPU. To be asked for once for each packet.
    #[inline(always)]
    pub(in crate::xdp) fn here() -> Option<&'static mut Self>
    where
        F: 'static,
    {
        let known = KNOWN.get_ptr_mut(0)?;
        // SAFETY: it has room for it and is as aligned; nobody else on this CPU has it, and what is read was written before.
        Some(unsafe { &mut *known.cast() })
    }
}
