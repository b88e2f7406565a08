//! A client behind a device of this host, whose connects no hook of ours sees: a virtual machine, or a sandbox with a
//! network stack of its own. Offloads are on.

use std::{net::SocketAddr, time::Duration};

use lb_common::packet::{Fate, Way};
use lb_packet::{Answer, Filter, How, Question, Role, XdpMode};
use lb_testkit::{Netns, eventually};

use crate::{
    agent::{Agent, Pins, member},
    load::{Datagrams, Held, Server, Talk, ask, load},
    net::{Family, Lan, V4, V6, ip, narrow, route, router, vip},
};

/// The host, the client in network 77, and two backends in network 1.
pub(crate) struct Scene {
    pub(crate) host: Netns,
    pub(crate) client: Netns,
    pub(crate) backends: [Netns; 2],
    networks: Vec<Lan>,
    pins: Pins,
}

const DEVICES: [(&str, Role); 1] = [("vm0", Role::Client)];

impl Scene {
    fn new() -> Self {
        let mut scene = Self::without_client();
        let network = Lan::plain(77);
        network.plug(&scene.host, "vm0", 1);
        network.plug(&scene.client, "eth0", 2);
        scene.networks.push(network);
        scene.leads_to_client();
        scene
    }

    /// The device of the host that leads to the client, and that of the client, are still to be made.
    pub(crate) fn without_client() -> Self {
        let (host, client) = (router("host"), Netns::new("client").unwrap());
        let backends = [(); 2].map(|()| Netns::new("backend").unwrap());
        let network = Lan::plain(1);
        network.plug(&host, "eth0", 1);
        for (backend, number) in backends.iter().zip(10..) {
            network.plug(backend, "eth0", number);
            route(backend, 77, 1, 1);
        }
        let pins = Pins::new(&host);
        Self {
            host,
            client,
            backends,
            networks: vec![network],
            pins,
        }
    }

    /// The client sends all by the host.
    pub(crate) fn leads_to_client(&self) {
        self.client
            .ip(&format!(
                "route add default via {}\nroute add default via {}\n",
                ip(V4, 77, 1),
                ip(V6, 77, 1)
            ))
            .unwrap();
    }

    pub(crate) fn agent(&self) -> Agent {
        let mut agent = Agent::start(&self.host, &self.pins, None, &DEVICES);
        agent.serve(10, &both(), false);
        agent
    }

    pub(crate) fn servers(&self, family: Family) -> Vec<Server> {
        let numbered = self.backends.iter().zip(10..);
        numbered
            .map(|(backend, number)| {
                Server::start(
                    backend,
                    SocketAddr::new(ip(family, 1, number), 8080),
                    number,
                )
            })
            .collect()
    }
}

/// Both backends, in both families.
pub(crate) fn both() -> Vec<lb_packet::Member> {
    let of = |family| [10, 11].map(|host| member(ip(family, 1, host)));
    [V4, V6].into_iter().flat_map(of).collect()
}

pub(crate) fn to(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family, 10), 80)
}

/// Whether both backends serve the client of a scene.
pub(crate) fn is_balanced(scene: &Scene, family: Family) {
    let agent = scene.agent();
    let servers = scene.servers(family);
    assert!(
        agent.ways().values().all(|how| *how == How::Tcx),
        "{:?}",
        agent.ways()
    );
    let counts = load(&scene.client, to(family), 4, 50, 100_000);
    assert_eq!(counts[10] + counts[11], 200);
    assert!(
        counts[10] > 50 && counts[11] > 50,
        "both serve: {} and {}",
        counts[10],
        counts[11]
    );
    let client = ip(family, 77, 2);
    for server in &servers {
        assert!(
            server.peers().iter().all(|peer| *peer == client),
            "the client stays who it is"
        );
    }
    agent.dropped_nothing();
}

#[test]
fn a_client_behind_a_device_is_balanced() {
    is_balanced(&Scene::new(), V4);
}

#[test]
fn a_client_behind_a_device_is_balanced_by_ipv6() {
    is_balanced(&Scene::new(), V6);
}

