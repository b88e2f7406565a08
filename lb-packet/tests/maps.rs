//! Real maps, without packets: what is published is there and is taken over, and flows are listed, flushed and collected.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use aya::maps::{HashMap, MapData};
use lb_common::{
    Be16, Be32,
    packet::{
        EndpointKey, Flow, FlowKey4, FlowKey6, Hop, Reply, ReplyKey4, ReplyKey6, Settings, Way,
        packet_map as map, seen,
    },
};
use lb_packet::{
    Answer, Census, Collected, Config, Desired, Error, Explainer, Filter, Flows, Limits, Member,
    Pressure, Programs, Publisher, Question, Refused, Report, Wanted,
};
use lb_testkit::{Netns, eventually};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT6: &str = "2001:db8::7";
const BACKEND6: &str = "2001:db8:1::a";

fn config(bpffs: &Path, flows: u32) -> Config {
    Config {
        bpffs: bpffs.to_owned(),
        pool: "198.18.0.0/16".parse().unwrap(),
        pool6: Some("fd00:c612::/112".parse().unwrap()),
        own: Ipv4Addr::new(198, 18, 0, 1),
        source4: Some(OWN),
        source6: Some("2001:db8::1".parse().unwrap()),
        ports: 20_000..=29_999,
        limits: Limits {
            services: 8,
            backends: 32,
            flows,
        },
    }
}

/// Runs `job` with a bpffs that nobody else has.
fn with_pins<T: Send>(job: impl FnOnce(&Path) -> T + Send) -> T {
    let netns = Netns::new("maps").unwrap();
    let folder = tempfile::Builder::new()
        .prefix("lb-test-")
        .tempdir()
        .unwrap();
    netns.mount_bpffs(folder.path()).unwrap();
    netns.enter(|| job(folder.path())).unwrap()
}

fn key(scope: u8) -> EndpointKey {
    EndpointKey {
        vip: Be32::from_host(VIP.into()),
        port: Be16::from_host(80),
        proto: 6,
        scope,
    }
}

fn desired(backends: &[IpAddr]) -> Desired {
    let members: Arc<[Member]> = backends
        .iter()
        .map(|&ip| Member {
            address: SocketAddr::new(ip, 8080),
            weight: 1,
        })
        .collect();
    let wanted = Wanted {
        members,
        tunnel: false,
        trace: false,
    };
    Desired {
        endpoints: [0, 1].map(|scope| (key(scope), wanted.clone())).into(),
        vips: BTreeSet::from([VIP]),
        settings: Settings {
            udp_seconds: 30,
            ..Settings::default()
        },
        ..Desired::default()
    }
}

fn both() -> Desired {
    desired(&[BACKEND.into(), BACKEND6.parse().unwrap()])
}

fn now() -> u32 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    u32::try_from(clock.now().unwrap().tv_sec()).unwrap()
}

#[test]
fn what_was_published_is_taken_over_and_nothing_is_written_again() {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        assert!(programs.has_new_maps());
        let mut publisher = Publisher::open(&mut programs).unwrap();
        let report = publisher.apply(&both()).unwrap();
        assert_eq!((report.published, report.placed), (2, 2));
        let before: Vec<_> = publisher.targets().collect();
        let endpoints: Vec<_> = publisher.endpoints().collect();
        drop((programs, publisher));

        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        assert!(!programs.has_new_maps());
        assert_eq!(programs.problems(), [""; 0]);
        let mut publisher = Publisher::open(&mut programs).unwrap();
        assert_eq!(publisher.targets().collect::<Vec<_>>(), before);
        assert_eq!(publisher.endpoints().collect::<Vec<_>>(), endpoints);
        let report = publisher.apply(&both()).unwrap();
        assert_eq!(report, Report::default());
        assert_eq!(publisher.endpoints().collect::<Vec<_>>(), endpoints);
        // Another one comes beside those that stay who they are.
        let more = desired(&[
            BACKEND.into(),
            Ipv4Addr::new(10, 1, 0, 11).into(),
            BACKEND6.parse().unwrap(),
        ]);
        let report = publisher.apply(&more).unwrap();
        assert_eq!((report.published, report.placed, report.freed), (1, 1, 0));
        for target in before {
            assert!(publisher.targets().any(|it| it == target), "{target:?}");
        }
    });
}

