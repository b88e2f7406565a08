//! More than there is room for: as much as fits serves, the rest is named, and the named remedy helps.

use std::{collections::BTreeSet, fs};

use lb_testkit::eventually;

use crate::kit::{Instance, LIMIT, World, greeting, service};

/// The services of `names` that a new flow reaches.
fn served<'n>(world: &World, names: &[&'n str]) -> Vec<&'n str> {
    let report = world.report();
    let reached = |name: &str| {
        let flow = world.connect(report.vip(name)?, 80).ok()?;
        greeting(&flow).ok()
    };
    let all = names.iter().copied();
    all.filter(|name| reached(name).is_some()).collect()
}

#[test]
fn a_full_pool_serves_those_that_have_an_address_and_names_the_others() {
    let mut world = World::new();
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    let names: Vec<_> = (0..18).map(|number| format!("s{number}")).collect();
    let text: String = names.iter().map(|name| service(name, &[&a])).collect();
    world.publish(&text);
    world.start(&["--pool", "198.18.0.0/28"]);
    let (with, without): (Vec<_>, Vec<_>) = world.await_page_report(|report| {
        let usable = |name: &&String| !report.instances(name, "usable").is_empty();
        let known = names.iter().filter(usable).count() == names.len();
        let split = names.iter().partition(|name| report.vip(name).is_some());
        known.then_some(split)
    });
    assert!((12..=15).contains(&with.len()), "with an address: {with:?}");
    for name in with {
        let vip = world.report().vip(name).unwrap();
        assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    }
    let problems = world.report().problems();
    for name in &without {
        let line = problems.lines().find(|line| line.contains(name.as_str()));
        let line = line.unwrap_or_else(|| panic!("{name} is not in:\n{problems}"));
        assert!(
            line.contains("198.18.0.0/28") && line.contains("pool"),
            "{line}"
        );
        // The front needs no address.
        let answer = world.front(&format!("{name}.localhost")).unwrap();
        assert_eq!(answer.body, "a", "{name}");
    }
    world.await_degraded(&["198.18.0.0/28"]);
    world.finish();
}

#[test]
fn more_services_than_the_limit_are_named_and_as_many_as_allowed_serve() {
    let mut world = World::new();
    let usual = world.usual();
    world.configure(&format!("{usual}[limits]\nservices = 3\n"));
    // Loopback is another place for everybody, and would take more entries for each service.
    let address = [10, 74, 0, 1];
    world.netns.ip("addr add 10.74.0.1/32 dev lo\n").unwrap();
    let a = Instance::start(&world.netns, "a", address);
    let names = ["s1", "s2", "s3", "s4", "s5"];
    world.publish(&names.map(|name| service(name, &[&a])).concat());
    world.start(&[]);
    world.await_ready();
    for name in names {
        world.await_usable(name, &["a"]);
    }
    let said = world.await_degraded(&["limits.services"]);
    let fits = eventually(LIMIT, || match served(&world, &names) {
        served if served.len() == 3 => Ok(served),
        served => Err(format!("{served:?} serve")),
    });
    let fits = fits.unwrap_or_else(|late| panic!("{late}; status says:\n{said}"));
    for name in names {
        assert_ne!(
            fits.contains(&name),
            said.contains(name),
            "{name} in {said}"
        );
        // The front is not limited by the kernel's maps.
        assert_eq!(world.front(&format!("{name}.localhost")).unwrap().body, "a");
    }
    let left = names.into_iter().find(|name| !fits.contains(name)).unwrap();
    world.publish(&service(left, &[&a]));
    let reached = eventually(LIMIT, || match served(&world, &[left]) {
        served if served.is_empty() => Err("not served"),
        _ => Ok(()),
    });
    reached.unwrap();
    world.await_fine();
    world.finish();
}

#[test]
fn more_instances_than_the_limit_are_named_and_the_others_serve() {
    let mut world = World::new();
    let usual = world.usual();
    world.configure(&format!("{usual}[limits]\nbackends = 2\n"));
    let start = |last: u8| Instance::start(&world.netns, &format!("i{last}"), [127, 0, 1, last]);
    let all = [start(1), start(2), start(3)];
    world.publish(&service("www_hello", &[&all[0], &all[1], &all[2]]));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["i1", "i2", "i3"]);
    world.await_degraded(&["limits.backends"]);
    let met = eventually(LIMIT, || {
        let flows: Vec<_> = (0..12)
            .filter_map(|_| world.connect(vip, 80).ok())
            .collect();
        let met: BTreeSet<_> = flows.iter().map(|flow| greeting(flow).unwrap()).collect();
        match (flows.len(), met.len()) {
            (12, 2) => Ok(()),
            _ => Err(format!("{} flows to {met:?}", flows.len())),
        }
    });
    met.unwrap();
    world.finish();
}

#[test]
fn the_remedy_for_a_full_map_helps() {
    let mut world = World::new();
    let usual = world.usual();
    world.configure(&format!("{usual}[limits]\nservices = 2\n"));
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    let names = ["s1", "s2", "s3", "s4"];
    world.publish(&names.map(|name| service(name, &[&a])).concat());
    world.start(&[]);
    world.await_ready();
    world.await_degraded(&["raise limits.services", "once the pins are removed"]);
    world.terminate();
    world.configure(&format!("{usual}[limits]\nservices = 100\n"));
    let pins = world.path("bpf/lb");
    let removed = world.netns.enter(|| fs::remove_dir_all(pins));
    removed.unwrap().unwrap();
    world.start(&[]);
    world.await_ready();
    let all = eventually(LIMIT, || match served(&world, &names) {
        served if served == names => Ok(()),
        served => Err(format!("{served:?} serve")),
    });
    all.unwrap_or_else(|late| panic!("{late}; {}", world.report().problems()));
    world.await_fine();
    world.finish();
}
