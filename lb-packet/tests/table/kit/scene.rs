//! Where the rows take place: a host with a card to a network, a second card, and a client's device; and what it serves.
//!
//! Every IPv4 address has a twin of IPv6 ([`Family::ip`]), so that a row can be said once for both.
//!
//! | address | is |
//! |---|---|
//! | 192.0.2.1 | the host, at `card`, and the source of full NAT |
//! | 192.0.2.254, .40, .30 | neighbours there: the gateway, a router to backends, a host with an agent |
//! | 192.0.2.100 | a client on this network; 203.0.113.7 is one beyond the gateway |
//! | 10.1.0.0/16 | backends by the router at `card`; 10.5.0.0/16 the same, through a link that takes 1000 bytes |
//! | 10.2.0.0/16 | backends by 192.0.3.40 at `card2` |
//! | 10.3.0.0/16 | backends by 192.0.2.41, whom nobody has found |
//! | 10.4.0.0/16 | cannot be reached |
//! | 10.6.0.0/16 | backends by 192.0.2.42, whose address on the link is none |
//! | 10.77.0.2, .20 | the client at the device `client`, and a backend of this host |

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    Be16, Be32,
    packet::{EndpointKey, Settings, scope},
};
use lb_packet::{Config, Desired, Limits, Member, Place, Wanted};
use lb_testkit::Netns;

use super::frame::{Frame, Mac};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) use Family::{V4, V6};

impl Family {
    /// The address itself, or its twin.
    pub(crate) fn ip(self, address: &str) -> IpAddr {
        let address: Ipv4Addr = address.parse().unwrap();
        match self {
            V4 => address.into(),
            V6 => twin(address).into(),
        }
    }

    /// The VIP number `number`.
    pub(crate) fn vip(self, number: u8) -> IpAddr {
        match self {
            V4 => vip4(number).into(),
            V6 => Ipv6Addr::new(0xfd00, 0xc612, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// The host's address.
    pub(crate) fn own(self) -> IpAddr {
        self.ip("192.0.2.1")
    }

    /// A client beyond the gateway.
    pub(crate) fn client(self) -> IpAddr {
        self.ip("203.0.113.7")
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            V4 => "IPv4",
            V6 => "IPv6",
        }
    }
}

fn twin(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    Ipv6Addr::new(
        0x2001,
        0xdb8,
        u16::from_be_bytes([a, b]),
        c.into(),
        0,
        0,
        0,
        d.into(),
    )
}

pub(crate) fn vip4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, number)
}

/// The addresses of the devices: of the host, and of neighbours by their last number.
pub(crate) const CARD: Mac = [2, 0, 0, 0, 1, 1];
pub(crate) const CARD2: Mac = [2, 0, 0, 0, 1, 2];
pub(crate) const CLIENT_DEVICE: Mac = [2, 0, 0, 0, 1, 3];
pub(crate) const CLIENT: Mac = [2, 0, 0, 0, 0x77, 2];

pub(crate) const fn neighbour(last: u8) -> Mac {
    [2, 0, 0, 0, 2, last]
}

/// The ports of full NAT.
pub(crate) const PORTS: std::ops::RangeInclusive<u16> = 40_000..=40_999;

/// What there is room for.
pub(crate) const LIMITS: Limits = Limits {
    services: 100,
    backends: 100,
    flows: 2000,
};

