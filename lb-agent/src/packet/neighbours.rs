//! Who takes frames for backends of other hosts: XDP cannot ask for a link address, so the kernel is told to keep those of
//! the next hops known, for as long as there is a card.
//!
//! Such a neighbour is *managed* (`NTF_EXT_MANAGED`, Linux 5.16): the kernel asks again before it forgets. An older kernel
//! takes no notice, and where an address is not known the programs leave the packet to the stack.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use lb_packet::Desired;
use netlink_packet_route::{
    neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::{Handle, RouteMessageBuilder};

/// A next hop: a device, and the address behind it that takes frames.
type Hop = (u32, IpAddr);

/// The next hops that the kernel keeps known for us.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    managed: BTreeSet<Hop>,
    /// For whom they were looked up.
    towards: BTreeSet<IpAddr>,
    looked: Option<Instant>,
}

impl Neighbours {
    /// Has the kernel keep those towards these addresses, and no others of ours.
    pub(super) async fn follow(&mut self, handle: &Handle, towards: BTreeSet<IpAddr>) {
        let is_new = self.towards != towards;
        let is_old = self.looked.is_none_or(|it| it.elapsed() >= AGAIN);
        if !is_new && !is_old || towards.is_empty() && self.managed.is_empty() {
            return;
        }
        let mut hops = BTreeSet::new();
        for &address in towards.iter().take(MOST) {
            match route(handle, address).await {
                Ok(hop) => hops.extend(hop),
                // Where no way leads there, there is nobody to know.
                Err(error) => tracing::debug!(%address, %error, "no way to a backend's host"),
            }
        }
        for hop in hops.difference(&self.managed) {
            manage(handle, *hop).await;
        }
        for hop in self.managed.difference(&hops) {
            forget(handle, *hop).await;
        }
        self.managed = hops;
        self.towards = towards;
        self.looked = Some(Instant::now());
    }
}

/// Where packets for backends of other hosts are sent to.
pub(super) fn towards(desired: &Desired) -> BTreeSet<IpAddr> {
    let endpoints = desired.endpoints.values();
    let all = endpoints.flat_map(|wanted| {
        wanted.members.iter().filter_map(|it| {
            let place = desired.place(it.address);
            match (place.local, wanted.tunnel) {
                (true, _) => None,
                (false, true) => place.host,
                (false, false) => Some(it.address.ip()),
            }
        })
    });
    all.collect()
}

/// The next hop towards an address; `None` if that is of this host.
async fn route(handle: &Handle, to: IpAddr) -> Result<Option<Hop>, rtnetlink::Error> {
    let message = match to {
        IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .build(),
        IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to, 128)
            .build(),
    };
    let mut routes = Box::pin(handle.route().get(message).execute());
    let route = routes.try_next().await?;
    Ok(route.and_then(|route| hop(&route, to)))
}

fn hop(route: &RouteMessage, to: IpAddr) -> Option<Hop> {
    let mut device = None;
    let mut gateway = to;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(by)) => gateway = IpAddr::V4(*by),
            RouteAttribute::Gateway(RouteAddress::Inet6(by)) => gateway = IpAddr::V6(*by),
            _ => {}
        }
    }
    // The first device of every network namespace is `lo`.
    Some((device.filter(|it| *it != 1)?, gateway))
}

async fn manage(handle: &Handle, (device, address): Hop) {
    let mut request = handle.neighbours().add(device, address).replace();
    let message = request.message_mut();
    message.header.state = NeighbourState::None;
    let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
    message.attributes.push(managed);
    if let Err(error) = request.execute().await {
        tracing::debug!(device, %address, %error, "the kernel does not keep a neighbour");
    }
}

async fn forget(handle: &Handle, (device, address): Hop) {
    let mut message = netlink_packet_route::neighbour::NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.family = match address {
        IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(it) => netlink_packet_route::neighbour::NeighbourAddress::Inet(it),
            IpAddr::V6(it) => netlink_packet_route::neighbour::NeighbourAddress::Inet6(it),
        }));
    if let Err(error) = handle.neighbours().del(message).execute().await {
        tracing::debug!(device, %address, %error, "a neighbour is gone already");
    }
}

