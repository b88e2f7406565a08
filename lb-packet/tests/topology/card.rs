//! Clients of other hosts: their packets come by a network card, and the backends are anywhere.
//!
//! XDP on a veth needs whole checksums: hosts whose packets pass there do not leave them to the device. Where tc alone does the work,
//! offloads are on.

use std::net::SocketAddr;

use lb_common::packet::Fate;
use lb_packet::{How, Member, Role, XdpMode};
use lb_testkit::Netns;

use crate::{
    agent::{Agent, Pins, member},
    load::{Held, Server, Talk, load},
    net::{Family, Lan, V4, V6, ip, route, route_vips, router, vip, without_offloads},
};

const CARD: Role = Role::Card {
    mode: XdpMode::Auto,
};
const TC_ALONE: Role = Role::Card { mode: XdpMode::Off };

/// The VIP, and the backends' numbers in their network.
const VIP: u8 = 10;

fn to(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family, VIP), 80)
}

/// Backends of both families at these hosts of a network.
fn members(network: u8, hosts: &[(u8, u16)]) -> Vec<Member> {
    let of = |family| {
        hosts.iter().map(move |&(host, weight)| Member {
            weight,
            ..member(ip(family, network, host))
        })
    };
    of(V4).chain(of(V6)).collect()
}

fn servers(backends: &[Netns], family: Family, network: u8) -> Vec<Server> {
    let numbered = backends.iter().zip(10..);
    numbered
        .map(|(backend, number)| {
            let address = SocketAddr::new(ip(family, network, number), 8080);
            Server::start(backend, address, number)
        })
        .collect()
}

/// A leaf of a network, with whole checksums.
fn leaf(lan: &Lan, label: &str, number: u8) -> Netns {
    let host = Netns::new(label).unwrap();
    lan.plug(&host, "eth0", number);
    without_offloads(&host, "eth0");
    host
}

/// A balancer between a client and two backends by full NAT; all in one network, or the backends in another one.
struct Nat {
    balancer: Netns,
    client: Netns,
    backends: [Netns; 2],
    _networks: Vec<Lan>,
    pins: Pins,
    devices: Vec<(&'static str, Role)>,
}

impl Nat {
    fn one_arm() -> Self {
        let lan = Lan::new(1);
        let balancer = router("balancer");
        lan.plug(&balancer, "eth0", 1);
        let client = leaf(&lan, "client", 2);
        route_vips(&client, 1, 1);
        let backends = [10, 11].map(|number| leaf(&lan, "backend", number));
        let pins = Pins::new(&balancer);
        Self {
            balancer,
            client,
            backends,
            _networks: vec![lan],
            pins,
            devices: vec![("eth0", CARD)],
        }
    }

    fn two_arms() -> Self {
        let (near, far) = (Lan::new(2), Lan::new(1));
        let balancer = router("balancer");
        near.plug(&balancer, "eth0", 1);
        far.plug(&balancer, "eth1", 1);
        let client = leaf(&near, "client", 2);
        route_vips(&client, 2, 1);
        // The client is never their peer, and they have no way to it.
        let backends = [10, 11].map(|number| leaf(&far, "backend", number));
        let pins = Pins::new(&balancer);
        let devices = vec![("eth0", CARD), ("eth1", CARD)];
        Self {
            balancer,
            client,
            backends,
            _networks: vec![near, far],
            pins,
            devices,
        }
    }

    fn agent(&self) -> Agent {
        let sources = Some((ip(V4, 1, 1), ip(V6, 1, 1)));
        let mut agent = Agent::start(&self.balancer, &self.pins, sources, &self.devices);
        agent.serve(VIP, &members(1, &[(10, 1), (11, 1)]), false);
        agent
    }