#[test]
fn a_full_map_of_hosts_is_told_and_keeps_nothing_else_from_being_told() {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        let mut publisher = Publisher::open(&mut programs).unwrap();
        let hosts = (0..5000_u16).map(|host| {
            let [high, low] = host.to_be_bytes();
            IpAddr::from([10, 9, high, low])
        });
        let mut desired = Desired {
            hosts: hosts.collect(),
            ..both()
        };
        for published in [2, 0] {
            let report = publisher.apply(&desired).unwrap();
            assert_eq!(report.published, published);
            let without: Vec<_> = desired.hosts.iter().skip(4096).copied().collect();
            let refused: Vec<_> = without.into_iter().map(Refused::Host).collect();
            assert_eq!(report.refused, refused);
            assert!(report.again.is_some(), "there may be room later");
        }
        desired.hosts.clear();
        assert_eq!(publisher.apply(&desired).unwrap(), Report::default());
        assert_eq!(publisher.apply(&desired).unwrap(), Report::default());
    });
}

#[test]
fn other_limits_wait_and_other_maps_are_refused() {
    with_pins(|pins| {
        drop(Programs::load(&config(pins, 100)).unwrap());
        let programs = Programs::load(&config(pins, 200)).unwrap();
        assert_eq!(programs.limits().flows, 100);
        assert!(
            programs.problems()[0].contains("has room for 100 flows, not for 200"),
            "{:?}",
            programs.problems()
        );
        drop(programs);
        // Somebody else's map in the place of ours.
        let path = lb_packet::pin_root(pins).join("v1/VIPS");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(path.with_file_name("FATES"), &path).unwrap();
        let refused = Programs::load(&config(pins, 100)).err().unwrap();
        assert!(
            matches!(&refused, Error::Layout { path: it } if *it == path),
            "{refused}"
        );
        std::fs::create_dir(lb_packet::pin_root(pins).join("v77")).unwrap();
        let refused = Programs::load(&config(pins, 100)).err().unwrap();
        assert!(
            matches!(refused, Error::Version { version: 77, .. }),
            "{refused}"
        );
    });
}

#[test]
fn a_wrong_configuration_is_refused_with_a_remedy() {
    with_pins(|pins| {
        let wrong = |change: fn(&mut Config), word: &str| {
            let mut config = config(pins, 100);
            change(&mut config);
            let refused = Programs::load(&config).err().unwrap().to_string();
            assert!(refused.contains(word), "{refused}");
        };
        wrong(|it| it.limits.services = 0, "endpoints");
        wrong(|it| it.limits.backends = 65_536, "65535 backends");
        wrong(|it| it.limits.flows = 0, "flow");
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is wrong")]
        wrong(|it| it.ports = 5..=4, "no range of ports");
        wrong(|it| it.ports = 0..=4, "at least 1");
        wrong(|it| it.own = Ipv4Addr::new(10, 0, 0, 1), "not in the pool");
        wrong(
            |it| it.source4 = Some(Ipv4Addr::new(198, 18, 0, 9)),
            "source",
        );
    });
}

#[test]
fn a_device_that_is_not_there_is_told() {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        let refused = programs
            .attach("lb-none", lb_packet::Role::Client)
            .err()
            .unwrap();
        assert!(
            refused
                .to_string()
                .contains("there is no network device lb-none"),
            "{refused}"
        );
    });
}

/// Maps with entries that a test writes as the programs would.
struct World {
    publisher: Publisher,
    flows: Flows,
    flows4: HashMap<MapData, FlowKey4, Flow>,
    flows6: HashMap<MapData, FlowKey6, Flow>,
    replies4: HashMap<MapData, ReplyKey4, Reply>,
    replies6: HashMap<MapData, ReplyKey6, Reply>,
    explainer: Explainer,
}

