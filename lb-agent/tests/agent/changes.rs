//! What a person or a source changes reaches the data plane, and nothing else moves.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_testkit::eventually;

use crate::kit::{Instance, LIMIT, Traffic, World, connect, greeting, http, service};

/// How late a change of the services file may reach a connect.
const SOON: Duration = Duration::from_millis(500);

/// The instances that so many new flows meet, open all at once: whoever may be chosen then is, sooner or later.
fn met(world: &World, vip: Ipv4Addr, flows: usize) -> BTreeSet<String> {
    let flows: Vec<_> = (0..flows)
        .map(|_| world.connect(vip, 80).unwrap())
        .collect();
    flows.iter().map(|flow| greeting(flow).unwrap()).collect()
}

/// A flow that this instance serves.
fn flow_to(world: &World, vip: Ipv4Addr, id: &str) -> TcpStream {
    // Those to the others stay open meanwhile, so that theirs is the greater load.
    let mut flows = Vec::new();
    for _ in 0..50 {
        let flow = world.connect(vip, 80).unwrap();
        if greeting(&flow).unwrap() == id {
            return flow;
        }
        flows.push(flow);
    }
    panic!("{id} is never met");
}

fn only(id: &str) -> BTreeSet<String> {
    BTreeSet::from([id.to_owned()])
}

#[test]
fn an_instance_that_leaves_the_file_gets_no_new_flow_soon_after() {
    let (world, [a, b], vip) = World::with_two();
    world.publish(&service("www_hello", &[&b]));
    let changed = Instant::now();
    let left = eventually(LIMIT, || match met(&world, vip, 12) {
        met if met == only("b") => Ok(changed.elapsed()),
        met => Err(format!("{met:?}")),
    });
    let took = left.unwrap();
    assert!(took < SOON, "after {took:?}");
    drop(a);
    world.finish();
}

#[test]
fn a_service_that_leaves_the_file_is_refused_soon_after() {
    let (world, [a, _b], vip) = World::with_two();
    world.publish(&service("other", &[&a]));
    let changed = Instant::now();
    let refused = eventually(LIMIT, || match world.connect(vip, 80) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(changed.elapsed()),
        Err(error) => panic!("{error} instead of a refusal"),
        Ok(_) => Err("connected"),
    });
    let took = refused.unwrap();
    assert!(took < SOON, "after {took:?}");
    let gone = |report: &crate::kit::Report| report.service("www_hello").is_none().then_some(());
    world.await_report(gone);
    let answer = world.front("www.hello.localhost").unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    world.finish();
}

#[test]
fn a_new_service_is_reached_as_soon_as_its_instance_was_probed() {
    let (world, [a, b], _) = World::with_two();
    let text = service("www_hello", &[&a]) + &service("other", &[&b]);
    world.publish(&text);
    let changed = Instant::now();
    let other = world.await_usable("other", &["b"]);
    let stream = eventually(LIMIT, || world.connect(other, 80)).unwrap();
    let took = changed.elapsed();
    assert_eq!(greeting(&stream).unwrap(), "b");
    // Two probes, 200 ms apart.
    assert!(took < SOON + Duration::from_millis(400), "after {took:?}");
    world.finish();
}

#[test]
fn an_address_lives_as_long_as_its_service_and_an_empty_file_is_a_word_too() {
    let (world, [a, b], vip) = World::with_two();
    let text = service("aaa", &[&b]) + &service("www_hello", &[&a]) + &service("zzz", &[&b]);
    world.publish(&text);
    world.await_usable("zzz", &["b"]);
    assert_eq!(world.await_usable("www_hello", &["a"]), vip);
    world.publish("service = []\n");
    world.await_report(|report| report.0["services"].as_array()?.is_empty().then_some(()));
    assert_eq!(world.ask(&["status"]).code, Some(0));
    let error = world.connect(vip, 80).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    world.finish();
}

