//! Wrong input while the agent runs: the last good state serves on, and one message says what to do.

use std::{fs, io};

use crate::kit::{Instance, World, greeting, http, service};

#[test]
fn a_services_file_that_becomes_wrong_leaves_the_last_good_services() {
    let (world, a, vip) = World::with_one();
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
        let said = world.await_degraded(&words);
        world.assert_serves(vip, "a");
        assert_eq!(world.page("/ready").unwrap().status, 200, "{said}");
    }
    world.publish(&service("www_hello", &[&a]));
    world.await_fine();
    world.assert_serves(vip, "a");
    world.finish();
}

#[test]
fn a_services_file_that_vanishes_leaves_the_last_good_services() {
    let (world, a, vip) = World::with_one();
    fs::remove_file(world.path("services.toml")).unwrap();
    world.await_degraded(&["services.toml"]);
    world.assert_serves(vip, "a");
    world.publish(&service("www_hello", &[&a]));
    world.await_fine();
    world.finish();
}

#[test]
fn an_agent_that_starts_with_a_wrong_or_missing_services_file_waits_for_a_right_one() {
    let mut world = World::new();
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    for wrong in [None, Some("[[service]\n")] {
        match wrong {
            Some(text) => world.publish(text),
            None => fs::remove_file(world.path("services.toml")).unwrap(),
        }
        world.start(&[]);
        let page = world.await_page("/ready", |answer| answer.status == 503);
        assert!(!page.body.trim().is_empty(), "a reason per line is missing");
        world.await_degraded(&["services.toml"]);
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
        world.assert_serves(vip, "a");
        world.await_fine();
        world.terminate();
    }
    world.finish();
}

#[test]
fn entries_that_cannot_be_used_are_named_and_the_others_serve() {
    let (world, a, vip) = World::with_one();
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
    world.await_degraded(&["portless", "by-name", "not a name!", "too-far", "odd"]);
    // A wrong option breaks nothing else of its service.
    let odd = world.await_usable("odd", &["o"]);
    assert_eq!(greeting(&world.connect(odd, 80).unwrap()).unwrap(), "a");
    world.assert_serves(vip, "a");
    world.assert_calm();
    world.publish(&service("www_hello", &[&a]));
    world.await_fine();
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
    world.assert_serves(vip, "a");
    world.await_degraded(&["onsul", "127.0.0.1:8500"]);
    // One line when it changes, not one for each try.
    let lines = world.said().matches("127.0.0.1:8500").count();
    assert!(lines <= 5, "{}", world.said());
    world.finish();
}

#[test]
fn an_instance_that_refuses_is_told_and_its_service_refused() {
    let (world, a, vip) = World::with_one();
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
    // The page knows it first; until the front does, it tries the instance and says 502.
    world.await_front("www.hello.localhost", |answer| answer.status == 503);
    world.await_degraded(&["www_hello"]);
    let _again = Instance::start_at(&world.netns, "a", address);
    world.await_usable("www_hello", &["a"]);
    world.await_front("www.hello.localhost", |answer| answer.body == "a");
    world.assert_serves(vip, "a");
    world.await_fine();
    world.finish();
}

#[test]
fn requests_that_are_no_http_get_an_answer_and_harm_nobody() {
    let (world, _a, vip) = World::with_one();
    let front = "127.0.0.1:80".parse().unwrap();
    for host in ["", "a b", "../..", "[::1", "www.hello.localhost, x"] {
        let answer = http(&world.netns, front, host, "/").unwrap();
        assert!((400..=503).contains(&answer.status), "{host:?}: {answer:?}");
    }
    world.assert_serves(vip, "a");
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
    world.await_degraded(&["127.0.0.1:8500"]);
    assert!(world.report().0["services"].is_null());
    assert_eq!(world.page("/healthz").unwrap().status, 200);
    world.finish();
}