fn world<T: Send>(room: u32, job: impl FnOnce(&mut World) -> T + Send) -> T {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, room)).unwrap();
        let mut publisher = Publisher::open(&mut programs).unwrap();
        publisher.apply(&both()).unwrap();
        let (flows, explainer) = (
            Flows::open(&mut programs).unwrap(),
            Explainer::open(&mut programs).unwrap(),
        );
        let ebpf = programs.ebpf();
        let mut world = World {
            publisher,
            flows,
            explainer,
            flows4: ebpf.take_map(map::FLOWS4).unwrap().try_into().unwrap(),
            flows6: ebpf.take_map(map::FLOWS6).unwrap().try_into().unwrap(),
            replies4: ebpf.take_map(map::REPLIES4).unwrap().try_into().unwrap(),
            replies6: ebpf.take_map(map::REPLIES6).unwrap().try_into().unwrap(),
        };
        job(&mut world)
    })
}

/// What both sides of a flow have shown, and how long ago.
#[derive(Clone, Copy)]
struct State {
    client: Option<(u8, u32)>,
    backend: Option<(u8, u32)>,
}

const UP: u8 = seen::SYN | seen::ACK;

impl World {
    /// An IPv4 flow of the client `client`.
    fn add(&mut self, client: u32, state: State) {
        let address = Ipv4Addr::from(0x0a4d_0000 + (client >> 12));
        let client_port = Be16::from_host(u16::try_from(1 + (client & 0xfff)).unwrap());
        let local_port = Be16::from_host(20_000 + u16::try_from(client & 0xfff).unwrap());
        // Full NAT by many sources: one has not so many ports.
        let local = Ipv4Addr::from(u32::from(OWN) + (client >> 12));
        self.add_as(address, client_port, local, local_port, Way::Full, state);
    }

    fn add_as(
        &mut self,
        client: Ipv4Addr,
        client_port: Be16,
        local: Ipv4Addr,
        local_port: Be16,
        way: Way,
        state: State,
    ) {
        let (_, index, target) = self
            .publisher
            .targets()
            .find(|it| it.0.ip() == IpAddr::V4(BACKEND))
            .unwrap();
        let raw = |ip: Ipv4Addr| Be32::from_host(ip.into());
        let (vip, vip_port) = (raw(VIP), Be16::from_host(80));
        if let Some((seen, ago)) = state.client {
            let flow = Flow {
                backend: index,
                generation: target.generation,
                service: 1,
                last_seconds: now() - ago,
                local_port,
                way: way as u8,
                seen,
                start_seconds: now() - ago - 5,
            };
            let key = FlowKey4::new(raw(client), client_port, vip, vip_port, 6);
            self.flows4.insert(key, flow, 0).unwrap();
        }
        if let Some((seen, ago)) = state.backend {
            let reply = Reply {
                client: [0, 0, 0xffff_u32.to_be(), u32::from(client).to_be()],
                vip,
                vip_port,
                client_port,
                backend: index,
                generation: target.generation,
                service: 1,
                last_seconds: now() - ago,
                way: way as u8,
                seen,
                // As the programs write it when they answer a client.
                hop: Hop {
                    until_seconds: now() + 1,
                    device: 3,
                    ..Hop::default()
                },
                ..Reply::default()
            };
            let key = ReplyKey4::new(
                raw(BACKEND),
                Be16::from_host(8080),
                raw(local),
                local_port,
                6,
            );
            self.replies4.insert(key, reply, 0).unwrap();
        }
    }

    fn collect(&mut self) -> Collected {
        self.flows
            .collect(&self.publisher, &Collected::default())
            .unwrap()
    }
}

fn state(client: Option<(u8, u32)>, backend: Option<(u8, u32)>) -> State {
    State { client, backend }
}

