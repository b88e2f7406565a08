//! Who takes frames for backends of other hosts: XDP cannot ask for a link address, so the kernel is told to keep those of
//! the next hops known, for as long as there is a card: [`crate::network::neighbours`] says how.
//!
//! What others keep known is theirs: an entry without an end of an administrator or of an overlay network stays as it is.
//! Where an address is not known the programs leave the packet to the stack.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use lb_packet::Desired;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::network::neighbours::{Hop, Keeper, forget, keep, list};

/// The next hops that the kernel keeps known for us. Which those are it tells itself: also those of an earlier agent.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// For whom they were looked up.
    towards: BTreeSet<IpAddr>,
    /// The devices that programs send frames out of.
    cards: BTreeSet<u32>,
    looked: Option<Instant>,
}

impl Neighbours {
    /// Has the kernel keep those towards these addresses that are behind one of `cards`, and no others of ours. What leaves by
    /// another device is the stack's.
    pub(super) async fn follow(
        &mut self,
        handle: &Handle,
        cards: BTreeSet<u32>,
        towards: BTreeSet<IpAddr>,
    ) {
        let is_new = self.towards != towards || self.cards != cards;
        let is_due = match self.looked {
            // With nobody to reach there is nothing that could change.
            Some(looked) => is_new || !towards.is_empty() && looked.elapsed() >= AGAIN,
            None => true,
        };
        if !is_due {
            return;
        }
        let known = match list(handle).await {
            Ok(known) => known,
            // Who knows nothing of them touches none.
            Err(error) => {
                tracing::debug!(%error, "cannot list the neighbours");
                return;
            }
        };
        let mut hops = BTreeSet::new();
        for &address in towards.iter().take(MOST) {
            match route(handle, address).await {
                Ok(hop) => hops.extend(hop.filter(|(device, _)| cards.contains(device))),
                // Where no way leads there, there is nobody to know.
                Err(error) => tracing::debug!(%address, %error, "no way to a backend's host"),
            }
        }
        for &hop in &hops {
            if matches!(known.get(&hop), None | Some(Keeper::Nobody))
                && let Err(error) = keep(handle, hop).await
            {
                let (device, address) = hop;
                tracing::debug!(device, %address, %error, "the kernel does not keep a neighbour");
            }
        }
        for (hop, keeper) in known {
            if keeper == Keeper::Us
                && !hops.contains(&hop)
                && let Err(error) = forget(handle, hop).await
            {
                let (device, address) = hop;
                tracing::debug!(device, %address, %error, "the kernel does not forget a neighbour");
            }
        }
        self.towards = towards;
        self.cards = cards;
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

/// Between two looks at routes that may have changed.
const AGAIN: Duration = Duration::from_secs(30);
/// Addresses whose ways are looked up.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use lb_common::{Be16, Be32, packet::EndpointKey};
    use lb_packet::{Member, Place, Wanted};
    use lb_testkit::Netns;

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

    /// A host with two others behind a device each, `lb-n0` and `lb-n1`, which have the last number 2 in `10.1.0.0/24` and
    /// `10.2.0.0/24`; `10.9.0.0/16` is behind the first of them.
    struct Scene {
        host: Netns,
        _others: [Netns; 2],
    }

    impl Scene {
        fn new() -> Self {
            let host = Netns::new("neighbours").unwrap();
            let others = [1, 2].map(|net| {
                let other = Netns::new("neighbours-other").unwrap();
                let (there, device) = (other.path().display().to_string(), net - 1);
                host.ip(&format!(
                    "link add lb-n{device} type veth peer name eth0 netns {there}\n\
                     addr add 10.{net}.0.1/24 dev lb-n{device}\nlink set lb-n{device} up\n"
                ))
                .unwrap();
                other
                    .ip(&format!(
                        "addr add 10.{net}.0.2/24 dev eth0\nlink set eth0 up\n"
                    ))
                    .unwrap();
                other
            });
            host.ip("route add 10.9.0.0/16 via 10.1.0.2\n").unwrap();
            Self {
                host,
                _others: others,
            }
        }

        /// The first device is a card.
        fn follow(&self, neighbours: &mut Neighbours, towards: &[&str]) {
            let towards = towards.iter().map(|it| it.parse().unwrap()).collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let followed = async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let card = nix::net::if_::if_nametoindex("lb-n0").unwrap();
                neighbours.follow(&handle, [card].into(), towards).await;
            };
            self.host.enter(|| runtime.block_on(followed)).unwrap();
        }

        fn known(&self) -> String {
            let line = "neigh show to 10.0.0.0/8 nud all\n";
            self.host.ip(line).unwrap()
        }
    }