    fn is_balanced(&self, family: Family) {
        let agent = self.agent();
        let servers = servers(&self.backends, family, 1);
        for (at, how) in agent.ways() {
            let expect = if at.1 == "xdp_card" {
                How::Native
            } else {
                How::Tcx
            };
            assert_eq!(how, expect, "{at:?}");
        }
        let counts = load(&self.client, to(family), 4, 50, 20_000);
        assert_eq!(counts[10] + counts[11], 200);
        assert!(
            counts[10] > 50 && counts[11] > 50,
            "both serve: {} and {}",
            counts[10],
            counts[11]
        );
        let own = ip(family, 1, 1);
        for server in &servers {
            assert!(
                server.peers().iter().all(|peer| *peer == own),
                "backends see the balancer"
            );
        }
        assert!(
            agent.fate(Fate::Full) > 1000,
            "{:?}",
            agent.figures.fates().unwrap()
        );
        assert!(agent.fate(Fate::Answered) > 1000);
        agent.dropped_nothing();
    }
}

#[test]
fn one_arm_nat_balances() {
    for family in [V4, V6] {
        Nat::one_arm().is_balanced(family);
    }
}

#[test]
fn nat_between_two_networks_balances() {
    for family in [V4, V6] {
        Nat::two_arms().is_balanced(family);
    }
}

#[test]
fn nat_outlives_the_agent_and_goes_on_with_the_next_one() {
    for family in [V4, V6] {
        let scene = Nat::one_arm();
        let agent = scene.agent();
        let _servers = servers(&scene.backends, family, 1);
        let held = Held::begin(&scene.client, to(family), 20);
        drop(agent);
        load(&scene.client, to(family), 2, 10, 1000);
        let agent = scene.agent();
        for attached in agent.programs.attached() {
            assert!(
                attached
                    .hooks
                    .iter()
                    .all(|hook| hook.adopted && hook.in_place() == Some(true)),
                "{attached:?}"
            );
        }
        load(&scene.client, to(family), 2, 10, 1000);
        assert!(held.end() >= 20);
        agent.dropped_nothing();
    }
}

#[test]
fn a_drained_backend_keeps_its_flows_through_nat() {
    for family in [V4, V6] {
        let scene = Nat::one_arm();
        let mut agent = scene.agent();
        let _servers = servers(&scene.backends, family, 1);
        let held = Held::begin(&scene.client, to(family), 20);
        agent.serve(VIP, &members(1, &[(10, 1), (11, 0)]), false);
        let counts = load(&scene.client, to(family), 2, 30, 1000);
        assert_eq!((counts[10], counts[11]), (60, 0));
        assert!(held.end() >= 20);
        agent.dropped_nothing();
    }
}

#[test]
fn a_program_is_taken_off_and_the_packets_go_to_the_stack() {
    let scene = Nat::one_arm();
    let mut agent = scene.agent();
    let _servers = servers(&scene.backends, V4, 1);
    load(&scene.client, to(V4), 1, 3, 1000);
    scene
        .balancer
        .enter(|| agent.programs.detach("eth0"))
        .unwrap()
        .unwrap();
    assert_eq!(agent.programs.attached().len(), 0);
    let before = agent.fate(Fate::Full);
    assert!(
        Talk::begin(&scene.client, to(V4)).is_err(),
        "nobody balances any more"
    );
    assert_eq!(agent.fate(Fate::Full), before);
    // What an earlier agent left at a device that is not to be balanced any more goes when all others are attached.
    drop(agent);
    let mut agent = scene.agent();
    load(&scene.client, to(V4), 1, 3, 1000);
    drop(agent);
    agent = Agent::start(&scene.balancer, &scene.pins, None, &[]);
    scene
        .balancer
        .enter(|| agent.programs.detach_others())
        .unwrap()
        .unwrap();
    assert!(Talk::begin(&scene.client, to(V4)).is_err());
}

/// A host with two backends of its own, behind it in network 9.
struct Host {
    host: Netns,
    backends: [Netns; 2],
    _network: Lan,
    pins: Pins,
}

impl Host {
    fn new(lan: &Lan, number: u8) -> Self {
        let host = router("host");
        lan.plug(&host, "eth0", number);
        let network = Lan::new(9);
        network.plug(&host, "br0", 1);
        let backends = [10, 11].map(|number| {
            let backend = Netns::new("backend").unwrap();
            network.plug(&backend, "eth0", number);
            route(&backend, 1, 9, 1);
            backend
        });
        let pins = Pins::new(&host);
        Self {
            host,
            backends,
            _network: network,
            pins,
        }
    }

