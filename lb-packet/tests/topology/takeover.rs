//! The VIPs move from one balancer to another while clients talk. What the second one is to be told of is nothing: it knows the
//! same services, and so has the same tables.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use lb_common::packet::Fate;
use lb_packet::{Answer, Member, Place, Question};
use lb_testkit::{Netns, eventually};

use crate::{
    agent::{Agent, Pins},
    card::{CARD, VIP, leaf, members, servers, to},
    direct::Host,
    load::{Held, Server, Talk, load},
    net::{Family, Lan, POOL, POOL6, V4, V6, ip, link_address, router, vip},
};

/// Numbers of the balancers and of the hosts with backends, in their network.
const BALANCERS: [u8; 2] = [1, 4];
const HOSTS: [u8; 2] = [3, 5];

/// Two balancers and a client that finds the VIPs on its own network, at the first one.
struct Balancers {
    hosts: [(Netns, Pins); 2],
    client: Netns,
    lan: Lan,
}

impl Balancers {
    fn new() -> Self {
        let lan = Lan::new(1);
        let hosts = BALANCERS.map(|number| {
            let balancer = router("balancer");
            lan.plug(&balancer, "eth0", number);
            let pins = Pins::new(&balancer);
            (balancer, pins)
        });
        let client = leaf(&lan, "client", 2);
        client
            .ip(&format!(
                "route add {POOL} dev eth0\nroute add {POOL6} dev eth0\n"
            ))
            .unwrap();
        let scene = Self { hosts, client, lan };
        scene.has_vip(0);
        scene
    }

    /// From now on this one has the VIP, as neighbours are told when it is announced.
    fn has_vip(&self, at: usize) {
        let address = link_address(&self.hosts[at].0, "eth0");
        for family in [V4, V6] {
            let vip = vip(family, VIP);
            self.client
                .ip(&format!(
                    "neigh replace {vip} lladdr {address} nud permanent dev eth0\n"
                ))
                .unwrap();
        }
    }

    fn agents(
        &self,
        members: &[Member],
        places: &[(SocketAddr, Place)],
        tunnel: bool,
    ) -> [Agent; 2] {
        [0, 1].map(|at| {
            let (host, pins) = &self.hosts[at];
            let number = BALANCERS[at];
            let sources = Some((ip(V4, 1, number), ip(V6, 1, number)));
            let mut agent = Agent::start(host, pins, sources, &[("eth0", CARD)]);
            agent.desired.places.extend(places.iter().copied());
            agent.serve(VIP, members, tunnel);
            agent
        })
    }
}

/// Waits until so many connections broke.
fn broke(held: &Held, count: usize) {
    eventually(Duration::from_secs(10), || match held.broken() {
        broken if broken < count => Err(format!("{broken} of {count}")),
        _ => Ok(()),
    })
    .unwrap();
}

#[test]
fn full_nat_has_its_connections_reset_by_the_next_balancer_which_takes_new_ones() {
    let scene = Balancers::new();
    let backends = [10, 11].map(|number| leaf(&scene.lan, "backend", number));
    let agents = scene.agents(&members(1, &[(10, 1), (11, 1)]), &[], false);
    for family in [V4, V6] {
        scene.has_vip(0);
        let [first, second] = &agents;
        let before = [Fate::NoFlow, Fate::Full].map(|fate| second.fate(fate));
        let _servers = servers(&backends, family, 1);
        let held = Held::begin(&scene.client, to(family), 20);
        scene.has_vip(1);
        let counts = load(&scene.client, to(family), 2, 20, 1000);
        assert_eq!(counts[10] + counts[11], 40);
        broke(&held, 20);
        // Each is told at once; nobody waits for an answer that does not come.
        let moved = held.outcomes().into_iter().filter(|outcome| {
            let error = outcome.as_ref().err().map(std::io::Error::kind);
            assert!(
                matches!(error, None | Some(ErrorKind::ConnectionReset)),
                "{outcome:?}"
            );
            outcome.is_ok()
        });
        assert_eq!(moved.count(), 0, "no other host knows their ports");
        assert!(second.fate(Fate::NoFlow) - before[0] >= 20);
        assert!(second.fate(Fate::Full) - before[1] > 100);
        first.dropped_nothing();
    }
}

/// Two balancers before two hosts with two backends each.
struct Tunnels {
    balancers: Balancers,
    hosts: [Host; 2],
}

impl Tunnels {
    fn new() -> Self {
        let balancers = Balancers::new();
        let hosts = [0, 1].map(|at| Host::with(&balancers.lan, HOSTS[at], NETWORKS[at]));
        Self { balancers, hosts }
    }

    /// All backends; those of a host that drains have no share.
    fn members(&self, drained: Option<usize>) -> Vec<Member> {
        let of = |at: usize| {
            let weight = u16::from(drained != Some(at));
            let members = self.hosts[at].members().into_iter();
            members.map(move |it| Member { weight, ..it })
        };
        of(0).chain(of(1)).collect()
    }

    /// Where they are, by the books of a balancer or of one of the hosts.
    fn places(&self, host: Option<usize>) -> Vec<(SocketAddr, Place)> {
        let of = |at: usize| match host {
            Some(own) if own == at => self.hosts[at].here(),
            _ => self.hosts[at].there(HOSTS[at]),
        };
        [of(0), of(1)].concat()
    }