#[test]
fn a_flow_is_listed_with_both_its_sides_in_either_family() {
    world(100, |world| {
        world.add(0, state(Some((UP, 3)), Some((UP, 2))));
        let words = |ip: &str| {
            let octets = ip.parse::<std::net::Ipv6Addr>().unwrap().octets();
            [0, 4, 8, 12].map(|at| u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap()))
        };
        let (_, index, target) = world.publisher.targets().find(|it| it.0.is_ipv6()).unwrap();
        let port = Be16::from_host;
        let vip = Be32::from_host(VIP.into());
        let flow = Flow {
            backend: index,
            generation: target.generation,
            last_seconds: now() - 1,
            local_port: port(777),
            seen: seen::SYN,
            start_seconds: now() - 1,
            ..Flow::default()
        };
        world
            .flows6
            .insert(
                FlowKey6::new(words(CLIENT6), port(777), vip, port(80), 6),
                flow,
                0,
            )
            .unwrap();
        let reply = Reply {
            client: words(CLIENT6),
            vip,
            vip_port: port(80),
            client_port: port(777),
            backend: index,
            generation: target.generation,
            last_seconds: now() - 1,
            ..Reply::default()
        };
        let key6 = ReplyKey6::new(words(BACKEND6), port(8080), words(CLIENT6), port(777), 6);
        world.replies6.insert(key6, reply, 0).unwrap();

        let (found, more) = world
            .flows
            .list(&world.publisher, &Filter::default(), 10)
            .unwrap();
        assert_eq!((found.len(), more), (2, 0));
        let four = &found[0];
        assert_eq!(four.client, "10.77.0.0:1".parse().unwrap());
        assert_eq!(four.vip, "198.18.0.10:80".parse().unwrap());
        assert_eq!(four.backend, Some(SocketAddr::new(BACKEND.into(), 8080)));
        assert_eq!((four.way, four.local_port), (Some(Way::Full), 20_000));
        let sides = [four.from_client, four.from_backend].map(|side| side.unwrap());
        assert!(
            sides[0].seen == UP && (3..6).contains(&sides[0].idle_seconds),
            "{four:?}"
        );
        assert!(
            sides[1].seen == UP && (2..5).contains(&sides[1].idle_seconds),
            "{four:?}"
        );
        let six = &found[1];
        assert_eq!(six.client, format!("[{CLIENT6}]:777").parse().unwrap());
        assert_eq!(six.vip, "[fd00:c612::a]:80".parse().unwrap());
        assert_eq!(
            six.backend,
            Some(SocketAddr::new(BACKEND6.parse().unwrap(), 8080))
        );
        assert_eq!(six.way, Some(Way::Destination));
        assert!(six.from_client.is_some() && six.from_backend.is_some());

        // By the VIP in either form, by the backend, and by the client.
        for (filter, expect) in [
            (
                Filter {
                    vip: Some("fd00:c612::a".parse().unwrap()),
                    ..Filter::default()
                },
                2,
            ),
            (
                Filter {
                    vip: Some(VIP.into()),
                    vip_port: Some(80),
                    proto: Some(6),
                    ..Filter::default()
                },
                2,
            ),
            (
                Filter {
                    backend: six.backend,
                    ..Filter::default()
                },
                1,
            ),
            (
                Filter {
                    client: Some(CLIENT6.parse().unwrap()),
                    client_port: Some(777),
                    ..Filter::default()
                },
                1,
            ),
            (
                Filter {
                    vip_port: Some(81),
                    ..Filter::default()
                },
                0,
            ),
            (
                Filter {
                    proto: Some(17),
                    ..Filter::default()
                },
                0,
            ),
        ] {
            let (found, _) = world.flows.list(&world.publisher, &filter, 10).unwrap();
            assert_eq!(found.len(), expect, "{filter:?}");
        }
        let (one, more) = world
            .flows
            .list(&world.publisher, &Filter::default(), 1)
            .unwrap();
        assert_eq!((one.len(), more), (1, 1));
        let six = Filter {
            backend: six.backend,
            ..Filter::default()
        };
        assert_eq!(world.flows.flush(&world.publisher, &six).unwrap(), 1);
        assert_eq!(
            world.flows6.keys().count() + world.replies6.keys().count(),
            0
        );
        assert_eq!(
            world.flows4.keys().count() + world.replies4.keys().count(),
            2
        );
    });
}

