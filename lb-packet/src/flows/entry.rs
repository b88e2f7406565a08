//! Keys and values as they lie in the maps of flows, for walks that are told bytes.

use std::{mem::offset_of, net::IpAddr};

use aya::Pod;
use lb_common::{
    Be16, Be32, FlowHash, flow_hash4, flow_hash6,
    packet::{Flow, FlowKey4, FlowKey6, Hop, Reply, ReplyKey4, ReplyKey6, packet_map as map},
};

use crate::address::{address, address4, address6, be32, words, words6};

/// A flow as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ends {
    pub(crate) client: IpAddr,
    pub(crate) client_port: u16,
    pub(crate) vip: Be32,
    pub(crate) vip_port: u16,
    pub(crate) proto: u8,
}

/// The same flow as its backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer {
    pub(crate) backend: IpAddr,
    pub(crate) backend_port: u16,
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) proto: u8,
}

/// IPv4 or IPv6.
pub(crate) trait Family {
    type FlowKey: Pod;
    type ReplyKey: Pod;
    const V6: bool;
    const FLOWS: &'static str;
    const REPLIES: &'static str;

    fn ends(key: &[u8]) -> Ends;
    fn peer(key: &[u8]) -> Peer;
    /// `None` if the addresses are of the other family.
    fn flow_key(ends: &Ends) -> Option<Self::FlowKey>;
    fn reply_key(peer: &Peer) -> Option<Self::ReplyKey>;
}

pub(crate) enum V4 {}
pub(crate) enum V6 {}

impl Family for V4 {
    type FlowKey = FlowKey4;
    type ReplyKey = ReplyKey4;
    const V6: bool = false;
    const FLOWS: &'static str = map::FLOWS4;
    const REPLIES: &'static str = map::REPLIES4;

    fn ends(key: &[u8]) -> Ends {
        Ends {
            client: address4(Be32::from_raw(u32_at(key, offset_of!(FlowKey4, client)))).into(),
            client_port: port_at(key, offset_of!(FlowKey4, ports)),
            vip: Be32::from_raw(u32_at(key, offset_of!(FlowKey4, vip))),
            vip_port: port_at(key, offset_of!(FlowKey4, ports) + 2),
            proto: u8_at(key, offset_of!(FlowKey4, proto)),
        }
    }

    fn peer(key: &[u8]) -> Peer {
        Peer {
            backend: address4(Be32::from_raw(u32_at(key, offset_of!(ReplyKey4, backend)))).into(),
            backend_port: port_at(key, offset_of!(ReplyKey4, ports)),
            local: address4(Be32::from_raw(u32_at(key, offset_of!(ReplyKey4, local)))).into(),
            local_port: port_at(key, offset_of!(ReplyKey4, ports) + 2),
            proto: u8_at(key, offset_of!(ReplyKey4, proto)),
        }
    }

    fn flow_key(ends: &Ends) -> Option<FlowKey4> {
        let IpAddr::V4(client) = ends.client else {
            return None;
        };
        Some(FlowKey4::new(
            be32(client),
            Be16::from_host(ends.client_port),
            ends.vip,
            Be16::from_host(ends.vip_port),
            ends.proto,
        ))
    }

    fn reply_key(peer: &Peer) -> Option<ReplyKey4> {
        let (IpAddr::V4(backend), IpAddr::V4(local)) = (peer.backend, peer.local) else {
            return None;
        };
        Some(ReplyKey4::new(
            be32(backend),
            Be16::from_host(peer.backend_port),
            be32(local),
            Be16::from_host(peer.local_port),
            peer.proto,
        ))
    }
}

impl Family for V6 {
    type FlowKey = FlowKey6;
    type ReplyKey = ReplyKey6;
    const V6: bool = true;
    const FLOWS: &'static str = map::FLOWS6;
    const REPLIES: &'static str = map::REPLIES6;

    fn ends(key: &[u8]) -> Ends {
        Ends {
            client: address6(words_at(key, offset_of!(FlowKey6, client))).into(),
            client_port: port_at(key, offset_of!(FlowKey6, ports)),
            vip: Be32::from_raw(u32_at(key, offset_of!(FlowKey6, vip))),
            vip_port: port_at(key, offset_of!(FlowKey6, ports) + 2),
            proto: u8_at(key, offset_of!(FlowKey6, proto)),
        }
    }

