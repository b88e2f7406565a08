//! Flows are listed, flushed and explained.

use std::net::SocketAddr;

use lb_common::{
    Be16, Be32,
    packet::{Flow, FlowKey6, Reply, ReplyKey6, Way, seen},
};
use lb_packet::{Answer, Filter, Question};

use crate::kit::*;

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