    /// The kernel asks for such a neighbour by itself, again and again.
    #[test]
    fn the_kernel_keeps_the_next_hops_known_and_forgets_those_that_are_no_more_needed() {
        let scene = Scene::new();
        let mut neighbours = Neighbours::default();
        scene.follow(&mut neighbours, &["10.9.0.7", "10.9.0.8", "10.1.0.1"]);
        let known = lb_testkit::eventually(Duration::from_secs(10), || match scene.known() {
            it if it.starts_with("10.1.0.2 ") && it.contains("lladdr") => Ok(it),
            it => Err(it),
        });
        let known = known.unwrap();
        assert!(
            known.contains("managed") && known.lines().count() == 1,
            "{known}"
        );
        scene.follow(&mut neighbours, &[]);
        assert!(!scene.known().contains("managed"), "{}", scene.known());
    }

    #[test]
    fn the_next_agent_forgets_what_it_does_not_need_and_so_does_who_takes_all_away() {
        let scene = Scene::new();
        // Another program's.
        let other = "neigh add 10.1.0.9 dev lb-n0 managed protocol 7 nud none\n";
        scene.host.ip(other).unwrap();
        let managed = || {
            let known = scene.known();
            let lines = known.lines().filter(|line| line.contains("managed"));
            let addresses = lines.filter_map(|line| line.split_whitespace().next());
            let mut addresses: Vec<_> = addresses.map(str::to_owned).collect();
            addresses.sort_unstable();
            addresses
        };
        let towards = ["10.1.0.5", "10.1.0.6"];
        scene.follow(&mut Neighbours::default(), &towards);
        assert_eq!(managed(), ["10.1.0.5", "10.1.0.6", "10.1.0.9"]);
        let mut next = Neighbours::default();
        scene.follow(&mut next, &towards[..1]);
        assert_eq!(managed(), ["10.1.0.5", "10.1.0.9"]);
        let give_back = |dry| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let given = || runtime.block_on(crate::network::give_back(dry));
            scene.host.enter(given).unwrap().unwrap()
        };
        for (dry, left) in [
            (true, &["10.1.0.5", "10.1.0.9"][..]),
            (false, &["10.1.0.9"]),
        ] {
            assert_eq!(give_back(dry), ["the neighbour 10.1.0.5 on lb-n0"]);
            assert_eq!(managed(), left);
        }
        assert_eq!(give_back(false), Vec::<String>::new());
    }

    #[test]
    fn what_others_keep_known_and_what_is_behind_no_card_is_left_as_it_is() {
        let scene = Scene::new();
        let kept = [
            "10.1.0.2 lladdr 02:00:00:00:00:02 nud permanent",
            "10.1.0.3 lladdr 02:00:00:00:00:03 nud noarp",
            "10.1.0.4 lladdr 02:00:00:00:00:04 nud stale extern_learn",
        ];
        let entries = kept.map(|it| format!("neigh add {it} dev lb-n0\n"));
        scene.host.ip(&entries.concat()).unwrap();
        let before = scene.known();
        let mut neighbours = Neighbours::default();
        // The last one is not behind a card.
        let towards = ["10.9.0.7", "10.1.0.3", "10.1.0.4", "10.2.0.2"];
        for towards in [&towards[..], &[]] {
            scene.follow(&mut neighbours, towards);
            assert_eq!(scene.known(), before);
        }
        // One of ours that somebody takes over is his from then on.
        scene.follow(&mut neighbours, &["10.1.0.5"]);
        let one = || {
            let line = "neigh show to 10.1.0.5 nud all\n";
            scene.host.ip(line).unwrap()
        };
        assert!(one().contains("managed"), "{}", one());
        let taken = "neigh replace 10.1.0.5 lladdr 02:00:00:00:00:05 nud permanent dev lb-n0\n";
        scene.host.ip(taken).unwrap();
        let before = one();
        scene.follow(&mut neighbours, &[]);
        assert_eq!(one(), before);
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
