//! `lb-agent doctor` on a host of its own: each fault that is planted is found, and nothing else.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Command,
    thread,
    time::Instant,
};

use lb_testkit::eventually;
use serde_json::Value;

use crate::kit::{BINARY, Instance, LIMIT, World, limits, service};

/// What `doctor` says there, by the program `before` if it is not empty: its exit status, and of each fault the check, the
/// mark and the sentence.
fn examine(world: &World, before: &[&str], flags: &[&str]) -> (Option<i32>, Vec<[String; 3]>) {
    let config = world.config();
    let mut words: Vec<_> = before.iter().map(|it| (*it).into()).collect();
    words.extend([BINARY, "doctor", "-o", "json", "--config"].map(Into::into));
    words.push(config.into_os_string());
    words.extend(flags.iter().map(Into::into));
    let began = Instant::now();
    let run = || Command::new(&words[0]).args(&words[1..]).output().unwrap();
    let output = world.netns.enter(run).unwrap();
    assert!(
        began.elapsed().as_secs() < 5,
        "it took {:?}",
        began.elapsed()
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let all: Vec<Value> = serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr))
    });
    let is_fault = |it: &&Value| ["error", "warning"].contains(&it["mark"].as_str().unwrap());
    let text = |it: &Value, key| it[key].as_str().unwrap_or_default().to_owned();
    let faults = all.iter().filter(is_fault);
    let faults = faults.map(|it| ["check", "mark", "finding"].map(|key| text(it, key)));
    (output.status.code(), faults.collect())
}

/// Exactly these faults are found: their checks, and a part of what is said.
#[track_caller]
fn finds(world: &World, before: &[&str], flags: &[&str], expected: &[(&str, &str)]) {
    let (code, found) = examine(world, before, flags);
    let checks: Vec<_> = found.iter().map(|it| it[0].as_str()).collect();
    let wanted: Vec<_> = expected.iter().map(|it| it.0).collect();
    assert_eq!(checks, wanted, "{found:#?}");
    for (it, (_, part)) in found.iter().zip(expected) {
        assert!(it[2].contains(part), "{it:?} lacks {part}");
    }
    assert_eq!(code, Some(if expected.is_empty() { 0 } else { 3 }));
}

fn ip(world: &World, arguments: &[&str]) {
    let run = || Command::new("ip").args(arguments).status().unwrap();
    assert!(world.netns.enter(run).unwrap().success(), "{arguments:?}");
}

#[test]
fn faults_are_found_before_an_agent_starts() {
    let world = World::new();
    finds(&world, &[], &[], &[]);
    // It has left nothing behind.
    world.assert_untouched();

    let listener = world
        .netns
        .enter(|| TcpListener::bind("127.0.0.1:80").unwrap())
        .unwrap();
    let own = format!("process {}", std::process::id());
    finds(&world, &[], &[], &[("ports", &own)]);
    drop(listener);

    ip(&world, &["route", "add", "198.18.5.0/24", "dev", "lo"]);
    finds(&world, &[], &[], &[("pool", "198.18.5.0/24")]);
    ip(&world, &["route", "del", "198.18.5.0/24", "dev", "lo"]);

    finds(
        &world,
        &[],
        &["--bpffs", "/nowhere"],
        &[("bpffs", "/nowhere")],
    );
    finds(&world, &[], &["--cgroup", "/tmp"], &[("cgroup", "/tmp")]);
    finds(
        &world,
        &[],
        &["--consul", "127.0.0.1:1"],
        &[("consul", "127.0.0.1:1")],
    );
    finds(
        &world,
        &[],
        &["--docker", "/none.sock"],
        &[("docker", "/none.sock")],
    );
    finds(
        &world,
        &[],
        &["--dns", "198.18.0.1:54", "--pool", "x"],
        &[("configuration", "--pool")],
    );
    let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    world.netns.enter(forward).unwrap().unwrap();
    let packets = ["--packet-client", "lb-tap0"];
    finds(&world, &[], &packets, &[]);
    // Only where a client is: elsewhere nobody meets itself.
    ip(&world, &["link", "add", "lb-tap0", "type", "veth"]);
    for device in ["lo", "lb-tap0"] {
        ip(&world, &["addr", "add", "169.254.0.1/16", "dev", device]);
    }
    let met = "169.254.0.0/16 on lb-tap0 contains 169.254.255.77";
    finds(&world, &[], &packets, &[("networks", met)]);
    ip(&world, &["link", "del", "lb-tap0"]);
    ip(&world, &["addr", "del", "169.254.0.1/16", "dev", "lo"]);
    let few = ["prlimit", "--nofile=64:64"];
    finds(&world, &few, &[], &[("open files", "64 files")]);
    let [bounding, inherited] = limits(&["net_admin", "bpf"]);
    let weak = ["setpriv", &bounding, &inherited];
    finds(
        &world,
        &weak,
        &[],
        &[("capabilities", "CAP_PERFMON missing")],
    );
    finds(&world, &[], &[], &[]);
    world.finish();
}