    fn members(&self) -> Vec<Member> {
        let local = |it: Member| Member { local: true, ..it };
        members(9, &[(10, 1), (11, 1)])
            .into_iter()
            .map(local)
            .collect()
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
        agent.serve(VIP, &host.members(), false);
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
        let remote: Vec<Member> = members(9, &[(10, 1), (11, 1)])
            .into_iter()
            .map(|it| {
                let family = if it.address.is_ipv4() { V4 } else { V6 };
                Member {
                    host: Some(ip(family, 1, 3)),
                    ..it
                }
            })
            .collect();
        let balancer = |at: usize, number| {
            let (host, pins) = &self.balancers[at];
            let sources = Some((ip(V4, 1, number), ip(V6, 1, number)));
            let mut agent = Agent::start(host, pins, sources, &devices);
            agent.serve(VIP, &remote, true);
            agent
        };
        let sources = Some((ip(V4, 1, 3), ip(V6, 1, 3)));
        let mut host = Agent::start(&self.host.host, &self.host.pins, sources, &devices);
        for family in [V4, V6] {
            host.desired
                .hosts
                .extend([1, 4].map(|number| ip(family, 1, number)));
        }
        host.serve(VIP, &self.host.members(), true);
        [balancer(0, 1), balancer(1, 4), host]
    }

    /// From now on the second balancer has the VIPs.
    fn take_over(&self) {
        self.client
            .ip(&format!(
                "route replace {} via {}\nroute replace {} via {}\n",
                crate::net::POOL,
                ip(V4, 1, 4),
                crate::net::POOL6,
                ip(V6, 1, 4)
            ))
            .unwrap();
    }
}

#[test]
fn answers_go_straight_to_the_client() {
    for family in [V4, V6] {
        let scene = Direct::new();
        let agents = scene.agents();
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
fn flows_go_on_when_another_balancer_takes_over() {
    for family in [V4, V6] {
        let scene = Direct::new();
        let agents = scene.agents();
        let _servers = servers(&scene.host.backends, family, 9);
        let held = Held::begin(&scene.client, to(family), 20);
        scene.take_over();
        load(&scene.client, to(family), 2, 20, 1000);
        assert!(held.end() >= 20);
        let [_, second, _] = &agents;
        assert!(second.fate(Fate::Tunnelled) + second.fate(Fate::Unknown) > 100);
        for agent in &agents {
            agent.dropped_nothing();
        }
    }
}

#[test]
fn zz_debug() {
    let scene = Nat::one_arm();
    let agent = scene.agent();
    let _servers = servers(&scene.backends, V4, 1);
    let dump = std::env::var("LB_DUMP").is_ok();
    let mut child = dump.then(|| {
        scene._networks[0]
            .switch
            .enter(|| {
                std::process::Command::new("tcpdump")
                    .args(["-eni", "br0", "-c", "30"])
                    .spawn()
                    .unwrap()
            })
            .unwrap()
    });
    std::thread::sleep(std::time::Duration::from_secs(1));
    let told = Talk::begin(&scene.client, to(V4)).map(|_| ());
    println!("{told:?}");
    let fates = agent.figures.fates().unwrap();
    println!(
        "{:?}",
        fates
            .packets
            .iter()
            .filter(|it| *it.1 > 0)
            .collect::<Vec<_>>()
    );
    println!(
        "{:?}",
        agent
            .flows
            .list(&agent.publisher, &lb_packet::Filter::default(), 5)
            .unwrap()
    );
    println!("{}", scene.balancer.ip("neigh show\nroute show\n").unwrap());
    println!("{}", scene.client.ip("neigh show\nroute show\n").unwrap());
    if let Some(c) = &mut child {
        let _ = c.kill();
    }
    let _ = scene.balancer.enter(|| { let o = std::process::Command::new("sh").args(["-c", "cat /proc/net/snmp | grep -A1 '^Ip:'; cat /proc/net/netstat | grep -A0 IpExt; ip -s link"]).output().unwrap(); println!("{}", String::from_utf8_lossy(&o.stdout)); });
}