#[test]
fn a_killed_instance_costs_no_request_after_its_first_detection() {
    let (world, [a, b], vip) = World::with_two();
    let _flows = [flow_to(&world, vip, "a"), flow_to(&world, vip, "b")];
    drop(a);
    // The first flow may meet it and is the detection.
    let detected = eventually(LIMIT, || match world.connect(vip, 80) {
        Err(_) => Ok(()),
        Ok(stream) if greeting(&stream).is_err() => Ok(()),
        Ok(_) if world.report().instances("www_hello", "usable").len() == 1 => Ok(()),
        Ok(_) => Err("not met yet"),
    });
    detected.unwrap();
    assert_eq!(met(&world, vip, 20), only("b"));
    // The front retries a failed connect by itself: nobody ever sees it.
    for _ in 0..20 {
        let answer = world.front("www.hello.localhost").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "b"));
    }
    drop(b);
    world.finish();
}

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_new_ones_until_the_drain_is_undone() {
    let (world, _instances, vip) = World::with_two();
    let old = flow_to(&world, vip, "a");
    let drained = world.ask(&["drain", "www_hello/a"]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert_eq!(met(&world, vip, 12), only("b"));
    assert_eq!(greeting(&old).unwrap(), "a");
    let backends = world.ask(&["backends", "www_hello", "-o", "json"]).json();
    let a = backends
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["id"] == "a");
    assert_eq!(a.unwrap()["mode"], "drain", "{backends:#}");
    let front = (0..8).map(|_| world.front("www.hello.localhost").unwrap().body);
    assert!(front.into_iter().all(|body| body == "b"));

    let undone = world.ask(&["drain", "www_hello/a", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    let both = BTreeSet::from(["a", "b"].map(str::to_owned));
    assert_eq!(met(&world, vip, 12), both);
    assert_eq!(greeting(&old).unwrap(), "a");
    world.finish();
}

#[test]
fn what_is_begun_after_the_answer_to_a_drain_never_meets_the_backend() {
    let (world, _instances, vip) = World::with_two();
    let drain = |undo: bool| {
        let mode = if undo { "ready" } else { "drain" };
        let order = format!(r#"{{"service":"www_hello","backend":"a","mode":"{mode}"}}"#);
        let answer = world.post("/api/v1/instances/state", &order).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    // Often: a change that follows another one waits for a while before it is published.
    for round in 0..20 {
        drain(false);
        assert_eq!(met(&world, vip, 6), only("b"), "round {round}");
        for _ in 0..2 {
            let answer = world.front("www.hello.localhost").unwrap();
            assert_eq!(answer.body, "b", "round {round}");
        }
        drain(true);
    }
    world.finish();
}

#[test]
fn a_drain_survives_a_restart_and_a_drain_of_nobody_is_refused() {
    let (mut world, _instances, vip) = World::with_two();
    for target in ["www_hello/c", "nobody", "nobody/a"] {
        let refused = world.ask(&["drain", target]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.starts_with("lb-agent: "), "{refused:?}");
    }
    assert_eq!(world.ask(&["drain", "www_hello/a"]).code, Some(0));
    world.await_usable("www_hello", &["b"]);
    world.terminate();
    world.start(&[]);
    world.await_ready();
    world.await_usable("www_hello", &["b"]);
    assert_eq!(met(&world, vip, 12), only("b"));
    world.finish();
}

#[test]
fn an_instance_that_leaves_the_file_keeps_its_flows_for_the_time_of_a_drain() {
    let (world, [_a, b], vip) = World::with_two();
    let old = flow_to(&world, vip, "a");
    let text = service("www_hello", &[&b]);
    let options = "options = { lb_drain = \"1s\" }\n";
    world.publish(&text.replace(
        "[[service.instance]]",
        &format!("{options}[[service.instance]]"),
    ));
    world.await_usable("www_hello", &["b"]);
    assert_eq!(met(&world, vip, 12), only("b"));
    assert_eq!(greeting(&old).unwrap(), "a");
    world.finish();
}

#[test]
fn a_broken_application_behind_an_open_port_leaves_and_comes_back() {
    let (world, [a, b], vip) = World::with_two();
    let text = service("www_hello", &[&a, &b]);
    let options = "options = { lb_check = \"http /\" }\n[[service.instance]]";
    world.publish(&text.replacen("[[service.instance]]", options, 1));
    world.await_report(|report| {
        let check = report.service("www_hello")?["check"].as_str()?;
        check.contains("http").then_some(())
    });
    world.await_usable("www_hello", &["a", "b"]);
    a.break_application(true);
    world.await_usable("www_hello", &["b"]);
    assert_eq!(met(&world, vip, 12), only("b"));
    a.break_application(false);
    world.await_usable("www_hello", &["a", "b"]);
    world.finish();
}

#[test]
fn a_service_of_chosen_ports_answers_on_those_and_refuses_the_others() {
    let (world, [a, _b], _) = World::with_two();
    let options = "options = { lb_port = \"80,5432\" }\n[[service.instance]]";
    world.publish(&service("chosen", &[&a]).replace("[[service.instance]]", options));
    let vip = world.await_usable("chosen", &["a"]);
    for port in [80, 5432] {
        let flow = eventually(LIMIT, || world.connect(vip, port)).unwrap();
        assert_eq!(greeting(&flow).unwrap(), "a");
    }
    for port in [81, a.address().port()] {
        let error = world.connect(vip, port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{port}");
    }
    world.finish();
}

#[test]
fn a_hundred_changes_in_a_row_lose_no_flow_and_end_with_the_last() {
    let (world, [a, b], vip) = World::with_two();
    let netns = Arc::clone(&world.netns);
    let traffic = Traffic::start(move || greeting(&connect(&netns, vip, 80)?).map(drop));
    let (both, one) = (service("www_hello", &[&a, &b]), service("www_hello", &[&a]));
    for _ in 0..50 {
        world.publish(&one);
        world.publish(&both);
    }
    world.publish(&one);
    world.await_usable("www_hello", &["a"]);
    traffic.await_more(5);
    assert_eq!(traffic.failures(), Vec::<String>::new());
    let settled = eventually(LIMIT, || match met(&world, vip, 12) {
        met if met == only("a") => Ok(()),
        met => Err(format!("{met:?}")),
    });
    settled.unwrap();
    assert_eq!(world.ask(&["status"]).code, Some(0));
    world.finish();
}

#[test]
fn scaling_up_and_down_under_load_fails_no_request() {
    let (world, [a, b], vip) = World::with_two();
    let netns = Arc::clone(&world.netns);
    let front = (Ipv4Addr::LOCALHOST, 80).into();
    let requests = Traffic::start(move || match http(&netns, front, "www.hello", "/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let netns = Arc::clone(&world.netns);
    let flows = Traffic::start(move || greeting(&connect(&netns, vip, 80)?).map(drop));
    let c = Instance::start(&world.netns, "c", [127, 0, 1, 3]);
    for _ in 0..3 {
        world.publish(&service("www_hello", &[&a, &b, &c]));
        world.await_usable("www_hello", &["a", "b", "c"]);
        flows.await_more(5);
        world.publish(&service("www_hello", &[&c]));
        world.await_usable("www_hello", &["c"]);
        flows.await_more(5);
    }
    requests.await_more(5);
    assert_eq!(requests.failures(), Vec::<String>::new());
    assert_eq!(flows.failures(), Vec::<String>::new());
    world.finish();
}
