//! Wrong input while the agent runs: the last good state serves on, and one message says what to do.

use std::{collections::BTreeSet, fs, io, net::Ipv4Addr};

use lb_testkit::eventually;

use crate::kit::{Instance, LIMIT, World, greeting, http, service};

/// An agent with `www_hello` of one instance, settled.
fn world() -> (World, Instance, Ipv4Addr) {
    let mut instance = None;
    let world = World::with_services(|netns| {
        let a = instance.insert(Instance::start(netns, "a", [127, 0, 1, 1]));
        service("www_hello", &[a])
    });
    let vip = world.await_usable("www_hello", &["a"]);
    (world, instance.unwrap(), vip)
}

#[track_caller]
fn assert_serves(world: &World, vip: Ipv4Addr, id: &str) {
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), id);
    assert_eq!(world.front("www.hello.localhost").unwrap().body, id);
}

/// What `status` says once it is degraded.
#[track_caller]
fn await_degraded(world: &World, words: &[&str]) -> String {
    let found = eventually(LIMIT, || {
        let status = world.ask(&["status"]);
        let all = words.iter().all(|word| status.out.contains(word));
        if status.code == Some(3) && all {
            Ok(status.out)
        } else {
            Err(format!("{words:?} are not all in {status:?}"))
        }
    });
    found.unwrap()
}

#[track_caller]
fn await_fine(world: &World) {
    let found = eventually(LIMIT, || match world.ask(&["status"]) {
        status if status.code == Some(0) => Ok(()),
        status => Err(format!("{status:?}")),
    });
    found.unwrap();
}

#[test]
fn a_services_file_that_becomes_wrong_leaves_the_last_good_services() {
    let (world, a, vip) = world();
    for (wrong, words) in [
        (
            "[[service]\nname = \"x\"\n",
            vec!["services.toml", "line 1"],
        ),
        (
            "[[service]]\nname = \"x\"\nspeed = 9\n[[service.instance]]\nport = \"http\"\n",
            vec!["services.toml", "line 3", "speed", "port"],
        ),
        ("", vec!["services.toml", "empty", "service = []"]),
    ] {
        world.publish(wrong);
        let said = await_degraded(&world, &words);
        assert_serves(&world, vip, "a");
        assert_eq!(world.page("/ready").unwrap().status, 200, "{said}");
    }
    world.publish(&service("www_hello", &[&a]));
    await_fine(&world);
    assert_serves(&world, vip, "a");
    world.finish();
}

#[test]
fn a_services_file_that_vanishes_leaves_the_last_good_services() {
    let (world, a, vip) = world();
    fs::remove_file(world.path("services.toml")).unwrap();
    await_degraded(&world, &["services.toml"]);
    assert_serves(&world, vip, "a");
    world.publish(&service("www_hello", &[&a]));
    await_fine(&world);
    world.finish();
}

#[test]
fn an_agent_that_starts_with_a_wrong_or_missing_services_file_waits_for_a_right_one() {
    let mut world = World::new();
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    for wrong in [None, Some("[[service]\n")] {
        if let Some(text) = wrong {
            world.publish(text);
        }
        world.start(&[]);
        let page = world.await_page("/ready", |answer| answer.status == 503);
        assert!(!page.body.trim().is_empty(), "a reason per line is missing");
        await_degraded(&world, &["services.toml"]);
        // Not known is not none.
        assert!(world.report().0["services"].is_null());
        let services = world.ask(&["services"]);
        assert_eq!(services.code, Some(1), "{services:?}");
        let check = world.ask(&["healthcheck"]);
        assert_eq!(check.code, Some(1), "{check:?}");
        assert_eq!(world.page("/healthz").unwrap().status, 200);

        world.publish(&service("www_hello", &[&a]));
        world.await_ready();
        let vip = world.await_usable("www_hello", &["a"]);
        assert_serves(&world, vip, "a");
        await_fine(&world);
        world.terminate();
    }
    world.finish();
}

