//! Backends of this host, and of hosts with an agent: nothing comes back by a balancer.

use std::net::SocketAddr;

use lb_common::packet::Fate;
use lb_packet::{Member, Place, Role};
use lb_testkit::Netns;

use crate::{
    agent::{Agent, Pins},
    card::{CARD, TC_ALONE, VIP, leaf, members, servers, to},
    load::{Talk, load},
    net::{Lan, V4, V6, ip, route, route_vips, router, without_offloads},
};

/// A host with two backends of its own, behind it in network 9.
pub(crate) struct Host {
    pub(crate) host: Netns,
    pub(crate) backends: [Netns; 2],
    network: Lan,
    pub(crate) pins: Pins,
}

impl Host {
    pub(crate) fn new(lan: &Lan, number: u8) -> Self {
        Self::with(lan, number, 9)
    }

    /// The same with backends in another network.
    pub(crate) fn with(lan: &Lan, number: u8, network: u8) -> Self {
        let host = router("host");
        lan.plug(&host, "eth0", number);
        let network = Lan::plain(network);
        network.plug(&host, "br0", 1);
        let backends = [10, 11].map(|number| {
            let backend = Netns::new("backend").unwrap();
            network.plug(&backend, "eth0", number);
            route(&backend, lan.number, network.number, 1);
            backend
        });
        let pins = Pins::new(&host);
        Self {
            host,
            backends,
            network,
            pins,
        }
    }

    /// The network of its backends.
    pub(crate) fn network(&self) -> u8 {
        self.network.number
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        members(self.network(), &[(10, 1), (11, 1)])
    }

    /// Where its backends are by its own books.
    pub(crate) fn here(&self) -> Vec<(SocketAddr, Place)> {
        let here = Place {
            host: None,
            local: true,
        };
        let members = self.members().into_iter();
        members.map(|it| (it.address, here)).collect()
    }

    /// Where they are by those of others, for whom it has the number `number` in network 1.
    pub(crate) fn there(&self, number: u8) -> Vec<(SocketAddr, Place)> {
        let there = |address: SocketAddr| Place {
            host: Some(ip(if address.is_ipv4() { V4 } else { V6 }, 1, number)),
            local: false,
        };
        let members = self.members().into_iter();
        members.map(|it| (it.address, there(it.address))).collect()
    }

    /// Has an agent of this host serve the VIP.
    pub(crate) fn serve(&self, agent: &mut Agent, tunnel: bool) {
        agent.desired.places.extend(self.here());
        agent.serve(VIP, &self.members(), tunnel);
    }
}

fn local_backends_are_balanced(role: Role) {
    for family in [V4, V6] {
        let lan = Lan::new(1);
        let host = Host::new(&lan, 1);
        let client = Netns::new("client").unwrap();
        lan.plug(&client, "eth0", 2);
        route_vips(&client, 1, 1);
        if role != TC_ALONE {
            without_offloads(&client, "eth0");
        }
        let mut agent = Agent::start(&host.host, &host.pins, None, &[("eth0", role)]);
        host.serve(&mut agent, false);
        let servers = servers(&host.backends, family, 9);
        let counts = load(&client, to(family), 4, 50, 100_000);
        assert_eq!(counts[10] + counts[11], 200);
        assert!(
            counts[10] > 50 && counts[11] > 50,
            "both serve: {} and {}",
            counts[10],
            counts[11]
        );
        for server in &servers {
            let client = ip(family, 1, 2);
            assert!(
                server.peers().iter().all(|peer| *peer == client),
                "the client stays who it is"
            );
        }
        agent.dropped_nothing();
    }
}

#[test]
fn backends_of_this_host_are_balanced_by_tc_alone_with_offloads_on() {
    local_backends_are_balanced(TC_ALONE);
}

#[test]
fn backends_of_this_host_are_balanced_behind_xdp() {
    local_backends_are_balanced(CARD);
}

/// Two balancers that know the same, a host with the backends, and a client: answers go straight to it.
struct Direct {
    balancers: [(Netns, Pins); 2],
    host: Host,
    client: Netns,
    _lan: Lan,
}

impl Direct {
    fn new() -> Self {
        let lan = Lan::new(1);
        let balancers = [1, 4].map(|number| {
            let balancer = router("balancer");
            lan.plug(&balancer, "eth0", number);
            let pins = Pins::new(&balancer);
            (balancer, pins)
        });
        let host = Host::new(&lan, 3);
        let client = leaf(&lan, "client", 2);
        route_vips(&client, 1, 1);
        Self {
            balancers,
            host,
            client,
            _lan: lan,
        }
    }

    /// The agents of the two balancers and of the host.
    fn agents(&self) -> [Agent; 3] {
        let devices = [("eth0", CARD)];
        let balancer = |at: usize, number| {
            let (host, pins) = &self.balancers[at];
            let sources = Some((ip(V4, 1, number), ip(V6, 1, number)));
            let mut agent = Agent::start(host, pins, sources, &devices);
            agent.desired.places.extend(self.host.there(3));
            agent.serve(VIP, &self.host.members(), true);
            agent
        };
        let sources = Some((ip(V4, 1, 3), ip(V6, 1, 3)));
        let mut host = Agent::start(&self.host.host, &self.host.pins, sources, &devices);
        for family in [V4, V6] {
            host.desired
                .hosts
                .extend([1, 4].map(|number| ip(family, 1, number)));
        }
        self.host.serve(&mut host, true);
        [balancer(0, 1), balancer(1, 4), host]
    }
}

#[test]
fn answers_go_straight_to_the_client() {
    let scene = Direct::new();
    let agents = scene.agents();
    for family in [V4, V6] {
        let servers = servers(&scene.host.backends, family, 9);
        let counts = load(&scene.client, to(family), 4, 50, 100_000);
        assert_eq!(counts[10] + counts[11], 200);
        assert!(
            counts[10] > 50 && counts[11] > 50,
            "both serve: {} and {}",
            counts[10],
            counts[11]
        );
        for server in &servers {
            let client = ip(family, 1, 2);
            assert!(
                server.peers().iter().all(|peer| *peer == client),
                "the client stays who it is"
            );
        }
        let [balancer, other, host] = &agents;
        assert!(balancer.fate(Fate::Tunnelled) > 1000);
        assert_eq!(balancer.fate(Fate::Answered), 0, "no answer comes by");
        assert_eq!(other.fate(Fate::Tunnelled), 0);
        assert!(host.fate(Fate::Untunnelled) > 1000);
        assert!(host.fate(Fate::Answered) > 1000);
        for agent in &agents {
            agent.dropped_nothing();
        }
    }
}

#[test]
fn large_packets_fit_into_the_tunnel() {
    let scene = Direct::new();
    let agents = scene.agents();
    for family in [V4, V6] {
        let _servers = servers(&scene.host.backends, family, 9);
        let mut talk = Talk::begin(&scene.client, to(family)).unwrap();
        talk.say(5_000_000).unwrap();
        talk.end().unwrap();
        let [balancer, _, host] = &agents;
        // The handshake said how large they may be: nothing had to be told by error messages.
        assert_eq!(balancer.fate(Fate::TooBig), 0);
        assert!(host.fate(Fate::Untunnelled) > 1000);
        for agent in &agents {
            agent.dropped_nothing();
        }
    }
}
