//! What is over is collected, and flows are counted.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use lb_common::{
    Be16, Be32,
    packet::{FlowKey4, ReplyKey4, Way, seen},
};
use lb_packet::{Census, Desired, Filter, Pressure};
use lb_testkit::eventually;

use crate::kit::*;

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
