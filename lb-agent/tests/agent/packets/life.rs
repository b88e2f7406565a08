//! Agents and instances come and go: what becomes of flows, and what an agent leaves.

use std::fs;

use lb_testkit::eventually;

use super::{Place, goes_on};
use crate::kit::{Instance, LIMIT, World, connect, greeting, service};

#[test]
fn flows_of_packets_outlive_an_agent_that_ends_and_one_that_is_killed() {
    let mut place = Place::new();
    let flows = [place.flow_to("a"), place.flow_to("b")];
    let both_go_on = || {
        goes_on(&flows[0], "a");
        goes_on(&flows[1], "b");
    };
    place.world.terminate();
    both_go_on();
    // Without an agent new ones begin, too.
    let without = place.flow_to("a");
    place.start_again();
    both_go_on();
    place.world.kill_all();
    both_go_on();
    drop(place.flow_to("b"));
    place.start_again();
    both_go_on();
    goes_on(&without, "a");
    place.world.finish();
}

#[test]
fn a_drained_instance_keeps_its_flows_of_packets_for_the_time_of_the_drain() {
    let place = Place::new();
    let (to_a, to_b) = (place.flow_to("a"), place.flow_to("b"));
    let asked = place.world.ask(&["drain", "www_hello/a"]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    goes_on(&to_a, "a");
    let over = eventually(LIMIT, || {
        // Nobody new comes there meanwhile.
        let flow = connect(&place.client, place.vip, 80).map_err(|error| error.to_string())?;
        let met = greeting(&flow).map_err(|error| error.to_string())?;
        match greeting(&to_a) {
            Err(_) if met == "b" => Ok(()),
            other => Err(format!("a new one meets {met}, the old one {other:?}")),
        }
    });
    over.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
    goes_on(&to_b, "b");
    // One that leaves the services file does so, too.
    place.publish(&[0]);
    let asked = place.world.ask(&["drain", "www_hello/a", "--undo"]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let over = eventually(LIMIT, || match greeting(&to_b) {
        Err(_) => Ok(()),
        Ok(met) => Err(met),
    });
    over.unwrap();
    drop(place.flow_to("a"));
    place.world.finish();
}

#[test]
fn what_an_agent_leaves_of_packets_is_taken_away_and_an_agent_without_them_takes_its_programs_off()
{
    let mut place = Place::new();
    drop(place.flow_to("a"));
    place.world.terminate();
    let without = fs::read_to_string(place.world.config()).unwrap();
    let without = without.replace("[packet]\nclients = [\"lb-cli*\"]\n", "");
    place.world.configure(&without);
    place.start_again();
    connect(&place.client, place.vip, 80).unwrap_err();
    place.world.terminate();
    let done = place.world.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    place.world.assert_untouched();
    place.world.finish();
}

#[test]
fn an_agent_that_cannot_have_a_packet_path_says_so_and_serves_sockets() {
    let mut world = World::new();
    let alien = world.path("bpf/lb/packet/v99");
    let make = || fs::create_dir_all(&alien);
    world.netns.enter(make).unwrap().unwrap();
    let instance = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    world.configure(&format!(
        "{}[packet]\nclients = [\"lb-tap0\"]\n",
        world.usual()
    ));
    world.publish(&service("www_hello", &[&instance]));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    world.await_degraded(&[
        "packet path",
        "maps of the packet path of version 99",
        "lb-agent uninstall",
    ]);
    let asked = world.ask(&["flows", "-o", "json"]).json();
    assert_eq!(asked["packets"], serde_json::json!([]));
    world.finish();
}
