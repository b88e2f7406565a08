//! What the maps should hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use lb_common::packet::{EndpointKey, Settings, endpoint_flag, scope};

/// All that the programs should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The virtual endpoints.
    pub endpoints: BTreeMap<EndpointKey, Wanted>,
    /// Where the members of endpoints are. It is a fact of the backend and not of who names it: the maps have it once.
    pub places: BTreeMap<SocketAddr, Place>,
    /// Backends that no endpoint gives new flows, and whose flows go on: those that drain. Who is neither here nor a member
    /// is gone, and so are the flows to it.
    pub kept: BTreeSet<SocketAddr>,
    /// The addresses that are VIPs.
    pub vips: BTreeSet<Ipv4Addr>,
    /// Hosts that may send packets in a tunnel.
    pub hosts: BTreeSet<IpAddr>,
    /// What may change while programs run. Whether anything is traced follows from the endpoints.
    pub settings: Settings,
}

/// One virtual endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who serves it. The same list may stand at the endpoints of both families and both scopes: each takes those of its own.
    pub members: Arc<[Member]>,
    /// Whether packets for backends of other hosts go through a tunnel.
    pub tunnel: bool,
    /// Whether every packet is sampled.
    pub trace: bool,
}

impl Wanted {
    /// Its flags in the maps, but for the one that says that it is empty.
    pub(crate) fn flags(&self) -> u32 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(self.tunnel, endpoint_flag::TUNNEL) | flag(self.trace, endpoint_flag::TRACE)
    }
}

/// A backend of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it listens; also who it is, on every host.
    pub address: SocketAddr,
    /// Its share of new flows beside the others; 0 gives it none and keeps those that it has.
    pub weight: u16,
}

/// Where a backend is. The default is somewhere else, on a host that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The address of its host, where the end of a tunnel is.
    pub host: Option<IpAddr>,
    /// Whether that is this host.
    pub local: bool,
}

impl Desired {
    /// Where a backend is.
    pub fn place(&self, backend: SocketAddr) -> Place {
        self.places.get(&backend).copied().unwrap_or_default()
    }

    /// Whether packets of `key` can be sent to a backend.
    pub fn serves(&self, key: &EndpointKey, backend: SocketAddr) -> bool {
        let v6 = key.scope & scope::V6 != 0;
        backend.is_ipv6() == v6 && (key.scope & scope::LOCAL == 0 || self.place(backend).local)
    }
}
