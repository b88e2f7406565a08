//! A successor that finds something else than its predecessor left: what serves goes on serving.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::SystemTime};

use hickory_proto::op::ResponseCode;
use lb_agent::discover::consul;
use lb_testkit::eventually;
use serde_json::json;

use crate::kit::{Instance, LIMIT, World, dns, greeting, service};

#[test]
fn a_services_file_that_is_wrong_at_a_restart_takes_nothing_away() {
    let (mut world, a, vip) = World::with_one();
    let flow = world.connect(vip, 80).unwrap();
    assert_eq!(greeting(&flow).unwrap(), "a");
    world.kill();
    world.publish("[[service]]\nspeed = 9\n");
    world.start(&[]);
    // Alive, and has read the file.
    world.await_page("/healthz", |answer| answer.status == 200);
    let read = eventually(LIMIT, || match world.said() {
        said if said.contains("speed") => Ok(()),
        said => Err(said),
    });
    read.unwrap();
    assert_eq!(greeting(&flow).unwrap(), "a");
    for _ in 0..20 {
        assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
        // The front that outlived the agent knows its last routes.
        assert_eq!(world.front("www.hello").unwrap().body, "a");
    }
    // Not known is not "does not exist", which would be cached.
    let (code, _) = dns(&world.netns, Ipv4Addr::new(198, 18, 0, 1), "www_hello.").unwrap();
    assert_ne!(code, ResponseCode::NXDomain);
    assert_eq!(world.page("/ready").unwrap().status, 503);

    world.publish(&service("www_hello", &[&a]));
    world.await_ready();
    assert_eq!(world.await_usable("www_hello", &["a"]), vip);
    assert_eq!(greeting(&flow).unwrap(), "a");
    world.finish();
}

/// Leaves in the state directory that the Consul at `address` had the service `name` by `instance`.
fn keep(world: &World, address: &str, name: &str, instance: &Instance) {
    let services = lb_agent::discover::file::parse(&service(name, &[instance])).unwrap();
    let services: BTreeMap<_, Vec<_>> = services
        .services
        .iter()
        .map(|(name, instances)| (name.to_string(), instances.iter().map(|it| &**it).collect()))
        .collect();
    let consul =
        json!({"addresses": [address], "datacenter": null, "namespace": null, "partition": null});
    let kept = json!({"consul": consul, "updated": SystemTime::now(), "services": services});
    let file = consul::file_in(&world.path("state"));
    fs::write(file, json!({"version": 1, "value": kept}).to_string()).unwrap();
}

#[test]
fn what_was_kept_of_a_consul_that_is_away_is_served_and_takes_nothing_away() {
    let mut instances = Vec::new();
    let mut world = World::with_services(|netns| {
        for (id, last) in [("a", 1), ("b", 2), ("c", 3)] {
            instances.push(Instance::start(netns, id, [127, 0, 1, last]));
        }
        service("www_hello", &[&instances[0]]) + &service("old", &[&instances[1]])
    });
    let [www, old] =
        [("www_hello", "a"), ("old", "b")].map(|(name, id)| world.await_usable(name, &[id]));
    let serves = |world: &World, vip, id: &str| {
        assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), id);
    };
    world.kill();
    // Nobody names `old` any more who can be asked; the Consul may.
    world.publish(&service("www_hello", &[&instances[0]]));
    keep(&world, "http://127.0.0.1:8501", "shop", &instances[2]);
    let usual = world.usual();
    world.configure(&format!(
        "{usual}[sources.consul]\naddress = \"127.0.0.1:8501\"\n"
    ));
    world.start(&[]);
    world.await_ready();
    let shop = world.await_usable("shop", &["c"]);
    serves(&world, shop, "c");
    serves(&world, www, "a");
    serves(&world, old, "b");
    assert_eq!(world.front("www.hello").unwrap().body, "a");
    let resolver = Ipv4Addr::new(198, 18, 0, 1);
    let (_, addresses) = dns(&world.netns, resolver, "shop.").unwrap();
    assert_eq!(addresses, [shop]);
    // Not known is not "does not exist".
    let (code, _) = dns(&world.netns, resolver, "old.").unwrap();
    assert_ne!(code, ResponseCode::NXDomain);
    // What is known goes its way, but the front keeps the routes that it has until all is known, and no flow is cut.
    let drained = world.ask(&["drain", "www_hello/a"]);
    let words = "not yet in force in the cutting of flows and the front";
    assert!(
        drained.code == Some(3) && format!("{drained:?}").contains(words),
        "{drained:?}"
    );
    let refused = eventually(LIMIT, || match world.connect(www, 80) {
        Ok(_) => Err("it still takes flows"),
        Err(_) => Ok(()),
    });
    refused.unwrap();
    assert_eq!(world.ask(&["drain", "www_hello/a", "--undo"]).code, Some(3));

    // The same for a front that has no routes yet.
    world.terminate();
    world.start(&[]);
    world.await_ready();
    world.await_front("shop.localhost", |answer| answer.body == "c");
    world.await_front("www.hello", |answer| answer.body == "a");
    serves(&world, old, "b");
    world.finish();
}