    /// The agents of the balancers, and those of the hosts.
    fn agents(&self) -> ([Agent; 2], [Agent; 2]) {
        let hosts = [0, 1].map(|at| {
            let host = &self.hosts[at];
            let sources = Some((ip(V4, 1, HOSTS[at]), ip(V6, 1, HOSTS[at])));
            let mut agent = Agent::start(&host.host, &host.pins, sources, &[("eth0", CARD)]);
            for family in [V4, V6] {
                let of = BALANCERS.map(|number| ip(family, 1, number));
                agent.desired.hosts.extend(of);
            }
            agent.desired.places.extend(self.places(Some(at)));
            agent.serve(VIP, &self.members(None), true);
            agent
        });
        let (members, places) = (self.members(None), self.places(None));
        (self.balancers.agents(&members, &places, true), hosts)
    }

    /// Lets all know of a host that drains, or of none.
    fn serve(&self, agents: &mut [Agent; 2], hosts: &mut [Agent; 2], drained: Option<usize>) {
        for agent in agents.iter_mut().chain(hosts) {
            agent.serve(VIP, &self.members(drained), true);
        }
    }

    /// Servers at all backends, named by their network and number.
    fn servers(&self, family: Family) -> Vec<Server> {
        let of = |host: &Host| {
            let network = host.network();
            [(0, 10), (1, 11)].map(|(at, number)| {
                let address = SocketAddr::new(ip(family, network, number), 8080);
                Server::start(&host.backends[at], address, name(network, number))
            })
        };
        self.hosts.iter().flat_map(of).collect()
    }
}

/// Connections that are open when the VIPs move.
const TALKS: usize = 20;

/// Networks of the hosts' backends.
const NETWORKS: [u8; 2] = [8, 9];

/// What a server in a network calls itself.
const fn name(network: u8, number: u8) -> u8 {
    network * 20 + number
}

/// The network of the server that calls itself so.
const fn network(name: u8) -> u8 {
    (name - 10) / 20
}

#[test]
fn flows_in_tunnels_go_on_when_another_balancer_takes_over() {
    let scene = Tunnels::new();
    let (agents, hosts) = scene.agents();
    let client = &scene.balancers.client;
    for family in [V4, V6] {
        scene.balancers.has_vip(0);
        let before = agents[1].fate(Fate::Unknown);
        let _servers = scene.servers(family);
        let held = Held::begin(client, to(family), 20);
        scene.balancers.has_vip(1);
        load(client, to(family), 2, 20, 1000);
        let moved = held.outcomes().iter().filter(|it| it.is_ok()).count();
        assert_eq!(moved, 20, "both have the same table");
        assert!(agents[1].fate(Fate::Unknown) - before >= 20);
        for agent in agents.iter().chain(&hosts) {
            agent.dropped_nothing();
        }
    }
}

#[test]
fn flows_that_only_the_first_balancer_knew_go_on_where_the_tables_agree_and_are_reset_elsewhere() {
    let scene = Tunnels::new();
    let (mut agents, mut hosts) = scene.agents();
    let client = &scene.balancers.client;
    for family in [V4, V6] {
        scene.balancers.has_vip(0);
        scene.serve(&mut agents, &mut hosts, None);
        let _servers = scene.servers(family);
        let talks: Vec<Talk> = (0..TALKS)
            .map(|_| Talk::begin(client, to(family)).unwrap())
            .collect();
        // One of the hosts drains: the first balancer keeps its flows by what it wrote down, and the table has them elsewhere now.
        scene.serve(&mut agents, &mut hosts, Some(0));
        let [first, second] = &agents;
        let seen = |agent: &Agent| agent.fate(Fate::Unknown) + agent.fate(Fate::Tunnelled);
        let before = seen(second);
        // The end of the tunnel knows its flows, whichever of its backends a balancer means.
        let goes_on: Vec<bool> = talks
            .iter()
            .map(|talk| {
                let question = Question {
                    proto: 6,
                    client: talk.client(),
                    vip: std::net::Ipv4Addr::new(198, 18, 0, VIP),
                    vip_port: 80,
                    local: false,
                };
                let answer = second.explainer.explain(&second.flows, &question).unwrap();
                let Answer::Table { backend, .. } = answer else {
                    panic!("nothing is written down there: {answer:?}")
                };
                let there = network(talk.server);
                [10, 11]
                    .map(|number| ip(family, there, number))
                    .contains(&backend.ip())
            })
            .collect();
        let stay = goes_on.iter().filter(|goes| **goes).count();
        assert!((1..TALKS).contains(&stay), "{stay} of {TALKS}");
        let held = Held::of(talks);
        load(client, to(family), 2, 10, 1000);
        assert_eq!(held.broken(), 0, "before the move all go on");
        assert_eq!(seen(second), before, "nothing comes by the second one");
        scene.balancers.has_vip(1);
        let counts = load(client, to(family), 2, 20, 1000);
        for number in [10, 11] {
            assert_eq!(counts[usize::from(name(NETWORKS[0], number))], 0);
        }
        broke(&held, TALKS - stay);
        for (outcome, goes) in held.outcomes().into_iter().zip(goes_on) {
            match outcome {
                Ok(_) => assert!(goes, "the table has it elsewhere"),
                Err(error) => {
                    assert_eq!((error.kind(), goes), (ErrorKind::ConnectionReset, false));
                }
            }
        }
        for agent in [first, second].into_iter().chain(&hosts) {
            agent.dropped_nothing();
        }
    }
}
