//! Requests come one way, and answers go another.

use std::io::ErrorKind;

use lb_common::packet::Fate;
use lb_packet::Role;
use lb_testkit::Netns;

use crate::{
    agent::{Agent, Pins},
    card::{CARD, TC_ALONE, VIP, leaf, members, servers, to},
    direct::Host,
    load::{Server, Talk, load},
    net::{Family, Lan, V4, V6, ip, reverse_paths, route, route_vips, router, without_offloads},
};

/// A client in network 2, from where requests go by a router to network 1, and to where answers come by another one from
/// network 3.
struct Ways {
    client: Netns,
    _there: Netns,
    _back: Netns,
    requests: Lan,
    answers: Lan,
    _clients: Lan,
}

impl Ways {
    /// The VIPs are at this host of network 1. With `whole`, packets get there with whole checksums.
    fn to(vips_at: u8, whole: bool) -> Self {
        let [clients, requests, answers] = [2, 1, 3].map(Lan::new);
        let client = Netns::new("client").unwrap();
        clients.plug(&client, "eth0", 2);
        route_vips(&client, 2, 1);
        let there = router("there");
        clients.plug(&there, "eth0", 1);
        requests.plug(&there, "eth1", 7);
        if whole {
            without_offloads(&client, "eth0");
            without_offloads(&there, "eth1");
        }
        route_vips(&there, 1, vips_at);
        let back = router("back");
        answers.plug(&back, "eth0", 1);
        clients.plug(&back, "eth1", 3);
        // It never sees what it carries answers to.
        reverse_paths(&back, "eth0", 0);
        reverse_paths(&client, "eth0", 0);
        Self {
            client,
            _there: there,
            _back: back,
            requests,
            answers,
            _clients: clients,
        }
    }

    /// Lets a host of network 1 be one of network 3, too, and send answers that way.
    fn connect(&self, host: &Netns, number: u8) {
        self.answers.plug(host, "eth1", number);
        route(host, 2, 3, 1);
        reverse_paths(host, "eth0", 0);
    }

    /// A host with backends that answers by network 3.
    fn host(&self, number: u8) -> Host {
        let host = Host::new(&self.requests, number);
        self.connect(&host.host, number);
        for backend in &host.backends {
            route(backend, 2, host.network(), 1);
        }
        host
    }
}

const BOTH: [(&str, Role); 2] = [("eth0", CARD), ("eth1", CARD)];

/// A balancer in network 1, and a host with the backends: answers go straight to the client, by its other card.
struct Tunnel {
    ways: Ways,
    balancer: (Netns, Pins),
    host: Host,
}

impl Tunnel {
    fn new() -> Self {
        let ways = Ways::to(1, true);
        let balancer = router("balancer");
        ways.requests.plug(&balancer, "eth0", 1);
        let pins = Pins::new(&balancer);
        let host = ways.host(3);
        Self {
            ways,
            balancer: (balancer, pins),
            host,
        }
    }

    /// The agents of the balancer and of the host.
    fn agents(&self) -> [Agent; 2] {
        let sources = |number| Some((ip(V4, 1, number), ip(V6, 1, number)));
        let (host, pins) = &self.balancer;
        let mut balancer = Agent::start(host, pins, sources(1), &BOTH[..1]);
        balancer.desired.places.extend(self.host.there(3));
        balancer.serve(VIP, &self.host.members(), true);
        let mut host = Agent::start(&self.host.host, &self.host.pins, sources(3), &BOTH);
        for family in [V4, V6] {
            host.desired.hosts.insert(ip(family, 1, 1));
        }
        self.host.serve(&mut host, true);
        [balancer, host]
    }
}

/// Packets that a host dropped because it would answer them by another device.
fn dropped_for_its_way(host: &Netns) -> u64 {
    let told = host
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap())
        .unwrap();
    let mut lines = told.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let both = names.split_whitespace().zip(values.split_whitespace());
    let mut found = both.filter(|(name, _)| *name == "IPReversePathFilter");
    found.next().unwrap().1.parse().unwrap()
}

fn talks_much(client: &Netns, family: Family) {
    let counts = load(client, to(family), 4, 25, 20_000);
    assert_eq!(counts[10] + counts[11], 100);
    assert!(counts[10] > 20 && counts[11] > 20, "both serve");
    let mut talk = Talk::begin(client, to(family)).unwrap();
    talk.say(2_000_000).unwrap();
    talk.end().unwrap();
}

fn sees_the_client(servers: &[Server], family: Family) {
    let client = ip(family, 2, 2);
    for server in servers {
        assert!(server.peers().iter().all(|peer| *peer == client));
    }
}