/// Numbers of VIPs, each with TCP port 80 and UDP port 53, and the backends that serve it at port 8080.
pub(crate) mod vip {
    /// A backend elsewhere, by the card: 10.1.0.10.
    pub(crate) const FULL: u8 = 10;
    /// A backend of the host 192.0.2.30, which has an agent: 10.1.0.11.
    pub(crate) const TUNNEL: u8 = 11;
    /// A backend of this host: 10.77.0.20.
    pub(crate) const LOCAL: u8 = 12;
    /// Nobody.
    pub(crate) const EMPTY: u8 = 13;
    /// Three backends elsewhere: 10.1.0.31 to .33.
    pub(crate) const THREE: u8 = 14;
    /// A backend elsewhere, on every port: 10.1.0.15.
    pub(crate) const ANY_PORT: u8 = 15;
    /// The client at the device `client`: 10.77.0.2.
    pub(crate) const SELF: u8 = 16;
    /// A backend by the second card: 10.2.0.17.
    pub(crate) const SECOND_CARD: u8 = 17;
    /// A backend whose router has not been found: 10.3.0.18.
    pub(crate) const NO_NEIGHBOUR: u8 = 18;
    /// A backend to which no way leads: 10.4.0.19.
    pub(crate) const NO_ROUTE: u8 = 19;
    /// A backend behind a narrow link: 10.5.0.20.
    pub(crate) const NARROW: u8 = 20;
    /// The same backend as [`FULL`] and as [`LOCAL`]: other VIPs of theirs.
    pub(crate) const FULL_TOO: u8 = 21;
    pub(crate) const LOCAL_TOO: u8 = 22;
    /// A backend whose router has an address of zeroes: 10.6.0.23.
    pub(crate) const NOBODYS_ADDRESS: u8 = 23;
    /// Nobody has it, and it is no VIP.
    pub(crate) const NONE: u8 = 99;
}

/// What is served.
pub(crate) fn desired() -> Desired {
    let mut desired = Desired {
        settings: Settings {
            sample: 0,
            flood: 0,
            udp_seconds: 30,
            ..Settings::default()
        },
        ..Desired::default()
    };
    for (number, addresses) in [
        (vip::FULL, &["10.1.0.10"][..]),
        (vip::FULL_TOO, &["10.1.0.10"]),
        (vip::TUNNEL, &["10.1.0.11"]),
        (vip::LOCAL, &["10.77.0.20"]),
        (vip::LOCAL_TOO, &["10.77.0.20"]),
        (vip::EMPTY, &[]),
        (vip::THREE, &["10.1.0.31", "10.1.0.32", "10.1.0.33"]),
        (vip::ANY_PORT, &["10.1.0.15"]),
        (vip::SELF, &["10.77.0.2"]),
        (vip::SECOND_CARD, &["10.2.0.17"]),
        (vip::NO_NEIGHBOUR, &["10.3.0.18"]),
        (vip::NO_ROUTE, &["10.4.0.19"]),
        (vip::NARROW, &["10.5.0.20"]),
        (vip::NOBODYS_ADDRESS, &["10.6.0.23"]),
    ] {
        serve(&mut desired, number, addresses);
    }
    for family in [V4, V6] {
        desired.hosts.insert(family.ip("192.0.2.30"));
    }
    desired
}

/// Lets a VIP be served by backends, in both families and for all who ask.
pub(crate) fn serve(desired: &mut Desired, number: u8, addresses: &[&str]) {
    let members: Arc<[Member]> = [V4, V6]
        .into_iter()
        .flat_map(|family| addresses.iter().map(move |address| member(family, address)))
        .collect();
    for family in [V4, V6] {
        for address in addresses {
            let backend = member(family, address).address;
            let place = Place {
                host: (number == vip::TUNNEL).then(|| family.ip("192.0.2.30")),
                local: address.starts_with("10.77."),
            };
            desired.places.insert(backend, place);
        }
    }
    for (proto, port) in [(6, 80), (17, 53)] {
        for scope in [0, scope::V6, scope::LOCAL, scope::V6 | scope::LOCAL] {
            let local = members.iter().any(|it| desired.place(it.address).local);
            if scope & scope::LOCAL != 0 && !local {
                continue;
            }
            let port = if number == vip::ANY_PORT { 0 } else { port };
            let wanted = Wanted {
                members: members.clone(),
                tunnel: number == vip::TUNNEL,
                trace: false,
            };
            desired
                .endpoints
                .insert(key(number, port, proto, scope), wanted);
        }
    }
    desired.vips.insert(vip4(number));
}

/// A neighbour that knows a VIP's link address asks whether that still holds.
pub(crate) fn solicitation(family: Family, number: u8) -> Frame {
    let vip = family.vip(number);
    let IpAddr::V6(target) = vip else {
        panic!("neighbour discovery is of IPv6")
    };
    let mut rest = target.octets().to_vec();
    rest.extend([1, 1]);
    rest.extend(neighbour(254));
    Frame::icmp(family.client(), vip, 135, 0, 0, rest).hops(255)
}