#[test]
fn what_is_over_is_collected_and_nothing_else() {
    let old = |seen| Some((seen, 61));
    let fin = UP | seen::FIN;
    let cases = [
        (
            "a SYN of a minute ago",
            state(old(seen::SYN), old(0)),
            false,
        ),
        (
            "a SYN of just now",
            state(Some((seen::SYN, 5)), Some((0, 5))),
            true,
        ),
        ("an idle connection", state(old(UP), old(UP)), true),
        (
            "one that has been idle for hours",
            state(Some((UP, 8100)), Some((UP, 8100))),
            false,
        ),
        (
            "one of which only the client spoke of late",
            state(Some((UP, 5)), Some((UP, 8100))),
            true,
        ),
        (
            "one of which only the backend spoke of late",
            state(Some((UP, 8100)), Some((UP, 5))),
            true,
        ),
        (
            "a closed one",
            state(Some((fin, 11)), Some((fin, 11))),
            false,
        ),
        ("half a closed one", state(old(fin), old(UP)), true),
        (
            "one that was broken off",
            state(Some((UP | seen::RST, 11)), Some((UP, 11))),
            false,
        ),
        (
            "one whose client's side was evicted",
            state(None, old(UP)),
            true,
        ),
        (
            "the rest of a handshake whose client's side was evicted",
            state(None, old(seen::SYN)),
            false,
        ),
    ];
    world(10_000, |world| {
        for (at, (.., state, _)) in (0..).zip(&cases) {
            world.add(at, *state);
        }
        // Clients that ended theirs are met by the first, and known to the second.
        let first = world.collect().v4;
        let collected = world.collect().v4;
        for (at, (what, state, stays)) in (0..).zip(&cases) {
            let port = Be16::from_host(20_000 + at);
            let reply = ReplyKey4::new(
                Be32::from_host(BACKEND.into()),
                Be16::from_host(8080),
                Be32::from_host(OWN.into()),
                port,
                6,
            );
            assert_eq!(
                world.replies4.get(&reply, 0).is_ok(),
                *stays,
                "{what}: answers"
            );
            let client = Be32::from_host(0x0a4d_0000);
            let flow = FlowKey4::new(
                client,
                Be16::from_host(1 + at),
                Be32::from_host(VIP.into()),
                Be16::from_host(80),
                6,
            );
            assert_eq!(
                world.flows4.get(&flow, 0).is_ok(),
                *stays && state.client.is_some(),
                "{what}: the client's side"
            );
        }
        assert_eq!((collected.replies, collected.flows), (6, 5));
        assert_eq!(first.removed + collected.removed, 9);
        assert_eq!(collected.pressure(), Pressure::Low);
        // Whoever served them is gone: so are they.
        eventually(Duration::from_secs(10), || {
            world.publisher.apply(&desired(&[])).unwrap();
            match world.publisher.targets().count() {
                0 => Ok(()),
                left => Err(format!("{left} are still kept")),
            }
        })
        .unwrap();
        assert_eq!(world.collect().v4.removed, 11);
        assert_eq!(
            world.flows4.keys().count() + world.replies4.keys().count(),
            0
        );
    });
}

#[test]
fn flows_are_counted_by_where_the_table_leads_them_now() {
    world(100, |world| {
        let (up, syn) = (Some((UP, 3)), Some((seen::SYN, 3)));
        let (adopted, over) = (Some((seen::ACK, 3)), Some((UP | seen::RST, 3)));
        let port = Be16::from_host;
        for (client_port, way, state) in [
            (1, Way::Full, state(up, up)),
            (2, Way::Destination, state(up, up)),
            (3, Way::Destination, state(adopted, up)),
            // In a tunnel nobody here sees the answers.
            (4, Way::Tunnel, state(up, None)),
            // Not yet, and no more.
            (5, Way::Destination, state(syn, up)),
            (6, Way::Destination, state(over, up)),
        ] {
            let (client, local) = (Ipv4Addr::new(10, 77, 0, 1), OWN);
            let local_port = port(20_000 + client_port);
            world.add_as(client, port(client_port), local, local_port, way, state);
        }
        let census = |world: &World| world.flows.census(&world.publisher).unwrap();
        // Another host has a port of its own for each of them, and its backends know none of it.
        let expect = Census {
            flows: 4,
            elsewhere: 0,
            bound: 4,
            follow: 0,
            adopted: 1,
        };
        assert_eq!(census(world), BTreeMap::from([(key(0), expect)]));
        // With tunnels only that which has a port of this host keeps to it.
        let in_tunnels = |mut desired: Desired| {
            let endpoints = desired.endpoints.values_mut();
            endpoints.for_each(|it| it.tunnel = true);
            desired
        };
        world.publisher.apply(&in_tunnels(both())).unwrap();
        let expect = Census {
            bound: 1,
            follow: 3,
            ..expect
        };
        assert_eq!(census(world), BTreeMap::from([(key(0), expect)]));
        // Another one takes the new ones, and these stay.
        let mut others = in_tunnels(desired(&[Ipv4Addr::new(10, 1, 0, 11).into()]));
        others.kept.insert(SocketAddr::new(BACKEND.into(), 8080));
        world.publisher.apply(&others).unwrap();
        let moved = Census {
            elsewhere: 4,
            follow: 0,
            ..expect
        };
        assert_eq!(census(world), BTreeMap::from([(key(0), moved)]));
        // The one of before is gone, and so are they.
        others.kept.clear();
        eventually(Duration::from_secs(10), || {
            world.publisher.apply(&others).unwrap();
            match world.publisher.targets().any(|it| it.0.ip() == BACKEND) {
                false => Ok(()),
                true => Err("it is still kept".to_owned()),
            }
        })
        .unwrap();
        assert_eq!(census(world), BTreeMap::new());
        // One was over before, by its client's word, and another one's handshake was not done.
        assert_eq!(world.collect().v4.ended, 4);
    });
}

