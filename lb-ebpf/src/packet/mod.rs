//! What becomes of the bytes of a packet: reading, rewriting and answering it.
//!
//! Pure functions over [`Bytes`], which the programs supply from the memory of a packet and the tests from a slice.
//! Nothing here knows a map: which backend a flow has is the caller's. Integers of addresses, ports and checksums are
//! raw and in network order, as they lie in a packet; all else is a plain number. What a packet cannot be is an `Err`
//! with its [`Fate`](lb_common::packet::Fate).

mod bytes;
mod checksum;
mod hash;
mod heads;
#[cfg(test)]
mod hot;
mod icmp;
mod mss;
mod parse;
mod plain;
mod ports;
mod reset;
mod rewrite;
#[cfg(test)]
mod samples;
mod too_big;
mod track;
mod tunnel;

pub use bytes::{Bytes, opaque, raw16, raw32, raw128, set16, set32, set128};
pub use checksum::{Delta, fold, sum};
pub use hash::{FlowHash, flow_hash4, flow_hash6};
pub use heads::{Head4, Head6, move_link};
pub use icmp::{
    ICMP_HEAD, Message, Quoted4, Quoted6, Told4, Told6, TunnelTooBig, answer_echo4, answer_echo6,
    is_solicitation, message4, message6, quoted4, quoted6, rewrite_error4, rewrite_error6,
    tunnel_too_big4, tunnel_too_big6,
};
#[cfg(any(test, fuzzing))]
pub(crate) use mss::lower;
pub use mss::{GreatestSegment, greatest_segment};
pub use parse::{
    ETHERNET, Fragment, IPV4, IPV4_HEAD, IPV6, IPV6_HEAD, Ipv4, Ipv6, Link, PROTO_ICMP,
    PROTO_ICMP6, PROTO_IPV4, PROTO_IPV6, Transport, ipv4, ipv6, is_tag, link, tcp, tcp_flag,
    transport,
};
pub use plain::{
    PLAIN_NETWORK, PLAIN_TRANSPORT4, PLAIN_TRANSPORT6, Plain, destination4, plain4, plain6,
};
pub use ports::{PROBES, Ports, mapped};
pub use reset::{Reset, TCP_HEAD};
pub use rewrite::{
    Ends4, Ends6, Places, link_addresses, rewrite4, rewrite6, set_link_addresses,
    swap_link_addresses,
};
#[cfg(test)]
pub(crate) use samples::seeds;
pub use too_big::{QUOTED, ROOM4, ROOM6, tell_too_big4, tell_too_big6};
pub use track::{Known, Missed, known, missed, seen_of, seen_with};
pub use tunnel::{enclose4, enclose6, open4, open6};