/// A backend as the scene has it.
pub(crate) fn member(family: Family, address: &str) -> Member {
    Member {
        address: SocketAddr::new(family.ip(address), 8080),
        weight: 1,
    }
}

/// The key of an endpoint.
pub(crate) fn key(number: u8, port: u16, proto: u8, scope: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(vip4(number).into()),
        port: Be16::from_host(port),
        proto,
        scope,
    }
}

/// For what the programs are loaded.
pub(crate) fn config(bpffs: &std::path::Path) -> Config {
    Config {
        bpffs: bpffs.to_owned(),
        pool: "198.18.0.0/16".parse().unwrap(),
        pool6: Some("fd00:c612::/112".parse().unwrap()),
        own: Ipv4Addr::new(198, 18, 0, 1),
        source4: Some("192.0.2.1".parse().unwrap()),
        source6: match V6.own() {
            IpAddr::V6(own) => Some(own),
            IpAddr::V4(_) => None,
        },
        ports: PORTS,
        limits: LIMITS,
    }
}

/// Makes the devices, addresses, routes and neighbours in `host`, with the other ends of the devices in `outside`. Answers the
/// indexes of the devices by their names.
pub(crate) fn build(host: &Netns, outside: &Netns) -> BTreeMap<&'static str, u32> {
    let there = outside.path().display().to_string();
    let mac = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (mut lines, mut far_up) = (String::new(), String::new());
    for (name, address, network) in [
        ("card", CARD, "192.0.2.1"),
        ("card2", CARD2, "192.0.3.1"),
        ("client", CLIENT_DEVICE, "10.77.0.1"),
    ] {
        let far = format!("{name}-far");
        lines.push_str(&format!(
            "link add {name} address {} type veth peer name {far} netns {there}\n\
             addr add {network}/24 dev {name}\n\
             link set {name} up\n\
             addr add {}/64 dev {name} nodad\n",
            mac(address),
            V6.ip(network),
        ));
        far_up.push_str(&format!("link set {far} up\n"));
    }
    host.ip(&lines).unwrap();
    outside.ip(&far_up).unwrap();
    lines.clear();
    for family in [V4, V6] {
        for (address, device, at) in [
            ("192.0.2.254", "card", neighbour(254)),
            ("192.0.2.40", "card", neighbour(40)),
            ("192.0.2.30", "card", neighbour(30)),
            ("192.0.2.100", "card", neighbour(100)),
            ("192.0.2.42", "card", [0; 6]),
            ("192.0.3.40", "card2", neighbour(40)),
            ("10.77.0.2", "client", CLIENT),
        ] {
            let address = family.ip(address);
            lines.push_str(&format!(
                "neigh add {address} lladdr {} nud permanent dev {device}\n",
                mac(at)
            ));
        }
        let (all, bits) = match family {
            V4 => ("default", 16),
            V6 => ("default", 48),
        };
        lines.push_str(&format!(
            "route add {all} via {}\n",
            family.ip("192.0.2.254")
        ));
        for (network, by) in [
            ("10.1.0.0", Some("192.0.2.40")),
            ("10.2.0.0", Some("192.0.3.40")),
            ("10.3.0.0", Some("192.0.2.41")),
            ("10.4.0.0", None),
            ("10.5.0.0", Some("192.0.2.40")),
            ("10.6.0.0", Some("192.0.2.42")),
        ] {
            let to = family.ip(network);
            // The gateway of an IPv6 route has to be on the way already, and its own network is.
            lines.push_str(&match by {
                Some(by) => {
                    let narrow = if network == "10.5.0.0" {
                        " mtu lock 1000"
                    } else {
                        ""
                    };
                    // 1280 is the least that IPv6 takes.
                    let narrow = if family == V6 {
                        narrow.replace("1000", "1280")
                    } else {
                        narrow.to_owned()
                    };
                    format!("route add {to}/{bits} via {}{narrow}\n", family.ip(by))
                }
                None => format!("route add unreachable {to}/{bits}\n"),
            });
        }
    }
    host.ip(&lines).unwrap();
    host.enter(|| {
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{name}"), "1").unwrap();
        }
        ["card", "card2", "client"]
            .into_iter()
            .map(|name| (name, nix::net::if_::if_nametoindex(name).unwrap()))
            .collect()
    })
    .unwrap()
}
