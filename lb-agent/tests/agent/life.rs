//! The agent's own life: what ends with it, what outlives it, what its successor finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_testkit::{Netns, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::kit::{Instance, LIMIT, Traffic, World, connect, greeting, http, service};

/// The addresses of all services, which a successor must find as they were.
fn addresses(world: &World) -> BTreeMap<String, String> {
    let report = world.report();
    let services = report.0["services"].as_array().unwrap().iter();
    services
        .map(|it| (it["name"].to_string(), it["vip"].to_string()))
        .collect()
}

/// The instances that some new flows meet, open all at once: whoever may be chosen then is, sooner or later.
fn met(world: &World, vip: Ipv4Addr) -> Vec<String> {
    let flows: Vec<_> = (0..16).map(|_| world.connect(vip, 80).unwrap()).collect();
    let met: BTreeSet<_> = flows.iter().map(|flow| greeting(flow).unwrap()).collect();
    met.into_iter().collect()
}

/// A client of the front that wants every request answered with 200.
pub(crate) fn requests(netns: &Arc<Netns>) -> Traffic {
    let netns = Arc::clone(netns);
    let front = (Ipv4Addr::LOCALHOST, 80).into();
    Traffic::start(move || match http(&netns, front, "www.hello", "/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// A client of the VIP that wants every flow served.
fn flows(netns: &Arc<Netns>, vip: Ipv4Addr) -> Traffic {
    let netns = Arc::clone(netns);
    Traffic::start(move || {
        let stream = connect(&netns, vip, 80)?;
        greeting(&stream).map(drop)
    })
}

#[test]
fn sigterm_ends_the_agent_and_its_front_and_balancing_goes_on() {
    let (mut world, _instances, vip) = World::with_two();
    let flow = world.connect(vip, 80).unwrap();
    let before = greeting(&flow).unwrap();
    let front = world.children();
    assert_eq!(front.len(), 1, "one front: {front:?}");
    let asked = Instant::now();
    world.terminate();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "after {took:?}");
    for id in front {
        assert!(!PathBuf::from(format!("/proc/{id}")).exists(), "{id} lives");
    }
    assert_eq!(greeting(&flow).unwrap(), before);
    assert_eq!(met(&world, vip), ["a", "b"]);
    let nobody = world.connect(Ipv4Addr::new(198, 18, 255, 77), 80);
    assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    // Nobody answers the commands any more, and they say where they asked.
    for command in ["status", "services", "healthcheck"] {
        let asked = world.ask(&[command]);
        assert_eq!(asked.code, Some(1), "{asked:?}");
        assert!(asked.err.contains("admin.sock"), "{asked:?}");
    }
    world.finish();
}

#[test]
fn sigterm_with_idle_connections_everywhere_still_ends_within_seconds() {
    let (mut world, _instances, _) = World::with_two();
    let open = |address: Ipv4Addr, port| connect(&world.netns, address, port).unwrap();
    let idle = [
        open(Ipv4Addr::LOCALHOST, 80),
        open(Ipv4Addr::LOCALHOST, 9180),
        open(Ipv4Addr::new(198, 18, 0, 1), 53),
    ];
    let asked = Instant::now();
    world.terminate();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "after {took:?}");
    for mut stream in idle {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // Closed, by FIN or by RST, but not left hanging.
        match stream.read(&mut [0; 16]) {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    world.finish();
}

#[test]
fn a_request_under_way_is_answered_before_the_agent_ends() {
    let (mut world, _instances, _) = World::with_two();
    let mut stream = connect(&world.netns, Ipv4Addr::LOCALHOST, 80).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let asked = b"GET / HTTP/1.1\r\nHost: www.hello\r\n\r\n";
    // An answer on the same connection says that the front has it.
    stream.write_all(asked).unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream.write_all(asked).unwrap();
    world.terminate();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    world.finish();
}

#[test]
fn a_killed_agent_is_not_noticed_and_its_successor_adopts_everything() {
    let (mut world, _instances, vip) = World::with_two();
    let old: Vec<_> = (0..6).map(|_| world.connect(vip, 80).unwrap()).collect();
    let before: Vec<_> = old.iter().map(|flow| greeting(flow).unwrap()).collect();
    let (addresses_before, front) = (addresses(&world), world.children());
    assert_eq!(front.len(), 1, "one front: {front:?}");

    let traffic = [requests(&world.netns), flows(&world.netns, vip)];
    let more = || traffic.iter().for_each(|it| it.await_more(10));
    more();
    world.kill();
    more();
    assert_eq!(world.children(), front, "the front outlives the agent");
    world.start(&[]);
    world.await_ready();
    more();
    for traffic in traffic {
        assert_eq!(traffic.failures(), Vec::<String>::new(), "{}", world.said());
    }

    world.await_usable("www_hello", &["a", "b"]);
    assert_eq!(addresses(&world), addresses_before);
    assert_eq!(world.children(), front, "the front is adopted");
    let after: Vec<_> = old.iter().map(|flow| greeting(flow).unwrap()).collect();
    assert_eq!(after, before);
    // The counts go on with the same backends: exactly the old flows are open, and end one by one.
    let open = |wanted: u64| {
        world.await_report(|report| {
            let flows = &report.service("www_hello")?["flows"];
            (flows["active"] == wanted).then_some(())
        });
    };
    open(6);
    let mut old = old;
    old.truncate(2);
    open(2);
    world.finish();
}

#[test]
fn a_kill_at_any_moment_of_a_start_breaks_nothing() {
    let (mut world, _instances, vip) = World::with_two();
    let front = world.children();
    let traffic = [requests(&world.netns), flows(&world.netns, vip)];
    let more = || traffic.iter().for_each(|it| it.await_more(5));
    for moment in [
        "resolved configuration",
        "adopted",
        "running",
        "first snapshot",
        "ready",
    ] {
        world.kill();
        world.start(&[]);
        let reached = eventually(LIMIT, || match world.said() {
            said if said.contains(moment) => Ok(()),
            said => Err(said),
        });
        reached.unwrap_or_else(|late| panic!("{moment}: {late}"));
        more();
    }
    world.kill();
    more();
    world.start(&[]);
    world.await_ready();
    more();
    for traffic in traffic {
        assert_eq!(traffic.failures(), Vec::<String>::new(), "{}", world.said());
    }
    assert_eq!(world.await_usable("www_hello", &["a", "b"]), vip);
    assert_eq!(world.children(), front, "one front, the same");
    assert_eq!(world.ask(&["status"]).code, Some(0));
    world.finish();
}

#[test]
fn a_kill_in_the_middle_of_the_very_first_start_leaves_nothing_that_hinders_the_next() {
    let mut world = World::new();
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    world.publish(&service("www_hello", &[&a]));
    for moment in ["resolved configuration", "attached", "VIP given"] {
        world.start(&[]);
        let reached = eventually(LIMIT, || match world.said() {
            said if said.contains(moment) || said.contains("first snapshot") => Ok(()),
            said => Err(said),
        });
        reached.unwrap_or_else(|late| panic!("{moment}: {late}"));
        world.kill();
    }
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    world.assert_serves(vip, "a");
    world.await_fine();
    world.finish();
}

#[test]
fn an_agent_and_a_front_that_died_together_are_replaced_together() {
    let (mut world, _instances, vip) = World::with_two();
    let flow = world.connect(vip, 80).unwrap();
    let front = world.children()[0];
    world.kill();
    let id = Pid::from_raw(i32::try_from(front).unwrap());
    kill(id, Signal::SIGKILL).unwrap();
    let gone = eventually(LIMIT, || match world.children() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    gone.unwrap();
    assert!(greeting(&flow).is_ok());
    assert_eq!(met(&world, vip), ["a", "b"]);
    world.start(&[]);
    world.await_ready();
    assert_eq!(world.front("www.hello").unwrap().status, 200);
    world.finish();
}

#[test]
fn what_changed_while_no_agent_ran_is_found_by_the_next_one() {
    let (mut world, [a, b], vip) = World::with_two();
    world.kill();
    let c = Instance::start(&world.netns, "c", [127, 0, 1, 3]);
    world.publish(&(service("www_hello", &[&b, &c]) + &service("other", &[&a])));
    world.start(&[]);
    world.await_ready();
    assert_eq!(world.await_usable("www_hello", &["b", "c"]), vip);
    let other = world.await_usable("other", &["a"]);
    assert_eq!(met(&world, vip), ["b", "c"]);
    assert_eq!(met(&world, other), ["a"]);
    assert_eq!(world.front("other.localhost").unwrap().body, "a");
    world.finish();
}

#[test]
fn a_restart_in_good_order_loses_no_flow_and_no_address() {
    let (mut world, _instances, vip) = World::with_two();
    let flow = world.connect(vip, 80).unwrap();
    let before = greeting(&flow).unwrap();
    let addresses_before = addresses(&world);
    let traffic = flows(&world.netns, vip);
    traffic.await_more(10);
    world.terminate();
    traffic.await_more(10);
    world.start(&[]);
    world.await_ready();
    traffic.await_more(10);
    assert_eq!(traffic.failures(), Vec::<String>::new(), "{}", world.said());
    assert_eq!(addresses(&world), addresses_before);
    assert_eq!(greeting(&flow).unwrap(), before);
    world.finish();
}

#[test]
fn a_front_that_dies_is_replaced_and_the_data_plane_does_not_notice() {
    let (world, _instances, vip) = World::with_two();
    let front = world.children()[0];
    let traffic = flows(&world.netns, vip);
    let id = Pid::from_raw(i32::try_from(front).unwrap());
    kill(id, Signal::SIGKILL).unwrap();
    let replaced = eventually(LIMIT, || match world.front("www.hello") {
        Ok(answer) if answer.status == 200 && !world.children().contains(&front) => Ok(()),
        other => Err(format!("{other:?}, {:?}", world.children())),
    });
    replaced.unwrap();
    traffic.await_more(10);
    assert_eq!(traffic.failures(), Vec::<String>::new());
    assert_eq!(world.page("/ready").unwrap().status, 200);
    world.finish();
}

#[test]
fn the_front_has_no_capability_at_all() {
    let (world, _a, _) = World::with_one();
    let front = world.children()[0];
    let status = fs::read_to_string(format!("/proc/{front}/status")).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        let bits = line.unwrap().trim_start_matches(':').trim();
        assert_eq!(
            u64::from_str_radix(bits, 16).unwrap(),
            0,
            "{set} of {status}"
        );
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    world.finish();
}
