//! What becomes of the bytes of a packet: reading, rewriting and answering it.
//!
//! Pure functions over [`Bytes`], which the programs supply from the memory of a packet and the tests from a slice.
//! Nothing here knows a map: which backend a flow has is the caller's. Integers of addresses, ports and checksums are
//! raw and in network order, as they lie in a packet; all else is a plain number. What a packet cannot be is an `Err`
//! with its [`Fate`](lb_common::packet::Fate).

mod bytes;
mod checksum;
mod hash;
mod parse;
mod ports;
mod rewrite;
#[cfg(test)]
mod samples;
mod track;

pub use bytes::{Bytes, raw16, raw32, raw128, set16, set32, set128};
pub use checksum::{Delta, fold, sum};
pub use hash::{FlowHash, flow_hash4, flow_hash6};
pub use parse::{
    ETHERNET, Fragment, IPV4, IPV4_HEAD, IPV6, IPV6_HEAD, Ipv4, Ipv6, Link, PROTO_ICMP,
    PROTO_ICMP6, PROTO_IPV4, PROTO_IPV6, Plain4, Transport, destination4, ipv4, ipv6, link, plain4,
    tcp, tcp_flag, transport,
};
pub use ports::{PROBES, Ports, answers, belongs, mapped};
pub use rewrite::{
    Ends4, Ends6, Places, rewrite4, rewrite6, set_link_addresses, swap_link_addresses,
};
pub use track::{Known, Missed, known, lasts_seconds, missed, seen_of};