#[test]
fn under_pressure_handshakes_that_nobody_ended_go_sooner_and_connections_stay() {
    world(1000, |world| {
        for client in 0..900 {
            let syn = Some((seen::SYN, 8));
            let up = Some((UP, 100));
            world.add(
                client,
                if client < 100 {
                    state(up, up)
                } else {
                    state(syn, syn)
                },
            );
        }
        let first = world.collect();
        assert_eq!((first.v4.replies, first.v4.removed), (900, 0));
        assert_eq!(first.v4.pressure(), Pressure::Full);
        let second = world.flows.collect(&world.publisher, &first).unwrap();
        assert_eq!((second.v4.replies, second.v4.flows), (100, 100));
        assert_eq!(second.v4.pressure(), Pressure::Low);
    });
}

#[test]
fn many_flows_are_walked_in_batches_and_each_is_met_once() {
    world(100_000, |world| {
        for client in 0..50_000 {
            let ago = if client % 2 == 0 { 8100 } else { 1 };
            let up = Some((UP, ago));
            // The client's side of half of them is not there.
            world.add(client, state(up.filter(|_| client % 4 < 2), up));
        }
        let (found, more) = world
            .flows
            .list(&world.publisher, &Filter::default(), 60_000)
            .unwrap();
        assert_eq!((found.len(), more), (50_000, 0));
        let collected = world.collect().v4;
        // Where the client's side is there, another source than ours was used for most: their own side decides.
        assert_eq!(collected.replies, 25_000);
        assert_eq!(collected.flows, 12_500);
        assert_eq!(collected.removed, 37_500);
    });
}

#[test]
fn it_is_explained_where_a_packet_goes() {
    world(100, |world| {
        let mut question = Question {
            proto: 6,
            client: "10.77.0.0:1".parse().unwrap(),
            vip: VIP,
            vip_port: 80,
            local: false,
        };
        let backend = SocketAddr::new(BACKEND.into(), 8080);
        let ask = |world: &World, question: &Question| {
            world.explainer.explain(&world.flows, question).unwrap()
        };
        let answer = ask(world, &question);
        assert!(
            matches!(answer, Answer::Table { backend: it, local: false, tunnel: false, .. } if it == backend),
            "{answer:?}"
        );
        world.add(0, state(Some((UP, 3)), Some((UP, 3))));
        let answer = ask(world, &question);
        assert!(
            matches!(answer, Answer::Flow { backend: it, way: Some(Way::Full), local_port: 20_000, .. } if it == backend),
            "{answer:?}"
        );
        question.local = true;
        question.client.set_port(2);
        assert_eq!(ask(world, &question), Answer::NoEndpoint);
        question.local = false;
        world.publisher.apply(&desired(&[])).unwrap();
        assert_eq!(ask(world, &question), Answer::NoBackend { key: key(0) });
        question.client = format!("[{CLIENT6}]:5").parse().unwrap();
        assert_eq!(ask(world, &question), Answer::NoBackend { key: key(1) });
    });
}
