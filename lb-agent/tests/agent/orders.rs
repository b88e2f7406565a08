//! What an operator orders of an instance: drain, maintenance and their deadlines, seen by real connections.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant, SystemTime},
};

use lb_testkit::eventually;
use serde_json::Value;

use crate::{
    drains::{CUT, end_of, flow_to},
    kit::{LIMIT, World, greeting},
};

/// How much later than ordered flows may end.
const SLACK: Duration = Duration::from_secs(2);

#[track_caller]
fn order(world: &World, arguments: &[&str]) {
    let asked = world.ask(arguments);
    assert_eq!(asked.code, Some(0), "{asked:?}");
}

/// Which instances twelve new flows meet, all open at once.
fn met(world: &World, vip: Ipv4Addr) -> BTreeSet<String> {
    let flows: Vec<_> = (0..12).map(|_| world.connect(vip, 80).unwrap()).collect();
    flows.iter().map(|flow| greeting(flow).unwrap()).collect()
}

fn these<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

/// What the report says of this instance of `www_hello`.
fn shown(world: &World, id: &str) -> Value {
    let report = world.report();
    let backends = report.service("www_hello").unwrap()["backends"].as_array();
    let mut backends = backends.unwrap().iter();
    backends.find(|it| it["id"] == id).unwrap().clone()
}

#[track_caller]
fn assert_lives(flow: &TcpStream, id: &str) {
    assert_eq!(greeting(flow).unwrap(), id);
}

#[test]
fn maintenance_ends_flows_that_a_drain_leaves_and_is_seen_everywhere() {
    let (world, _instances, vip) = World::with_two();
    let (to_a, to_b) = (flow_to(&world, vip, "a"), flow_to(&world, vip, "b"));
    order(&world, &["drain", "www_hello/a"]);
    assert_eq!(met(&world, vip), these(["b"]));
    assert_lives(&to_a, "a");

    let ordered = Instant::now();
    order(&world, &["maintenance", "www_hello/a"]);
    assert_eq!(end_of(&to_a), CUT);
    let took = ordered.elapsed();
    assert!(took < SLACK, "after {took:?}");
    assert_eq!(met(&world, vip), these(["b"]));
    assert_lives(&to_b, "b");
    for _ in 0..8 {
        assert_eq!(world.front("www.hello.localhost").unwrap().body, "b");
    }

    let backend = shown(&world, "a");
    assert_eq!(
        (&backend["state"], &backend["mode"]),
        (&"maintenance".into(), &"maintenance".into())
    );
    for line in [
        "lb_service_backends{service=\"www_hello\",state=\"maintenance\"} 1",
        "lb_admin_actions_total{action=\"maintenance\",result=\"ok\"} 1",
        // Counted when the agent has looked everywhere, which is after the client noticed.
        "lb_drain_cut_flows_total 1",
    ] {
        let told = eventually(LIMIT, || match world.page("/metrics") {
            Ok(page) if page.body.contains(line) => Ok(()),
            page => Err(format!("no {line} in {page:?}")),
        });
        told.unwrap();
    }
    let explained = world.ask(&["explain", "host", "www_hello"]);
    assert!(explained.out.contains("maintenance\n"), "{explained:?}");
    let table = world.ask(&["backends", "www_hello"]);
    assert!(table.out.contains("maintenance"), "{table:?}");
    let page = world.page("/").unwrap().body;
    assert!(page.contains("data-mode=\"maintenance\""), "{page}");
    let events = world.ask(&["events", "-o", "json"]).json();
    let changes = events.as_array().unwrap().iter();
    let changes = changes.filter(|it| it["kind"] == "change");
    let told: Vec<_> = changes.map(|it| (&it["from"], &it["to"])).collect();
    let text = |state: &str| Value::from(format!("file/a {state}"));
    let [usable, drained, out] = ["usable", "draining", "maintenance"].map(text);
    assert_eq!(told, [(&usable, &drained), (&drained, &out)]);

    order(&world, &["maintenance", "www_hello/a", "--undo"]);
    assert_eq!(met(&world, vip), these(["a", "b"]));
    assert_lives(&to_b, "b");
    world.finish();
}

