//! Registrations that meet each other, or the agent itself: the winner is stable, the loser is named, nothing loops.

use std::{fs, net::Ipv4Addr, path::Path, time::Instant};

use hickory_proto::op::ResponseCode;

use crate::kit::{Instance, LIMIT, World, dns, greeting, service};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

#[test]
fn requests_and_flows_through_an_instance_that_is_ours_go_in_no_circle() {
    let (world, a, vip) = World::with_one();
    let entry = |name: &str, address: &str, port: u16| {
        format!(
            "[[service]]\nname = \"{name}\"\n[[service.instance]]\nid = \"{name}\"\naddress = \"{address}\"\nport = {port}\n"
        )
    };
    let loops = [
        ("own-front", entry("own-front", "127.0.0.1", 80)),
        ("own-vip", entry("own-vip", &vip.to_string(), 80)),
        ("everywhere", entry("everywhere", "0.0.0.0", 80)),
        ("everybody", entry("everybody", "224.0.0.1", 80)),
    ];
    let text: String = loops.iter().map(|(_, entry)| entry.as_str()).collect();
    world.publish(&(text + &service("www_hello", &[&a])));
    let names = loops.map(|(name, _)| name);
    world.await_degraded(&names);
    for name in names {
        let answer = world.front(&format!("{name}.localhost")).unwrap();
        assert_eq!(answer.status, 503, "{name}: {answer:?}");
    }
    // A flow ends at the front, which answers as it always does.
    let front = world.await_usable("own-front", &["own-front"]);
    world.await_answer((front, 80).into(), "own-front.localhost", |answer| {
        answer.status == 503
    });
    for name in ["own-vip", "everywhere", "everybody"] {
        let vip = world.report().vip(name);
        let reached = vip.map(|vip| world.connect(vip, 80));
        assert!(
            !matches!(reached, Some(Ok(_))),
            "{name} is reached: {reached:?}"
        );
    }
    let told = lb_testkit::eventually(LIMIT, || {
        let problems = world.report().problems();
        match names.iter().find(|name| !problems.contains(**name)) {
            None => Ok(()),
            Some(name) => Err(format!("{name} is not in:\n{problems}")),
        }
    });
    told.unwrap();
    world.assert_serves(vip, "a");
    world.finish();
}

#[test]
fn of_two_services_with_one_name_the_first_wins_and_the_collision_is_told() {
    let (world, a, vip) = World::with_one();
    let b = Instance::start(&world.netns, "b", [127, 0, 1, 2]);
    let alias = |name: &str, instance: &Instance| {
        service(name, &[instance]) + "tags = [\"server_alias=shop.example.com\"]\n"
    };
    let text = alias("zeta", &b) + &alias("alpha", &a) + &service("www.hello", &[&b]);
    world.publish(&(text + &service("www_hello", &[&a])));
    for name in ["zeta", "www.hello"] {
        world.await_usable(name, &["b"]);
    }
    world.await_usable("alpha", &["a"]);
    world.await_degraded(&["shop.example.com", "alpha", "zeta", "www.hello"]);
    for _ in 0..4 {
        assert_eq!(world.front("shop.example.com").unwrap().body, "a");
    }
    let alpha = world.report().vip("alpha").unwrap();
    let answer = dns(&world.netns, RESOLVER, "shop.example.com.").unwrap();
    assert_eq!(answer, (ResponseCode::NoError, vec![alpha]));
    // Front and resolver agree on who wins.
    let (_, addresses) = dns(&world.netns, RESOLVER, "www.hello.").unwrap();
    let by_front = world.front("www.hello").unwrap().body;
    let flow = world.connect(addresses[0], 80).unwrap();
    assert_eq!(greeting(&flow).unwrap(), by_front);
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    world.finish();
}

#[test]
fn a_resolver_that_the_host_itself_uses_does_not_ask_itself() {
    let mut world = World::new();
    let file = world.path("resolv.conf");
    fs::write(&file, format!("nameserver {RESOLVER}\n")).unwrap();
    world
        .netns
        .bind(&file, Path::new("/etc/resolv.conf"))
        .unwrap();
    world.configure(&world.usual().replace("upstreams = []\n", ""));
    world.start(&[]);
    world.await_ready();
    let asked = Instant::now();
    let (code, addresses) = dns(&world.netns, RESOLVER, "nobody.example.org.").unwrap();
    assert!(asked.elapsed() < LIMIT / 2, "after {:?}", asked.elapsed());
    assert_eq!((code, addresses.len()), (ResponseCode::ServFail, 0));
    world.finish();
}
