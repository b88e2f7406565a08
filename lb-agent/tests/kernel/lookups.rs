//! Small random worlds of services, what a lookup in them must answer, in plain Rust, and what the kernel answers.
//! The model test and the test of the order of steps share it.

mod servers;
mod services;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use fastrand::Rng;
use lb_agent::desired::Endpoint;
use lb_common::{
    ANY_PORT, Be16, Be32, Client, FIRST_OWN_VIEW, HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW,
    PROTO_TCP, PROTO_UDP, Refusal, ServiceKey, flag,
};

pub(super) use self::{
    servers::{Answer, Flow, Servers},
    services::{BALANCES, add_service, share},
};

/// The seed of this run, which `LB_TEST_SEED` repeats. The test tells it when it fails.
pub(super) fn seeded() -> Rng {
    let given = std::env::var("LB_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("repeat this with LB_TEST_SEED={seed}");
    Rng::with_seed(seed)
}

/// The last numbers of the VIPs in these worlds.
pub(super) const VIPS: [u8; 3] = [7, 8, 9];

/// The ports that clients ask for; services name the first two.
const PORTS: [u16; 3] = [80, 81, 82];

/// Where clients stand; the first is not known.
pub(super) const PLACES: [Option<Client>; 4] = [
    None,
    Some(Client {
        view: FIRST_OWN_VIEW + 1,
        otherwise: OUTSIDE_VIEW,
    }),
    Some(Client {
        view: FIRST_OWN_VIEW + 2,
        otherwise: OUTSIDE_VIEW,
    }),
    Some(Client {
        view: FIRST_OWN_VIEW + 3,
        otherwise: INTERNAL_VIEW,
    }),
];

fn vip4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 7, last)
}

fn vip6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 0x0700 | u16::from(last))
}

/// One question to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) vip: u8,
    pub(super) port: u16,
    pub(super) way: Way,
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Tcp4,
    Tcp6,
    /// An IPv6 socket that is given the IPv4 VIP.
    TcpMapped,
    UdpConnected4,
    UdpConnected6,
    UdpSent4,
    UdpSent6,
    UdpSentMapped,
}

impl Way {
    pub(super) const ALL: [Self; 8] = [
        Self::Tcp4,
        Self::Tcp6,
        Self::TcpMapped,
        Self::UdpConnected4,
        Self::UdpConnected6,
        Self::UdpSent4,
        Self::UdpSent6,
        Self::UdpSentMapped,
    ];

    pub(super) fn proto(self) -> u8 {
        match self {
            Self::Tcp4 | Self::Tcp6 | Self::TcpMapped => PROTO_TCP,
            _ => PROTO_UDP,
        }
    }

    /// Whether it is given what IPv6 sockets reach. A datagram to a mapped address is an IPv4 one for the kernel.
    fn reaches_v6(self) -> bool {
        matches!(
            self,
            Self::Tcp6 | Self::TcpMapped | Self::UdpConnected6 | Self::UdpSent6
        )
    }

    pub(super) fn sends_only(self) -> bool {
        matches!(self, Self::UdpSent4 | Self::UdpSent6 | Self::UdpSentMapped)
    }

    /// Whether the kernel lets it reach this backend, if that is chosen: no datagram to an IPv6 address becomes an IPv4
    /// one.
    pub(super) fn reaches(self, backend: &SocketAddr) -> bool {
        self != Self::UdpSent6 || backend.is_ipv6()
    }

    /// The VIP as a client names it that asks so.
    pub(super) fn address(self, vip: u8) -> IpAddr {
        match self {
            Self::Tcp4 | Self::UdpConnected4 | Self::UdpSent4 => vip4(vip).into(),
            Self::Tcp6 | Self::UdpConnected6 | Self::UdpSent6 => vip6(vip).into(),
            Self::TcpMapped | Self::UdpSentMapped => vip4(vip).to_ipv6_mapped().into(),
        }
    }
}

impl Ask {
    pub(super) fn random(rng: &mut Rng) -> Self {
        Self {
            vip: *rng.choice(&VIPS).unwrap(),
            port: *rng.choice(&PORTS).unwrap(),
            way: *rng.choice(&Way::ALL).unwrap(),
        }
    }

    /// Every way to ask for every VIP, on a port that is named and on one that is not.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let ways = |vip| Way::ALL.map(|way| (vip, way));
        VIPS.into_iter()
            .flat_map(ways)
            .flat_map(|(vip, way)| [80, 82].map(|port| Self { vip, port, way }))
    }

    /// The element that decides for a client at `place`.
    pub(super) fn looked_up(
        self,
        services: &BTreeMap<ServiceKey, Endpoint>,
        place: Option<Client>,
    ) -> Option<ServiceKey> {
        let vip = Be32::from_host(vip4(self.vip).into());
        let on = |port| ServiceKey::new(vip, port, self.way.proto(), HOST_VIEW);
        let host = [on(ANY_PORT), on(Be16::from_host(self.port))];
        let host = host.into_iter().find(|key| services.contains_key(key))?;
        let views = place.map(|it| [it.view, it.otherwise]);
        let own = views.into_iter().flatten().map(|view| host.seen_from(view));
        let key = own
            .into_iter()
            .find(|key| services.contains_key(key))
            .unwrap_or(host);
        let six = key.for_v6();
        let reaches_six = self.way.reaches_v6() && services.contains_key(&six);
        Some(if reaches_six { six } else { key })
    }
}

/// Why an element without a slot refuses.
pub(super) fn refusal(endpoint: &Endpoint) -> Refusal {
    if endpoint.flags & flag::DENIED != 0 {
        Refusal::Denied
    } else if endpoint.flags & flag::NO_PATH != 0 {
        Refusal::NoPath
    } else {
        Refusal::NoBackend
    }
}
