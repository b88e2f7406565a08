//! An agent that is killed at any moment, again and again, under load.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    thread,
    time::Instant,
};

use lb_testkit::{Netns, eventually};

use crate::{
    crowd::{Crowd, Echoes, MANY},
    former::Former,
    kit::{LIMIT, Traffic, World, connect, greeting},
};

/// How often the agent is killed.
const KILLS: usize = 15;

/// A client of the VIP that wants every flow served.
fn flows(netns: &Arc<Netns>, vip: Ipv4Addr) -> Traffic {
    let netns = Arc::clone(netns);
    Traffic::start(move || {
        let stream = connect(&netns, vip, 80)?;
        greeting(&stream).map(drop)
    })
}

/// A services file with `www_hello`, served by all of these.
fn service(echoes: &Echoes) -> String {
    let instance = |at: &SocketAddrV4| {
        let (ip, port) = (at.ip(), at.port());
        format!("[[service.instance]]\nid = \"{port}\"\naddress = \"{ip}\"\nport = {port}\n")
    };
    let instances: String = echoes.addresses.iter().map(instance).collect();
    format!("[[service]]\nname = \"www_hello\"\n{instances}")
}

/// The address of the service, once all of these are usable.
fn await_usable(world: &World, echoes: &Echoes) -> Ipv4Addr {
    let ids: BTreeSet<_> = echoes
        .addresses
        .iter()
        .map(|it| it.port().to_string())
        .collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    world.await_usable("www_hello", &ids)
}

/// Flows of the service: all that there were, and those that are open.
fn await_flows(world: &World, total: u64, active: u64) {
    let counted = eventually(LIMIT, || {
        let report = world.report();
        let flows = &report.service("www_hello").unwrap()["flows"];
        if flows["total"] == total && flows["active"] == active {
            Ok(())
        } else {
            Err(format!(
                "{flows} instead of {total} in all and {active} open"
            ))
        }
    });
    counted.unwrap();
}

/// Kills and starts agents while clients connect, and answers how many flows there were. First each is killed as soon
/// as one of these `pins` is there. Then the moments are those of the clients: so many tries after the start, a
/// different number each time.
fn kill_and_start(world: &mut World, vip: Ipv4Addr, pins: &[&str]) -> u64 {
    let traffic = [flows(&world.netns, vip), flows(&world.netns, vip)];
    for pin in pins {
        world.start(&[]);
        let (path, late) = (world.path("bpf/lb").join(pin), Instant::now() + LIMIT);
        let seen = world.netns.enter(|| {
            // Without a rest: what comes after it takes less than a millisecond.
            while !path.exists() && Instant::now() < late {
                thread::yield_now();
            }
            path.exists()
        });
        world.kill();
        assert!(seen.unwrap(), "no {pin}:\n{}", world.said());
        traffic[0].await_more(5);
    }
    for kill in 0..KILLS {
        // From before the first look at the pins to after the agent is ready.
        let moment = (kill * 37) % 100;
        traffic[0].await_more(moment);
        if world.is_running() {
            world.kill();
        }
        traffic[1].await_more(3);
        world.start(&[]);
    }
    world.await_ready();
    traffic[0].await_more(5);
    let mut served = 0;
    for traffic in traffic {
        let (tries, failures) = traffic.end();
        assert_eq!(failures, Vec::<String>::new(), "{}", world.said());
        served += tries;
    }
    served as u64
}

#[test]
fn kills_at_any_moment_lose_no_connect_no_flow_and_no_count() {
    let mut echoes = None;
    let mut world = World::with_services(|netns| service(echoes.insert(Echoes::start(netns, 2))));
    let echoes = echoes.unwrap();
    let vip = await_usable(&world, &echoes);
    let held = Crowd::open(&world.netns, vip);
    let many = MANY as u64;
    let front = world.children();
    let served = kill_and_start(&mut world, vip, &[]);
    await_flows(&world, served + many, many);
    held.assert_alive();
    assert_eq!(world.children(), front, "one front, the same");
    // All of it at once: flows need nobody.
    world.kill_all();
    held.assert_alive();
    world.start(&[]);
    world.await_ready();
    await_flows(&world, served + many, many);
    held.assert_alive();
    drop(held);
    await_flows(&world, served + many, 0);
    world.await_fine();
    world.finish();
}

#[test]
fn kills_during_a_change_of_map_version_lose_no_connect_no_flow_and_no_count() {
    let mut world = World::new();
    // As much as the former agent's maps have room for.
    let usual = world.usual();
    world.configure(&format!("{usual}[limits]\nservices = 31\nbackends = 31\n"));
    let echoes = Echoes::start(&world.netns, 1);
    world.publish(&service(&echoes));
    // Which address the service has: a first agent tells, and is taken away.
    world.start(&[]);
    world.await_ready();
    let vip = await_usable(&world, &echoes);
    world.terminate();
    assert_eq!(world.uninstall(&["--purge"]).code, Some(0));
    world
        .netns
        .ip("route add unreachable 198.18.0.0/16\n")
        .unwrap();

    let former = world.netns.enter(|| {
        let own = [198, 18, 0, 1].into();
        let mut former = Former::start(&world.path("bpf"), &world.clients(), own);
        former.backend(5, 3, Some(echoes.addresses[0]));
        former.serve(vip, 6, 12, &[5]);
    });
    former.unwrap();
    let held = Crowd::open(&world.netns, vip);
    let many = MANY as u64;
    // The new maps, made one by one and then filled; the first new links; the last one before that which begins
    // most flows; and what is done when all programs are replaced.
    let pins = [
        "v2/BACKENDS",
        "v2/TRACES",
        "links/getpeername6",
        "links/connect6",
        "v2/FORMER_COUNTERS",
    ];
    let served = kill_and_start(&mut world, vip, &pins);
    await_flows(&world, served + many, many);
    held.assert_alive();
    drop(held);
    await_flows(&world, served + many, 0);
    let left = world
        .netns
        .enter(|| world.path("bpf/lb/v1").exists())
        .unwrap();
    assert!(!left, "{}", world.said());
    world.await_fine();
    world.finish();
}
