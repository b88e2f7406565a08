//! A client behind a device of this host, whose connects no hook of ours sees: a virtual machine, or a sandbox with a
//! network stack of its own. Offloads are on.

use std::{net::SocketAddr, time::Duration};

use lb_common::packet::{Fate, Way};
use lb_packet::{Answer, Filter, How, Question};
use lb_testkit::eventually;

use crate::{
    agent::member,
    load::{Datagrams, Server, Talk, ask, load},
    net::{Family, V4, V6, ip, narrow, vip},
    scene::{Scene, to},
};

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