#[test]
fn all_faults_are_found_at_once() {
    let world = World::new();
    let _listener = world
        .netns
        .enter(|| TcpListener::bind("127.0.0.1:80").unwrap())
        .unwrap();
    ip(&world, &["route", "add", "198.18.5.0/24", "dev", "lo"]);
    let flags = [
        "--bpffs",
        "/nowhere",
        "--cgroup",
        "/tmp",
        "--consul",
        "127.0.0.1:1",
        "--docker",
        "/none.sock",
    ];
    let few = ["prlimit", "--nofile=64:64"];
    let (code, found) = examine(&world, &few, &flags);
    let mut checks: Vec<_> = found.iter().map(|it| it[0].as_str()).collect();
    checks.sort_unstable();
    assert_eq!(
        checks,
        [
            "bpffs",
            "cgroup",
            "consul",
            "docker",
            "open files",
            "pool",
            "ports"
        ],
        "{found:#?}"
    );
    assert!(
        found.is_sorted_by_key(|it| it[1] == "warning"),
        "{found:#?}"
    );
    assert_eq!(code, Some(3));
    world.finish();
}

#[test]
fn a_living_agent_is_asked_and_its_vips_are_tried() {
    let (mut world, _a, _vip) = World::with_one();
    // Processes of this test are below the agent's cgroup.
    finds(&world, &[], &["--probe"], &[]);
    // Nothing of a restart is in the way of the next.
    world.terminate();
    finds(&world, &[], &[], &[]);
    let pins = world.path("bpf").join("lb");
    let alien = pins.join("v9999");
    world
        .netns
        .enter(|| std::fs::create_dir(&alien).unwrap())
        .unwrap();
    finds(&world, &[], &[], &[("pins", "v9999")]);
    world
        .netns
        .enter(|| std::fs::remove_dir(&alien).unwrap())
        .unwrap();
    world.finish();
}

#[test]
fn a_filter_before_the_engine_that_refuses_is_found() {
    let world = World::new();
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let filter = world.netns.enter(bind).unwrap();
    let place = format!("tcp://{}", filter.local_addr().unwrap());
    // It ends with the process.
    thread::spawn(move || {
        for client in filter.incoming().map_while(Result::ok) {
            let mut head = BufReader::new(&client);
            let mut line = String::new();
            while head.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
            (&client).write_all(answer).unwrap();
        }
    });
    finds(&world, &[], &["--docker", &place], &[("docker", "403")]);
    world.finish();
}

#[test]
fn a_full_map_is_found_by_asking_the_agent() {
    let mut world = World::new();
    world.configure(&format!("{}[limits]\nbackends = 2\n", world.usual()));
    let all = [("a", 1), ("b", 2), ("c", 3)];
    let all = all.map(|(id, last)| Instance::start(&world.netns, id, [127, 0, 1, last]));
    world.publish(&service("www_hello", &[&all[0], &all[1], &all[2]]));
    world.start(&[]);
    let found = eventually(LIMIT, || {
        let (_, found) = examine(&world, &[], &[]);
        match found.iter().find(|it| it[0] == "problems") {
            Some(_) => Ok(()),
            None => Err(format!("{found:?}")),
        }
    });
    found.unwrap();
    world.finish();
}
