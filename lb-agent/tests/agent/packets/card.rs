//! Clients on other hosts, whose packets come by a card.

use std::net::Ipv4Addr;

use lb_testkit::{Netns, eventually};

use super::{OPTIONS, goes_on, sends_on_unseen};
use crate::kit::{Instance, LIMIT, World, connect, greeting, service};

/// A network with this host's card, a client and a backend, none of which is behind another.
fn network(host: &Netns) -> (Netns, [Netns; 2]) {
    let switch = Netns::new("lb-net").unwrap();
    let link = "10.79.0.254/24".parse().unwrap();
    switch.add_bridge("lb-br0", link).unwrap();
    let leaf = |port: &str, last: u8| {
        let leaf = Netns::new(port).unwrap();
        let address = format!("10.79.0.{last}/24").parse().unwrap();
        let via = Ipv4Addr::new(10, 79, 0, 1);
        switch.plug("lb-br0", port, &leaf, address, via).unwrap();
        // A program before the stack meets packets of a wire, which have their checksums.
        let whole = || lb_sys::ethtool::offload_checksums("eth0", false);
        leaf.enter(whole).unwrap().unwrap();
        leaf
    };
    let there = host.path().display().to_string();
    switch
        .ip(&format!(
            "link add lb-up type veth peer name lb-card netns {there}\nlink set lb-up master lb-br0 up\n"
        ))
        .unwrap();
    host.ip("addr add 10.79.0.1/24 dev lb-card\nlink set lb-card up\n")
        .unwrap();
    let leaves = [leaf("lb-far", 2), leaf("lb-back", 3)];
    (switch, leaves)
}

#[test]
fn a_client_on_another_host_is_balanced_at_the_card_by_full_nat() {
    let mut world = World::new();
    let (_switch, [client, behind]) = network(&world.netns);
    let instance = Instance::start(&behind, "a", [10, 79, 0, 3]);
    sends_on_unseen(&world, "cards = [\"lb-card\"]\nxdp = \"generic\"");
    let services = service("www_hello", &[&instance]);
    world.publish(&services.replacen("[[service.instance]]", OPTIONS, 1));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    let flow = eventually(LIMIT, || {
        let flow = connect(&client, vip, 80).map_err(|error| error.to_string())?;
        greeting(&flow)
            .map_err(|error| error.to_string())
            .map(|_| flow)
    });
    let flow = flow.unwrap_or_else(|late| panic!("{late}\n{}", world.said()));
    let listed = world.ask(&["flows", "-o", "json"]).json();
    assert_eq!(listed["packets"][0]["way"], "full", "{listed:#}");
    let port = listed["packets"][0]["local_port"].as_u64().unwrap();
    assert!((61_000..=65_535).contains(&port), "{listed:#}");
    let status = world.ask(&["status"]);
    assert!(
        status.out.contains("card lb-card: generic, tcx"),
        "{status:?}"
    );
    // The agent's end ends nothing.
    world.terminate();
    goes_on(&flow, "a");
    let kept = || {
        let known = world.netns.ip("neigh show dev lb-card\n").unwrap();
        known.lines().any(|line| {
            line.starts_with("10.79.0.3 ") && line.contains("managed") && line.contains("proto 108")
        })
    };
    assert!(kept(), "who takes frames for the backend stays known");
    let done = world.uninstall(&[]);
    let line = "removed the neighbour 10.79.0.3 on lb-card";
    assert!(done.out.contains(line), "{done:?}");
    assert!(!kept());
    world.finish();
}