#[test]
fn entries_that_cannot_be_used_are_named_and_the_others_serve() {
    let (world, a, vip) = world();
    let entry = |name: &str, instance: &str| {
        format!("[[service]]\nname = \"{name}\"\n[[service.instance]]\n{instance}\n")
    };
    let wrong = [
        (
            "portless",
            entry("portless", "id = \"p\"\naddress = \"127.0.1.9\""),
        ),
        (
            "by-name",
            entry(
                "by-name",
                "id = \"h\"\naddress = \"db.example.com\"\nport = 5432",
            ),
        ),
        (
            "not a name!",
            entry(
                "not a name!",
                "id = \"n\"\naddress = \"127.0.1.9\"\nport = 80",
            ),
        ),
        (
            "too-far",
            entry(
                "too-far",
                "id = \"z\"\naddress = \"127.0.1.9\"\nport = 70000",
            ),
        ),
        (
            "odd",
            format!(
                "[[service]]\nname = \"odd\"\noptions = {{ lb_balance = \"fastest\", lb_speed = \"9\" }}\n\
                 [[service.instance]]\nid = \"o\"\naddress = \"{}\"\nport = {}\n",
                a.address().ip(),
                a.address().port()
            ),
        ),
    ];
    let text: String = wrong.iter().map(|(_, entry)| entry.as_str()).collect();
    world.publish(&(text + &service("www_hello", &[&a])));
    let problems = world.await_report(|report| {
        let problems = report.problems();
        let all = wrong.iter().all(|(name, _)| problems.contains(name));
        all.then_some(problems)
    });
    for word in ["port", "db.example.com", "70000", "fastest", "lb_speed"] {
        assert!(problems.contains(word), "{word:?} is not in:\n{problems}");
    }
    await_degraded(
        &world,
        &["portless", "by-name", "not a name!", "too-far", "odd"],
    );
    // A wrong option breaks nothing else of its service.
    let odd = world.await_usable("odd", &["o"]);
    assert_eq!(greeting(&world.connect(odd, 80).unwrap()).unwrap(), "a");
    assert_serves(&world, vip, "a");
    world.assert_calm();
    world.publish(&service("www_hello", &[&a]));
    await_fine(&world);
    world.finish();
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
    await_degraded(&world, &["198.18.0.0/28"]);
    world.finish();
}

#[test]
fn a_consul_that_cannot_be_reached_does_not_touch_what_the_file_says() {
    let mut world = World::new();
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    world.publish(&service("www_hello", &[&a]));
    world.start(&["--consul", "127.0.0.1:8500"]);
    let vip = world.await_page_report(|report| {
        let usable = !report.instances("www_hello", "usable").is_empty();
        usable.then(|| report.vip("www_hello"))?
    });
    assert_serves(&world, vip, "a");
    await_degraded(&world, &["onsul", "127.0.0.1:8500"]);
    // One line when it changes, not one for each try.
    let lines = world.said().matches("127.0.0.1:8500").count();
    assert!(lines <= 5, "{}", world.said());
    world.finish();
}

#[test]
fn an_instance_that_refuses_is_told_and_its_service_refused() {
    let (world, a, vip) = world();
    let address = a.address();
    drop(a);
    world.await_report(|report| {
        report
            .instances("www_hello", "usable")
            .is_empty()
            .then_some(())
    });
    let error = world.connect(vip, 80).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let answer = world.front("www.hello.localhost").unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    await_degraded(&world, &["www_hello"]);
    let _again = Instance::start_at(&world.netns, "a", address);
    world.await_usable("www_hello", &["a"]);
    assert_serves(&world, vip, "a");
    await_fine(&world);
    world.finish();
}

#[test]
fn requests_that_are_no_http_get_an_answer_and_harm_nobody() {
    let (world, _a, vip) = world();
    let front = "127.0.0.1:80".parse().unwrap();
    for host in ["", "a b", "../..", "[::1", "www.hello.localhost, x"] {
        let answer = http(&world.netns, front, host, "/").unwrap();
        assert!((400..=503).contains(&answer.status), "{host:?}: {answer:?}");
    }
    assert_serves(&world, vip, "a");
    world.finish();
}

#[test]
fn a_consul_that_cannot_be_reached_is_named_while_nothing_is_known() {
    let mut world = World::new();
    let usual = world.usual();
    let path = format!("path = \"{}\"\n", world.path("services.toml").display());
    world.configure(&usual.replace(&format!("[sources.file]\n{path}"), ""));
    world.start(&["--consul", "127.0.0.1:8500"]);
    world.await_page("/ready", |answer| answer.status == 503);
    await_degraded(&world, &["127.0.0.1:8500"]);
    assert!(world.report().0["services"].is_null());
    assert_eq!(world.page("/healthz").unwrap().status, 200);
    world.finish();
}

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
fn more_services_than_the_limit_are_named_and_as_many_as_allowed_serve() {
    let mut world = World::new();
    let usual = world.usual();
    world.configure(&format!("{usual}[limits]\nservices = 3\n"));
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    let names = ["s1", "s2", "s3", "s4", "s5"];
    world.publish(&names.map(|name| service(name, &[&a])).concat());
    world.start(&[]);
    world.await_ready();
    for name in names {
        world.await_usable(name, &["a"]);
    }
    let said = await_degraded(&world, &["limits.services"]);
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
    await_fine(&world);
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
    await_degraded(&world, &["limits.backends"]);
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
