//! Maintenance as a source says it: no new flows, the end of the old ones after their time, and flows again afterwards.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use lb_testkit::eventually;
use serde_json::{Value, json};

use crate::{
    drains::{CUT, end_of, flow_to},
    kit::{Instance, LIMIT, World, greeting, service},
    support::Consul,
};

/// How long flows may go on here.
const DRAIN: Duration = Duration::from_secs(1);

/// `www_hello` has the instances `a` and `b`; `say` puts `a` in maintenance and takes it out.
fn assert_followed(world: &World, vip: Ipv4Addr, say: impl Fn(bool)) {
    // Twice: what has ended once may begin again.
    for _ in 0..2 {
        let (to_a, to_b) = (flow_to(world, vip, "a"), flow_to(world, vip, "b"));
        let began = Instant::now();
        say(true);
        world.await_report(|report| {
            let out = report.instances("www_hello", "maintenance");
            out.iter().eq(["a"]).then_some(())
        });
        let flow = |_| greeting(&world.connect(vip, 80).unwrap()).unwrap();
        // What is shown may be in the maps a moment later.
        let moved = eventually(LIMIT, || match (0..20).map(flow).collect::<Vec<_>>() {
            met if met == ["b"; 20] => Ok(()),
            met => Err(format!("{met:?}")),
        });
        moved.unwrap();
        assert_eq!(end_of(&to_a), CUT);
        let took = began.elapsed();
        assert!(took >= DRAIN, "after {took:?}");
        assert_eq!(greeting(&to_b).unwrap(), "b");
        say(false);
        world.await_usable("www_hello", &["a", "b"]);
    }
    assert_eq!(greeting(&flow_to(world, vip, "a")).unwrap(), "a");
}

#[test]
fn maintenance_in_consul_ends_flows_after_their_time_and_is_undone() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut world = World::new();
    // The agent's host is a network of its own, which a socket leads into.
    let socket = format!("unix://{}", world.path("consul.sock").display());
    let addresses = json!({"addresses": {"http": format!("127.0.0.1 {socket}")}});
    let consul = runtime.block_on(Consul::start_with(|_| addresses));
    let instances =
        [("a", 1), ("b", 2)].map(|(id, last)| Instance::start(&world.netns, id, [127, 0, 1, last]));
    for instance in &instances {
        let (id, address) = (instance.id(), instance.address());
        let registration = json!({
            "Name": "www_hello", "ID": id, "Address": address.ip(), "Port": address.port(),
            "Tags": ["lb_drain=1s"],
        });
        runtime.block_on(consul.put("agent/service/register", registration));
    }
    let usual = world.usual();
    world.configure(&format!(
        "{usual}[sources.consul]\naddress = \"{socket}\"\n"
    ));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a", "b"]);
    assert_followed(&world, vip, |enable| {
        let path = format!("agent/service/maintenance/a?enable={enable}&reason=disk");
        runtime.block_on(consul.put(&path, Value::Null));
    });
    world.finish();
}

#[test]
fn maintenance_in_the_services_file_ends_flows_after_their_time_and_is_undone() {
    let (world, [a, b], vip) = World::with_two();
    let all = service("www_hello", &[&a, &b]);
    let brief = "options = { lb_drain = \"1s\" }\n[[service.instance]]";
    let all = all.replacen("[[service.instance]]", brief, 1);
    world.publish(&all);
    assert_followed(&world, vip, |out| {
        let health = "id = \"a\"\nhealth = \"maintenance\"";
        world.publish(&match out {
            true => all.replace("id = \"a\"", health),
            false => all.clone(),
        });
    });
    world.finish();
}