#[test]
fn answers_from_the_end_of_a_tunnel_may_leave_by_another_card() {
    let scene = Tunnel::new();
    let agents = scene.agents();
    // Any device will do, and one that the client is reached by somehow, too.
    for loose in [0, 2] {
        reverse_paths(&scene.host.host, "eth0", loose);
        for family in [V4, V6] {
            let servers = servers(&scene.host.backends, family, scene.host.network());
            talks_much(&scene.ways.client, family);
            sees_the_client(&servers, family);
        }
    }
    let [balancer, host] = &agents;
    assert!(balancer.fate(Fate::Tunnelled) > 1000);
    assert_eq!(balancer.fate(Fate::Answered), 0, "no answer comes by");
    assert_eq!(
        balancer.fate(Fate::TooBig),
        0,
        "the handshake says how much fits"
    );
    assert!(host.fate(Fate::Answered) > 1000);
    for agent in &agents {
        agent.dropped_nothing();
    }
}

#[test]
fn a_strict_host_drops_what_comes_out_of_a_tunnel_and_its_kernel_counts_that() {
    let scene = Tunnel::new();
    let [_balancer, host] = scene.agents();
    reverse_paths(&scene.host.host, "eth0", 1);
    let _servers = servers(&scene.host.backends, V4, scene.host.network());
    let before = dropped_for_its_way(&scene.host.host);
    let refused = Talk::begin(&scene.ways.client, to(V4)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::TimedOut, "{refused}");
    assert!(
        host.fate(Fate::Untunnelled) > 0,
        "it came out of the tunnel"
    );
    assert!(host.fate(Fate::Destination) > 0, "and was for a backend");
    assert_eq!(host.fate(Fate::Answered), 0);
    assert!(dropped_for_its_way(&scene.host.host) > before);
    // IPv6 has no such rule.
    let _servers = servers(&scene.host.backends, V6, scene.host.network());
    talks_much(&scene.ways.client, V6);
    host.dropped_nothing();
}

fn local_backends_answer_by_another_card(role: Role) {
    let ways = Ways::to(3, role != TC_ALONE);
    let host = ways.host(3);
    let devices = [("eth0", role), ("eth1", role)];
    let mut agent = Agent::start(&host.host, &host.pins, None, &devices);
    host.serve(&mut agent, false);
    for family in [V4, V6] {
        let servers = servers(&host.backends, family, host.network());
        talks_much(&ways.client, family);
        sees_the_client(&servers, family);
    }
    assert!(agent.fate(Fate::Answered) > 1000);
    agent.dropped_nothing();
}

#[test]
fn backends_of_this_host_may_answer_by_another_card() {
    local_backends_answer_by_another_card(TC_ALONE);
}

#[test]
fn backends_of_this_host_may_answer_by_another_card_behind_xdp() {
    local_backends_answer_by_another_card(CARD);
}

#[test]
fn full_nat_takes_answers_by_any_card_and_sends_them_by_any_other() {
    let ways = Ways::to(1, true);
    let balancer = router("balancer");
    ways.requests.plug(&balancer, "eth0", 1);
    ways.connect(&balancer, 1 + 4);
    // Programs of XDP come before the rule, which is the stack's.
    for device in ["eth0", "eth1"] {
        reverse_paths(&balancer, device, 1);
    }
    let backends = [10, 11].map(|number| {
        let backend = leaf(&ways.requests, "backend", number);
        ways.answers.plug(&backend, "eth1", number);
        without_offloads(&backend, "eth1");
        // Requests come by network 1, and answers go by network 3.
        backend
            .ip(&format!(
                "route add {}/32 via {} src {}\nroute add {}/128 via {} src {}\n",
                ip(V4, 1, 1),
                ip(V4, 3, 5),
                ip(V4, 1, number),
                ip(V6, 1, 1),
                ip(V6, 3, 5),
                ip(V6, 1, number),
            ))
            .unwrap();
        reverse_paths(&backend, "eth0", 0);
        // A strict neighbour answers nobody who asks by an address of another network.
        let announce = "/proc/sys/net/ipv4/conf/all/arp_announce";
        backend
            .enter(|| std::fs::write(announce, "2").unwrap())
            .unwrap();
        backend
    });
    let pins = Pins::new(&balancer);
    let sources = Some((ip(V4, 1, 1), ip(V6, 1, 1)));
    let mut agent = Agent::start(&balancer, &pins, sources, &BOTH);
    agent.serve(VIP, &members(1, &[(10, 1), (11, 1)]), false);
    for family in [V4, V6] {
        let servers = servers(&backends, family, 1);
        talks_much(&ways.client, family);
        for server in &servers {
            let own = ip(family, 1, 1);
            assert!(server.peers().iter().all(|peer| *peer == own));
        }
    }
    assert!(agent.fate(Fate::Full) > 1000);
    assert!(agent.fate(Fate::Answered) > 1000);
    agent.dropped_nothing();
}
