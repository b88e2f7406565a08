//! Clients of other hosts: their packets come by a network card, and the backends are anywhere.
//!
//! XDP on a veth needs whole checksums: hosts whose packets pass there do not leave them to the device. Where tc alone does the work,
//! offloads are on.

use std::net::SocketAddr;

use lb_packet::{Member, Role, XdpMode};
use lb_testkit::Netns;

use crate::{
    agent::member,
    load::Server,
    net::{Family, Lan, V4, V6, ip, vip, without_offloads},
};

pub(crate) const CARD: Role = Role::Card {
    mode: XdpMode::Auto,
};
pub(crate) const TC_ALONE: Role = Role::Card { mode: XdpMode::Off };

/// The VIP, and the backends' numbers in their network.
pub(crate) const VIP: u8 = 10;

pub(crate) fn to(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family, VIP), 80)
}

/// Backends of both families at these hosts of a network.
pub(crate) fn members(network: u8, hosts: &[(u8, u16)]) -> Vec<Member> {
    let of = |family| {
        hosts.iter().map(move |&(host, weight)| Member {
            weight,
            ..member(ip(family, network, host))
        })
    };
    of(V4).chain(of(V6)).collect()
}

pub(crate) fn servers(backends: &[Netns], family: Family, network: u8) -> Vec<Server> {
    let numbered = backends.iter().zip(10..);
    numbered
        .map(|(backend, number)| {
            let address = SocketAddr::new(ip(family, network, number), 8080);
            Server::start(backend, address, number)
        })
        .collect()
}

/// A leaf of a network, with whole checksums.
pub(crate) fn leaf(lan: &Lan, label: &str, number: u8) -> Netns {
    let host = Netns::new(label).unwrap();
    lan.plug(&host, "eth0", number);
    without_offloads(&host, "eth0");
    host
}