/// Between two looks at routes that may have changed.
const AGAIN: Duration = Duration::from_secs(30);
/// Addresses whose ways are looked up.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use lb_common::{Be16, Be32, packet::EndpointKey};
    use lb_packet::{Member, Place, Wanted};

    use super::*;

    #[test]
    fn ways_lead_to_backends_of_other_hosts_and_in_tunnels_to_their_hosts() {
        let places = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:81"].map(|address| {
            let place = Place {
                host: "192.0.2.8".parse().ok(),
                local: address == "10.0.0.2:80",
            };
            (address.parse().unwrap(), place)
        });
        let members: Arc<[Member]> = places
            .iter()
            .map(|&(address, _)| Member { address, weight: 1 })
            .collect();
        let asked = |tunnel| {
            let key = EndpointKey {
                vip: Be32::from_host(1),
                port: Be16::from_host(80),
                proto: 6,
                scope: 0,
            };
            let wanted = Wanted {
                members: Arc::clone(&members),
                tunnel,
                trace: false,
            };
            let desired = Desired {
                endpoints: BTreeMap::from([(key, wanted)]),
                places: places.into(),
                ..Desired::default()
            };
            towards(&desired)
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(asked(false), [ip("10.0.0.1")].into());
        assert_eq!(asked(true), [ip("192.0.2.8")].into());
    }

    /// The kernel asks for such a neighbour by itself, again and again.
    #[test]
    fn the_kernel_keeps_the_next_hops_known_and_forgets_those_that_are_no_more_needed() {
        let host = lb_testkit::Netns::new("neighbours").unwrap();
        let other = lb_testkit::Netns::new("neighbours-other").unwrap();
        let there = other.path().display().to_string();
        host.ip(&format!(
            "link add lb-n0 type veth peer name eth0 netns {there}\naddr add 10.1.0.1/24 dev lb-n0\nlink set lb-n0 up\n\
             route add 10.9.0.0/16 via 10.1.0.2\n"
        ))
        .unwrap();
        other
            .ip("addr add 10.1.0.2/24 dev eth0\nlink set eth0 up\n")
            .unwrap();
        let follow = |neighbours: &mut Neighbours, towards: &[&str]| {
            let towards = towards.iter().map(|it| it.parse().unwrap()).collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let followed = async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                neighbours.follow(&handle, towards).await;
            };
            host.enter(|| runtime.block_on(followed)).unwrap();
        };
        let told = || host.ip("neigh show dev lb-n0\n").unwrap();
        let mut neighbours = Neighbours::default();
        follow(&mut neighbours, &["10.9.0.7", "10.9.0.8", "10.1.0.1"]);
        let known = lb_testkit::eventually(Duration::from_secs(10), || match told() {
            it if it.starts_with("10.1.0.2 ") && it.contains("lladdr") => Ok(it),
            it => Err(it),
        });
        let known = known.unwrap();
        assert!(
            known.contains("managed") && known.lines().count() == 1,
            "{known}"
        );
        follow(&mut neighbours, &[]);
        assert!(!told().contains("managed"), "{}", told());
    }

    #[test]
    fn the_next_hop_is_the_gateway_or_the_address_itself() {
        let to = "10.0.0.1".parse().unwrap();
        let mut route = RouteMessage::default();
        assert_eq!(hop(&route, to), None);
        route.attributes.push(RouteAttribute::Oif(7));
        assert_eq!(hop(&route, to), Some((7, to)));
        let by = Ipv4Addr::new(192, 0, 2, 1);
        route
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::Inet(by)));
        assert_eq!(hop(&route, to), Some((7, by.into())));
        route.attributes = vec![RouteAttribute::Oif(1)];
        assert_eq!(hop(&route, to), None);
    }
}
