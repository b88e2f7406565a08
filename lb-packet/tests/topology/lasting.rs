//! Flows while the agent and backends come and go.

use std::time::Duration;

use lb_common::packet::Fate;
use lb_testkit::eventually;

use crate::{
    agent::member,
    load::{Held, Talk, load},
    net::{V4, V6, ip},
    scene::{Scene, both, to},
};

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