#[test]
fn a_deadline_of_its_own_ends_the_flows_of_a_drain_and_of_maintenance() {
    let (world, _instances, vip) = World::with_two();
    for command in ["drain", "maintenance"] {
        let (to_a, to_b) = (flow_to(&world, vip, "a"), flow_to(&world, vip, "b"));
        let ordered = Instant::now();
        let given = [command, "www_hello/a", "--deadline", "2s"];
        order(&world, &given);
        assert_eq!(met(&world, vip), these(["b"]));
        // Much less than `lb_drain`, and all of what was said.
        assert_lives(&to_a, "a");
        assert!(shown(&world, "a")["cut_unix"].is_number());
        assert_eq!(end_of(&to_a), CUT);
        let took = ordered.elapsed();
        assert!(took >= Duration::from_secs(2), "{command}: after {took:?}");
        assert!(
            took < Duration::from_secs(2) + SLACK,
            "{command}: after {took:?}"
        );
        assert_lives(&to_b, "b");
        order(&world, &[command, "www_hello/a", "--undo"]);
    }
    world.finish();
}

#[test]
fn who_waits_for_a_drain_counts_down_to_its_own_deadline() {
    let (world, _instances, vip) = World::with_two();
    let to_a = flow_to(&world, vip, "a");
    // The count falls when the application closes what was cut.
    let reader = std::thread::spawn(move || end_of(&to_a));
    let waited = world.ask(&["drain", "www_hello/a", "--deadline", "3s", "--wait"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert!(waited.out.contains("cut after 3 s"), "{waited:?}");
    assert!(waited.err.contains("1 flow left, cut in "), "{waited:?}");
    assert_eq!(reader.join().unwrap(), CUT);

    let to_b = flow_to(&world, vip, "b");
    let reader = std::thread::spawn(move || end_of(&to_b));
    let waited = world.ask(&["maintenance", "www_hello/b", "--wait"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert!(waited.out.contains("cut now"), "{waited:?}");
    assert_eq!(reader.join().unwrap(), CUT);
    world.finish();
}

#[test]
fn a_deadline_that_passes_while_no_agent_runs_ends_the_flows_at_the_next_start() {
    let (mut world, _instances, vip) = World::with_two();
    let (to_a, to_b) = (flow_to(&world, vip, "a"), flow_to(&world, vip, "b"));
    let post = |order: &str| {
        let answer = world.post("/api/v1/instances/state", order).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let (service, long) = ("\"service\":\"www_hello\"", "\"deadline_seconds\":3600");
    let drain = r#""mode":"drain","deadline_seconds":2"#;
    let drained = post(&format!("{{{service},\"backend\":\"a\",{drain}}}"));
    let closed = post(&format!(
        "{{{service},\"backend\":\"b\",\"mode\":\"maintenance\",{long}}}"
    ));
    world.terminate();
    let end = drained["cut_unix"].as_u64().unwrap() + 1;
    let passed = eventually(LIMIT, || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        match now.unwrap().as_secs() {
            now if now > end => Ok(()),
            now => Err(now),
        }
    });
    passed.unwrap();
    // Nobody was there to cut them.
    assert_lives(&to_a, "a");
    world.start(&[]);
    world.await_ready();
    let started = Instant::now();
    assert_eq!(end_of(&to_a), CUT);
    // `lb_drain` would have begun anew.
    let took = started.elapsed();
    assert!(took < SLACK, "after {took:?}");
    assert_lives(&to_b, "b");
    let kept = world.await_report(|report| {
        let backends = report.service("www_hello")?["backends"].as_array()?;
        let b = backends.iter().find(|it| it["id"] == "b")?;
        b["cut_unix"].as_u64()
    });
    let told = closed["cut_unix"].as_u64().unwrap();
    assert!(kept.abs_diff(told) <= 1, "{kept} is not {told}");
    assert_eq!(shown(&world, "b")["state"], "maintenance");
    assert_eq!(shown(&world, "a")["state"], "draining");
    world.finish();
}

#[test]
fn maintenance_outlives_the_agent_and_orders_that_make_no_sense_are_refused() {
    let (mut world, _instances, vip) = World::with_two();
    for (arguments, code) in [
        (&["maintenance", "www_hello/c"][..], 1),
        (&["maintenance", "nobody"], 1),
        (&["drain", "www_hello/a", "--deadline", "2d"], 2),
        (&["drain", "www_hello/a", "--deadline", "5s", "--undo"], 2),
    ] {
        let refused = world.ask(arguments);
        assert_eq!(refused.code, Some(code), "{refused:?}");
    }
    order(&world, &["maintenance", "www_hello/a"]);
    world.terminate();
    world.start(&[]);
    world.await_ready();
    world.await_report(|report| {
        let out = report.instances("www_hello", "maintenance");
        (out == these(["a"])).then_some(())
    });
    assert_eq!(met(&world, vip), these(["b"]));
    world.finish();
}