    fn peer(key: &[u8]) -> Peer {
        Peer {
            backend: address6(words_at(key, offset_of!(ReplyKey6, backend))).into(),
            backend_port: port_at(key, offset_of!(ReplyKey6, ports)),
            local: address6(words_at(key, offset_of!(ReplyKey6, local))).into(),
            local_port: port_at(key, offset_of!(ReplyKey6, ports) + 2),
            proto: u8_at(key, offset_of!(ReplyKey6, proto)),
        }
    }

    fn flow_key(ends: &Ends) -> Option<FlowKey6> {
        let IpAddr::V6(client) = ends.client else {
            return None;
        };
        Some(FlowKey6::new(
            words6(client),
            Be16::from_host(ends.client_port),
            ends.vip,
            Be16::from_host(ends.vip_port),
            ends.proto,
        ))
    }

    fn reply_key(peer: &Peer) -> Option<ReplyKey6> {
        let (IpAddr::V6(backend), IpAddr::V6(local)) = (peer.backend, peer.local) else {
            return None;
        };
        Some(ReplyKey6::new(
            words6(backend),
            Be16::from_host(peer.backend_port),
            words6(local),
            Be16::from_host(peer.local_port),
            peer.proto,
        ))
    }
}

impl Ends {
    /// Whose flow the answers are that `peer` sends.
    pub(crate) fn of(reply: &Reply, peer: &Peer, v6: bool) -> Self {
        let client = if v6 {
            address6(reply.client).into()
        } else {
            address(reply.client)
        };
        Self {
            client,
            client_port: reply.client_port.host(),
            vip: reply.vip,
            vip_port: reply.vip_port.host(),
            proto: peer.proto,
        }
    }

    /// What the programs draw the flow's slot and ports from.
    pub(crate) fn hash(&self) -> FlowHash {
        let (client, vip) = (
            Be16::from_host(self.client_port),
            Be16::from_host(self.vip_port),
        );
        match self.client {
            IpAddr::V4(address) => flow_hash4(be32(address), client, self.vip, vip, self.proto),
            IpAddr::V6(_) => flow_hash6(words(self.client), client, self.vip, vip, self.proto),
        }
    }
}

/// A value of `FLOWS4` or `FLOWS6`.
pub(crate) fn flow(value: &[u8]) -> Flow {
    Flow {
        backend: u32_at(value, offset_of!(Flow, backend)),
        generation: u32_at(value, offset_of!(Flow, generation)),
        service: u32_at(value, offset_of!(Flow, service)),
        last_seconds: u32_at(value, offset_of!(Flow, last_seconds)),
        local_port: Be16::from_host(port_at(value, offset_of!(Flow, local_port))),
        way: u8_at(value, offset_of!(Flow, way)),
        seen: u8_at(value, offset_of!(Flow, seen)),
        start_seconds: u32_at(value, offset_of!(Flow, start_seconds)),
    }
}

/// A value of `REPLIES4` or `REPLIES6`, without its way to the client.
pub(crate) fn reply(value: &[u8]) -> Reply {
    Reply {
        client: words_at(value, offset_of!(Reply, client)),
        vip: Be32::from_raw(u32_at(value, offset_of!(Reply, vip))),
        vip_port: Be16::from_host(port_at(value, offset_of!(Reply, vip_port))),
        client_port: Be16::from_host(port_at(value, offset_of!(Reply, client_port))),
        backend: u32_at(value, offset_of!(Reply, backend)),
        generation: u32_at(value, offset_of!(Reply, generation)),
        service: u32_at(value, offset_of!(Reply, service)),
        last_seconds: u32_at(value, offset_of!(Reply, last_seconds)),
        way: u8_at(value, offset_of!(Reply, way)),
        seen: u8_at(value, offset_of!(Reply, seen)),
        clamp: u8_at(value, offset_of!(Reply, clamp)),
        spare: 0,
        hop: Hop::default(),
    }
}

/// `N` bytes from `at` on; zeroes where there are none, which the sizes of the maps rule out.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

fn u8_at(bytes: &[u8], at: usize) -> u8 {
    let [byte] = bytes_at(bytes, at);
    byte
}

fn port_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes_at(bytes, at))
}

fn words_at(bytes: &[u8], at: usize) -> [u32; 4] {
    std::array::from_fn(|word| u32_at(bytes, at + 4 * word))
}