#[test]
fn other_limits_at_a_restart_keep_what_serves_or_are_refused_with_the_remedy() {
    let (mut world, _a, vip) = World::with_one();
    let flow = world.connect(vip, 80).unwrap();
    world.terminate();
    let usual = world.usual();
    world.configure(&format!(
        "{usual}[limits]\nservices = 100\nbackends = 100\n"
    ));
    world.start(&[]);
    let settled = eventually(LIMIT, || match world.is_running() {
        false => Ok(false),
        true if world.page("/ready").is_ok_and(|page| page.status == 200) => Ok(true),
        true => Err("neither ready nor refused"),
    });
    if settled.unwrap_or_else(|late| panic!("{late}\n{}", world.said())) {
        assert_eq!(world.await_usable("www_hello", &["a"]), vip);
        // The maps that are in use cannot shrink or grow: whoever asked for that has to be told.
        let said = world.said();
        let told = |line: &str| line.contains("WARN") && line.contains("limits");
        assert!(said.lines().any(told), "{said}");
    } else {
        world.ended().expect(1, &["limits"]);
    }
    assert_eq!(greeting(&flow).unwrap(), "a");
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    world.finish();
}

#[test]
fn another_pool_at_a_restart_gives_new_addresses() {
    let (mut world, _a, vip) = World::with_one();
    world.terminate();
    world.start(&["--pool", "198.19.0.0/16"]);
    world.await_ready();
    let new = world.await_usable("www_hello", &["a"]);
    assert_eq!(new.octets()[1], 19, "{new}");
    assert_eq!(greeting(&world.connect(new, 80).unwrap()).unwrap(), "a");
    assert_eq!(world.ask(&["status"]).code, Some(0), "{}", world.said());
    let old = world.connect(vip, 80);
    assert!(old.is_err(), "the old address still answers: {old:?}");
    world.finish();
}

#[test]
fn a_state_directory_full_of_nonsense_is_named_and_harms_nobody() {
    let (mut world, _a, vip) = World::with_one();
    assert_eq!(world.ask(&["drain", "www_hello/a"]).code, Some(0));
    world.await_usable("www_hello", &[]);
    assert_eq!(world.ask(&["drain", "www_hello/a", "--undo"]).code, Some(0));
    world.await_usable("www_hello", &["a"]);
    world.terminate();
    let mut broken = Vec::new();
    for entry in fs::read_dir(world.path("state")).unwrap() {
        let path = entry.unwrap().path();
        // The lock is locked, and the token has a test of its own.
        let spared = ["agent.lock", "admin.token"].map(|name| path.ends_with(name));
        if path.is_file() && !spared.contains(&true) {
            fs::write(&path, "\0{[nonsense").unwrap();
            broken.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert!(!broken.is_empty(), "nothing outlives the agent");
    world.start(&[]);
    world.await_ready();
    assert_eq!(world.await_usable("www_hello", &["a"]), vip);
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    let said = world.said();
    for name in broken {
        assert!(said.contains(&name), "{name} is not named in:\n{said}");
    }
    world.finish();
}

#[test]
fn a_token_that_was_damaged_is_refused_with_the_remedy_and_balancing_goes_on() {
    let (mut world, _a, vip) = World::with_one();
    world.terminate();
    let token = world.path("state").join("admin.token");
    assert!(token.is_file(), "the token is not where it is looked for");
    fs::write(&token, "\0").unwrap();
    let attempt = world.attempt(&[]);
    attempt.expect(1, &[&token.display().to_string(), "remove"]);
    world.assert_clean();
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    world.finish();
}

#[test]
fn a_file_in_the_place_of_the_socket_is_not_removed() {
    let mut world = World::new();
    let place = world.path("precious");
    fs::write(&place, "data").unwrap();
    let shown = place.display().to_string();
    let attempt = world.attempt(&["--socket", &shown]);
    assert_eq!(fs::read_to_string(&place).unwrap(), "data");
    attempt.expect(1, &[&shown, "socket"]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn another_cgroup_at_a_restart_is_balanced() {
    let (mut world, _a, vip) = World::with_one();
    world.terminate();
    let all = world.all_groups().display().to_string();
    world.start(&["--cgroup", &all]);
    world.await_ready();
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    let script = format!("exec 3<>/dev/tcp/{vip}/80; echo who >&3; head -n 1 <&3");
    let said = world.run_outside("bash", &["-c", &script]);
    assert_eq!(
        said.unwrap_or_else(|error| panic!("{error}\n{}", world.said())),
        "a"
    );
    world.finish();
}

#[test]
fn an_agent_without_front_and_resolver_balances() {
    let (mut world, _a, vip) = World::with_one();
    world.terminate();
    let usual = world.usual().replace("[dns]\n", "[dns]\nenabled = false\n");
    world.configure(&format!("{usual}[front]\nenabled = false\n"));
    world.start(&[]);
    world.await_ready();
    assert_eq!(world.children(), Vec::<u32>::new());
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    assert!(world.front("www.hello").is_err());
    assert_eq!(world.ask(&["status"]).code, Some(0));
    world.finish();
}