#[test]
fn much_at_once_goes_through_with_offloads_on() {
    let scene = Scene::new();
    let _agent = scene.agent();
    for family in [V4, V6] {
        let _servers = scene.servers(family);
        let mut talk = Talk::begin(&scene.client, to(family)).unwrap();
        talk.say(50_000_000).unwrap();
        talk.end().unwrap();
    }
}

/// Whether the client of a scene reaches itself.
pub(crate) fn reaches_itself(scene: &Scene) {
    let mut agent = scene.agent();
    for family in [V4, V6] {
        let own = ip(family, 77, 2);
        agent.serve(16, &[member(own)], false);
        let server = Server::start(&scene.client, SocketAddr::new(own, 8080), 77);
        let to = SocketAddr::new(vip(family, 16), 80);
        let counts = load(&scene.client, to, 2, 10, 100_000);
        assert_eq!(counts[77], 20);
        let reserved: std::net::IpAddr = match family {
            V4 => lb_packet::HAIRPIN4.into(),
            V6 => lb_packet::HAIRPIN6.into(),
        };
        assert!(
            server.peers().iter().all(|peer| *peer == reserved),
            "{:?}",
            server.peers()
        );
        agent.dropped_nothing();
    }
}

#[test]
fn a_client_that_is_its_own_backend_reaches_itself() {
    reaches_itself(&Scene::new());
}

/// Whether datagrams of the client of a scene are balanced.
pub(crate) fn datagrams_are_balanced(scene: &Scene) {
    let agent = scene.agent();
    for family in [V4, V6] {
        let numbered = scene.backends.iter().zip(10..);
        let servers: Vec<Datagrams> = numbered
            .map(|(backend, number)| {
                Datagrams::start(
                    backend,
                    SocketAddr::new(ip(family, 1, number), 8080),
                    number,
                )
            })
            .collect();
        let to = SocketAddr::new(vip(family, 10), 53);
        let answers: Vec<u8> = (0..100)
            .map(|_| ask(&scene.client, to, b"who are you").unwrap())
            .collect();
        for server in &servers {
            let name = server.address().ip();
            let count = answers
                .iter()
                .filter(|&&answer| ip(family, 1, answer) == name)
                .count();
            assert!(count > 20, "{name}: {count} of 100");
        }
        agent.dropped_nothing();
    }
}

#[test]
fn datagrams_are_balanced_and_those_of_one_socket_stay_together() {
    datagrams_are_balanced(&Scene::new());
}

/// Whether the client of a scene is told of a narrow link.
pub(crate) fn learns_of_a_narrow_link(scene: &Scene) {
    let agent = scene.agent();
    narrow(&scene.host, "eth0");
    for family in [V4, V6] {
        let before = agent.fate(Fate::Error);
        let _servers = scene.servers(family);
        // Larger packets than the link takes are sent until the client is told; it would not get on otherwise.
        let mut talk = Talk::begin(&scene.client, to(family)).unwrap();
        talk.say(5_000_000).unwrap();
        talk.end().unwrap();
        assert!(
            agent.fate(Fate::Error) > before,
            "{:?}",
            agent.figures.fates().unwrap()
        );
        agent.dropped_nothing();
    }
}

#[test]
fn a_client_learns_of_a_narrow_link_to_the_backend() {
    learns_of_a_narrow_link(&Scene::new());
}

