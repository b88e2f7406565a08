//! What the kernel decides, seen while it does and foretold: `trace` and `explain`.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
};

use aya::maps::{HashMap, Map, MapData};
use lb_common::{MAP_VERSION, Service, ServiceKey, flag, map};
use lb_testkit::{Netns, Spawn, eventually};
use serde_json::Value;

use crate::{
    choices::with_options,
    kit::{BINARY, LIMIT, World},
};

/// A running `lb-agent trace`.
struct Trace {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Trace {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut process = Command::new(BINARY)
            .arg("--socket")
            .arg(world.path("admin.sock"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The next line; an empty one after the last.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the maps ask the programs to tell the decisions for any service, in any view.
fn told(world: &World) -> bool {
    let pin = world.path(&format!("bpf/lb/v{MAP_VERSION}/{}", map::SERVICES));
    let flags = world.netns.enter(|| {
        let pinned = MapData::from_pin(pin).unwrap();
        let services = HashMap::<_, ServiceKey, Service>::try_from(Map::HashMap(pinned)).unwrap();
        let flags = services.iter().map(|entry| entry.unwrap().1.flags);
        flags.fold(0, |all, flags| all | flags)
    });
    flags.unwrap() & flag::TRACE != 0
}

#[track_caller]
fn await_silence(world: &World) {
    let silent = eventually(LIMIT, || match told(world) {
        false => Ok(()),
        true => Err("the programs still tell"),
    });
    silent.unwrap();
}

#[test]
fn decisions_are_told_while_somebody_follows_and_no_longer() {
    let (world, a, vip) = World::with_one();
    assert!(!told(&world));
    let mut trace = Trace::start(&world, &["trace", "www_hello"]);
    assert!(trace.line().starts_with("TIME "));
    assert!(told(&world));
    world.connect(vip, 80).unwrap();
    let line = trace.line();
    for word in [
        format!(" {} ", std::process::id()),
        " host ".to_owned(),
        format!(" {vip}:80 "),
        format!("/a at {}\n", a.address()),
    ] {
        assert!(line.contains(&word), "{word} is not in {line}");
    }
    assert_eq!(world.ask(&["drain", "www_hello/a"]).code, Some(0));
    let refused = eventually(LIMIT, || match world.connect(vip, 81) {
        Err(_) => Ok(()),
        Ok(_) => Err("the drain does not act"),
    });
    refused.unwrap();
    let refusal = loop {
        match trace.line() {
            line if line.contains(" at ") => {}
            line => break line,
        }
    };
    assert!(refusal.contains(&format!(" {vip}:81 ")), "{refusal}");
    assert!(refusal.ends_with("refused: no-backend\n"), "{refusal}");
    // It vanishes without a word.
    drop(trace);
    await_silence(&world);
    world.finish();
}

#[test]
fn a_trace_of_so_many_ends_by_itself_and_two_hear_the_same() {
    let (world, _a, vip) = World::with_one();
    let follow = ["trace", "www_hello", "--count", "3", "-o", "json"];
    let mut both = [0, 1].map(|_| Trace::start(&world, &["trace", "www_hello", "--count", "3"]));
    for trace in &mut both {
        assert!(trace.line().starts_with("TIME "));
    }
    let _held: Vec<_> = (1..=3)
        .map(|port| world.connect(vip, port).unwrap())
        .collect();
    let [one, other] = both.each_mut().map(|trace| [(); 4].map(|()| trace.line()));
    assert_eq!(one, other);
    assert_eq!(one.iter().filter(|line| line.contains(" at ")).count(), 3);
    assert_eq!(one[3], "");
    for trace in &mut both {
        assert!(trace.process.wait().unwrap().success());
    }
    await_silence(&world);
    // JSON has no head; the flag says that it has begun.
    let mut json = Trace::start(&world, &follow);
    eventually(LIMIT, || told(&world).then_some(()).ok_or("nobody follows")).unwrap();
    let _more: Vec<_> = (1..=3)
        .map(|port| world.connect(vip, port).unwrap())
        .collect();
    for port in 1..=3 {
        let line: Value = serde_json::from_str(&json.line()).unwrap();
        assert_eq!(line["vip"], format!("{vip}:{port}"));
        assert_eq!(line["pid"], std::process::id());
        assert_eq!(line["view"], 0);
        assert!(line["refused"].is_null(), "{line}");
    }
    let nobody = world.ask(&["trace", "nobody"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.err.contains("lb-agent services"), "{nobody:?}");
    world.finish();
}

#[test]
fn an_agent_that_ends_ends_its_traces() {
    let (mut world, _a, _) = World::with_one();
    let mut trace = Trace::start(&world, &["trace", "www_hello"]);
    assert!(trace.line().starts_with("TIME "));
    world.terminate();
    assert_eq!(trace.line(), "");
    assert_eq!(trace.process.wait().unwrap().code(), Some(1));
    // What it left set is taken away by the next one.
    world.start(&[]);
    world.await_ready();
    await_silence(&world);
    world.finish();
}

#[test]
fn what_a_connect_would_do_is_explained() {
    let (world, [a, b], vip) = World::with_two();
    let explain = |client: &str| -> Value {
        let asked = world.ask(&["explain", client, "www_hello", "-o", "json"]);
        assert_eq!(asked.code, Some(0), "{asked:?}");
        serde_json::from_str(&asked.out).unwrap()
    };
    let host = explain("host");
    assert_eq!(host["vip"], vip.to_string());
    assert_eq!(
        (&host["view"], &host["ways"][0]["choices"]),
        (&0.into(), &2.into())
    );
    for (backend, instance) in host["backends"].as_array().unwrap().iter().zip([&a, &b]) {
        assert_eq!(backend["address"], instance.address().to_string());
        assert_eq!(backend["verdict"], "given");
        assert_eq!(backend["share_permille"], 500);
    }
    // A process of the agent's own namespace, and one of another, which is of no container that is known.
    let elsewhere = Netns::new("agent-test-client").unwrap();
    let here = world.agent_id().to_string();
    assert_eq!(explain(&here)["client"]["cookie"], Value::Null);
    let process = Spawn::new("client", "sleep").arg("1000").netns(&elsewhere);
    let mut process = process.start().unwrap();
    let there = explain(&process.id().to_string());
    assert!(there["client"]["cookie"].is_number(), "{there}");
    assert_eq!(there["view"], 0);
    process.kill().unwrap();

    assert_eq!(world.ask(&["drain", "www_hello"]).code, Some(0));
    let drained = eventually(LIMIT, || {
        match world.ask(&["explain", "host", "www_hello"]) {
            asked if asked.out.contains("next      refused: no-backend\n") => Ok(asked.out),
            asked => Err(format!("{asked:?}")),
        }
    });
    let drained = drained.unwrap();
    assert_eq!(drained.matches("draining\n").count(), 2, "{drained}");
    world.finish();
}

#[test]
fn where_the_hash_of_a_client_leads_is_what_the_kernel_decides() {
    let (world, [a, b], vip) = World::with_two();
    world.publish(&with_options(
        "www_hello",
        &[&a, &b],
        "lb_balance = \"maglev\"",
    ));
    let next = |client: &str| {
        let asked = world.ask(&["explain", client, "www_hello", "-o", "json"]);
        let told: Value = serde_json::from_str(&asked.out).unwrap();
        told["ways"][0]["leads_to"].as_str().map(str::to_owned)
    };
    eventually(LIMIT, || next("host").ok_or("not yet")).unwrap();
    let clients = [(); 6].map(|()| Netns::new("agent-test-client").unwrap());
    let mut trace = Trace::start(&world, &["trace", "www_hello", "--count", "6"]);
    assert!(trace.line().starts_with("TIME "));
    for client in &clients {
        let process = Spawn::new("client", "sleep").arg("1000").netns(client);
        let mut process = process.start().unwrap();
        let address = next(&process.id().to_string()).unwrap();
        process.kill().unwrap();
        // From there no backend is reached, but one is chosen.
        drop(client.enter(|| TcpStream::connect((vip, 80))).unwrap());
        let line = trace.line();
        assert!(
            line.ends_with(&format!(" at {address}\n")),
            "{line}{address}"
        );
    }
    world.finish();
}

#[test]
fn refusals_and_connect_times_are_counted() {
    let (world, [a, b], vip) = World::with_two();
    let _held: Vec<_> = (0..20).map(|_| world.connect(vip, 80).unwrap()).collect();
    let nobody = Ipv4Addr::new(198, 18, 255, 254);
    world.connect(nobody, 80).unwrap_err();
    let connects = world.await_report(|report| {
        let service = report.service("www_hello")?;
        let connects = service["connects"]["count"].as_u64()?;
        (connects == 20 && report.0["data_plane"]["unknown"].as_u64()? > 0).then(|| service.clone())
    });
    let of_each = connects["backends"].as_array().unwrap().iter();
    let of_each: Vec<_> = of_each
        .map(|it| it["connects"]["count"].as_u64().unwrap())
        .collect();
    assert_eq!(of_each.iter().sum::<u64>(), 20);
    assert!(of_each.iter().all(|&count| count > 0), "{of_each:?}");
    assert!(
        connects["connects"]["p99_microseconds"].is_number(),
        "{connects}"
    );
    drop((a, b));
    world.finish();
}
