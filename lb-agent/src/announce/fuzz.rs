//! The door of the fuzz targets to what neighbours and other hosts write.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    elect,
    frame::{self, ARP_BYTES, NDP_BYTES},
};

/// Ours.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The address that a frame asks for by ARP, and what it would be answered; not with ours as the one who asks.
pub(crate) fn arp(frame: &[u8]) -> Option<(Ipv4Addr, [u8; ARP_BYTES])> {
    let question = frame::arp_question(frame)?;
    Some((question.target, frame::arp_answer(&question, MAC)))
}

/// The same by neighbour discovery.
pub(crate) fn ndp(frame: &[u8]) -> Option<(Ipv6Addr, [u8; NDP_BYTES])> {
    let question = frame::ndp_question(frame)?;
    Some((question.target, frame::ndp_answer(&question, MAC)))
}

/// Who wrote the value of the lock, as people read it.
pub(crate) fn owner(value: &[u8]) -> String {
    elect::owner(value)
}