#[test]
fn flows_are_listed_explained_and_flushed() {
    for family in [V4, V6] {
        let scene = Scene::new();
        let mut agent = scene.agent();
        let _servers = scene.servers(family);
        let mut talk = Talk::begin(&scene.client, to(family)).unwrap();
        talk.say(1000).unwrap();
        let (found, more) = agent
            .flows
            .list(&agent.publisher, &Filter::default(), 10)
            .unwrap();
        assert_eq!((found.len(), more), (1, 0), "{found:?}");
        let flow = &found[0];
        assert_eq!(
            (flow.client.ip(), flow.vip),
            (ip(family, 77, 2), to(family))
        );
        assert_eq!(flow.way, Some(Way::Destination));
        let backend = SocketAddr::new(ip(family, 1, talk.server), 8080);
        assert_eq!(flow.backend, Some(backend));
        assert!(flow.from_client.is_some() && flow.from_backend.is_some());
        let mut question = Question {
            proto: 6,
            client: flow.client,
            vip: std::net::Ipv4Addr::new(198, 18, 0, 10),
            vip_port: 80,
            local: false,
        };
        let answer = agent.explainer.explain(&agent.flows, &question).unwrap();
        assert!(
            matches!(answer, Answer::Flow { backend: it, .. } if it == backend),
            "{answer:?}"
        );
        // What is foretold of a flow that is still to come comes true.
        let nothing = Filter {
            client: Some(ip(family, 9, 9)),
            ..Filter::default()
        };
        assert_eq!(agent.flows.flush(&agent.publisher, &nothing).unwrap(), 0);
        let all = Filter {
            vip: Some(vip(family, 10)),
            ..Filter::default()
        };
        assert_eq!(agent.flows.flush(&agent.publisher, &all).unwrap(), 1);
        // A late acknowledgement may write it down anew.
        eventually(Duration::from_secs(5), || {
            agent.flows.flush(&agent.publisher, &all).unwrap();
            match agent.explainer.explain(&agent.flows, &question).unwrap() {
                Answer::Table { backend: it, .. } if it == backend => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap();
        // It goes on where it went, and is written down again.
        talk.say(1000).unwrap();
        let (found, _) = agent
            .flows
            .list(&agent.publisher, &Filter::default(), 10)
            .unwrap();
        assert_eq!(found[0].backend, Some(backend));
        question.vip_port = 81;
        assert_eq!(
            agent.explainer.explain(&agent.flows, &question).unwrap(),
            Answer::NoEndpoint
        );
    }
}

#[test]
fn flows_outlive_the_agent_and_go_on_with_the_next_one() {
    let scene = Scene::new();
    for family in [V4, V6] {
        let agent = scene.agent();
        let _servers = scene.servers(family);
        let held = Held::begin(&scene.client, to(family), 20);
        // One goes without any notice, and while nobody is there, everything is as before.
        drop(agent);
        load(&scene.client, to(family), 2, 10, 1000);
        let mut agent = scene.agent();
        for attached in agent.programs.attached() {
            assert!(
                attached
                    .hooks
                    .iter()
                    .all(|hook| hook.adopted && hook.in_place() == Some(true)),
                "{attached:?}"
            );
        }
        assert_eq!(
            agent.publisher.apply(&agent.desired).unwrap(),
            lb_packet::Report::default()
        );
        load(&scene.client, to(family), 2, 10, 1000);
        assert!(held.end() >= 20);
        agent.dropped_nothing();
        assert_eq!(agent.fate(Fate::Reset), 0);
    }
}

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_new_ones() {
    let scene = Scene::new();
    let mut agent = scene.agent();
    for family in [V4, V6] {
        agent.serve(10, &both(), false);
        let _servers = scene.servers(family);
        let held = Held::begin(&scene.client, to(family), 20);
        let members: Vec<_> = [V4, V6]
            .into_iter()
            .flat_map(|family| {
                [(10, 1), (11, 0)].map(|(host, weight)| lb_packet::Member {
                    weight,
                    ..member(ip(family, 1, host))
                })
            })
            .collect();
        agent.serve(10, &members, false);
        let counts = load(&scene.client, to(family), 2, 30, 1000);
        assert_eq!((counts[10], counts[11]), (60, 0));
        assert!(held.end() >= 20);
        agent.dropped_nothing();
    }
}

#[test]
fn flows_of_a_backend_that_is_gone_are_reset_and_others_go_on() {
    let scene = Scene::new();
    let mut agent = scene.agent();
    for family in [V4, V6] {
        agent.serve(10, &both(), false);
        let _servers = scene.servers(family);
        let mut talks: Vec<Talk> = (0..20)
            .map(|_| Talk::begin(&scene.client, to(family)).unwrap())
            .collect();
        let gone: Vec<_> = [V4, V6].map(|family| member(ip(family, 1, 10))).into();
        agent.serve(10, &gone, false);
        // Once no program can still read the table before, they are freed.
        let freed = eventually(Duration::from_secs(10), || {
            let report = agent.publisher.apply(&agent.desired).unwrap();
            assert_eq!(report.again.is_none(), report.freed > 0, "{report:?}");
            if report.freed > 0 {
                Ok(report.freed)
            } else {
                Err("still kept")
            }
        });
        assert_eq!(freed.unwrap(), 2);
        for talk in &mut talks {
            match (talk.server, talk.say(1000)) {
                (10, told) => told.unwrap(),
                (_, told) => assert_eq!(
                    told.unwrap_err().kind(),
                    std::io::ErrorKind::ConnectionReset
                ),
            }
        }
    }
}

#[test]
fn below_kernel_6_6_the_qdisc_does_the_same() {
    let scene = Scene::new();
    for adopted in [false, true] {
        let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
        agent.programs.use_clsact();
        scene
            .host
            .enter(|| agent.programs.attach("vm0", Role::Client).map(drop))
            .unwrap()
            .unwrap();
        let hooks = &agent.programs.attached()[0].hooks;
        assert!(
            hooks
                .iter()
                .all(|hook| hook.how == How::Clsact && hook.adopted == adopted),
            "{hooks:?}"
        );
        agent.serve(10, &both(), false);
        for family in [V4, V6] {
            let _servers = scene.servers(family);
            load(&scene.client, to(family), 2, 10, 100_000);
        }
    }
    // Who comes to a newer kernel takes them away, and they are not run twice.
    let agent = scene.agent();
    assert!(agent.ways().values().all(|how| *how == How::Tcx));
    let filters = scene.host.enter(|| {
        std::process::Command::new("tc")
            .args(["filter", "show", "dev", "vm0", "ingress"])
            .output()
            .unwrap()
    });
    assert_eq!(String::from_utf8_lossy(&filters.unwrap().stdout), "");
    let _servers = scene.servers(V4);
    load(&scene.client, to(V4), 2, 10, 1000);
}

#[test]
fn a_qdisc_that_somebody_takes_away_is_missed_and_comes_again() {
    let scene = Scene::new();
    let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
    agent.programs.use_clsact();
    agent.serve(10, &both(), false);
    let attach = |agent: &mut Agent| agent.programs.attach("vm0", Role::Client).map(drop);
    let in_place = |agent: &Agent| {
        let hooks = agent.programs.attached()[0].hooks.iter();
        hooks.map(lb_packet::Hook::in_place).collect::<Vec<_>>()
    };
    let on_host = || {
        attach(&mut agent).unwrap();
        assert_eq!(in_place(&agent), [Some(true); 2]);
        let gone = std::process::Command::new("tc")
            .args(["qdisc", "del", "dev", "vm0", "clsact"])
            .status();
        assert!(gone.unwrap().success());
        assert_eq!(in_place(&agent), [Some(false); 2]);
        attach(&mut agent).unwrap();
        assert_eq!(in_place(&agent), [Some(true); 2]);
    };
    scene.host.enter(on_host).unwrap();
    let _servers = scene.servers(V4);
    load(&scene.client, to(V4), 2, 10, 1000);
}

#[test]
fn what_is_in_place_is_left_alone_when_the_rest_is_tried_again() {
    let scene = Scene::new();
    scene.host.ip("link add br9 type bridge\n").unwrap();
    let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
    let mut attach = |mode| {
        let role = Role::Card { mode };
        let attached = scene.host.enter(|| {
            let attached = agent.programs.attach("br9", role)?;
            let hooks = attached.hooks.iter();
            let hooks: Vec<_> = hooks.map(|it| (it.program, it.how, it.adopted)).collect();
            Ok::<_, lb_packet::Error>((hooks, attached.fallback.is_some()))
        });
        attached.unwrap()
    };
    for _ in 0..2 {
        attach(XdpMode::Native).expect_err("such a device has no driver that runs XDP");
    }
    // Taken over from itself they would be adopted ones.
    let tc = How::Tcx;
    let hooks = vec![
        ("tc_card_out", tc, false),
        ("tc_card_in", tc, false),
        ("xdp_card", How::Generic, false),
    ];
    for _ in 0..2 {
        assert_eq!(attach(XdpMode::Auto).unwrap(), (hooks.clone(), true));
    }
}
