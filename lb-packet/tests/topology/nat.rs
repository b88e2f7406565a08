//! Full NAT: backends of other hosts, whose answers come back to the balancer.

use std::{net::SocketAddr, time::Duration};

use lb_common::packet::Fate;
use lb_packet::{How, Role};
use lb_testkit::{Netns, eventually};

use crate::{
    agent::{Agent, Pins},
    card::{CARD, VIP, leaf, members, servers, to},
    load::{Datagrams, Held, Talk, ask, load},
    net::{Lan, V4, V6, ip, narrow, route_vips, router, vip},
};

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

    fn is_balanced(&self) {
        let agent = self.agent();
        for family in [V4, V6] {
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
}

#[test]
fn one_arm_nat_balances() {
    Nat::one_arm().is_balanced();
}

#[test]
fn nat_between_two_networks_balances() {
    Nat::two_arms().is_balanced();
}

#[test]
fn nat_outlives_the_agent_and_goes_on_with_the_next_one() {
    let scene = Nat::one_arm();
    for family in [V4, V6] {
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
    let scene = Nat::one_arm();
    let mut agent = scene.agent();
    for family in [V4, V6] {
        agent.serve(VIP, &members(1, &[(10, 1), (11, 1)]), false);
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
    let mut keeping = |devices: &[&str]| {
        let detach = || {
            let index = |it: &&str| nix::net::if_::if_nametoindex(*it).unwrap();
            let kept = devices.iter().map(index).collect();
            agent.programs.detach_others(&kept)
        };
        scene.balancer.enter(detach).unwrap().unwrap();
    };
    keeping(&["eth0"]);
    load(&scene.client, to(V4), 1, 3, 1000);
    keeping(&[]);
    assert!(Talk::begin(&scene.client, to(V4)).is_err());
}

#[test]
fn datagrams_are_balanced_through_nat() {
    let scene = Nat::two_arms();
    let agent = scene.agent();
    for family in [V4, V6] {
        let numbered = scene.backends.iter().zip(10..);
        let _servers: Vec<Datagrams> = numbered
            .map(|(backend, number)| {
                Datagrams::start(
                    backend,
                    SocketAddr::new(ip(family, 1, number), 8080),
                    number,
                )
            })
            .collect();
        let to = SocketAddr::new(vip(family, VIP), 53);
        let answers: Vec<u8> = (0..100)
            .map(|_| ask(&scene.client, to, b"who are you").unwrap())
            .collect();
        for name in [10, 11] {
            let count = answers.iter().filter(|&&answer| answer == name).count();
            assert!(count > 20, "{name}: {count} of 100");
        }
        agent.dropped_nothing();
    }
}

#[test]
fn flows_of_a_backend_that_is_gone_are_reset_through_nat_and_others_go_on() {
    let scene = Nat::one_arm();
    let mut agent = scene.agent();
    for family in [V4, V6] {
        agent.serve(VIP, &members(1, &[(10, 1), (11, 1)]), false);
        let _servers = servers(&scene.backends, family, 1);
        let mut talks: Vec<Talk> = (0..20)
            .map(|_| Talk::begin(&scene.client, to(family)).unwrap())
            .collect();
        agent.serve(VIP, &members(1, &[(10, 1)]), false);
        eventually(Duration::from_secs(10), || {
            match agent.publisher.apply(&agent.desired).unwrap().freed {
                0 => Err("still kept"),
                _ => Ok(()),
            }
        })
        .unwrap();
        for talk in &mut talks {
            match (talk.server, talk.say(1000)) {
                (10, told) => told.unwrap(),
                (_, told) => assert_eq!(
                    told.unwrap_err().kind(),
                    std::io::ErrorKind::ConnectionReset
                ),
            }
        }
        assert!(agent.fate(Fate::Reset) > 0);
    }
}

#[test]
fn a_client_learns_of_a_narrow_link_behind_nat() {
    let scene = Nat::two_arms();
    let agent = scene.agent();
    narrow(&scene.balancer, "eth1");
    for family in [V4, V6] {
        let before = agent.fate(Fate::TooBig);
        let _servers = servers(&scene.backends, family, 1);
        let mut talk = Talk::begin(&scene.client, to(family)).unwrap();
        talk.say(1_000_000).unwrap();
        talk.end().unwrap();
        assert!(
            agent.fate(Fate::TooBig) > before,
            "{:?}",
            agent.figures.fates().unwrap()
        );
        agent.dropped_nothing();
    }
}
