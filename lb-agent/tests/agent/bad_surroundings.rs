//! A host that does not let the agent work: one message that names the thing and the remedy, and nothing is left.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
};

use crate::kit::{Instance, World, greeting, service};

#[test]
fn a_cgroup_that_is_not_there_and_one_that_is_none_are_named() {
    let mut world = World::new();
    let folder = world.path("nothing").display().to_string();
    world
        .attempt(&["--cgroup", &folder])
        .expect(1, &[&folder, "cgroup"]);
    world.assert_untouched();
    let folder = world.path("").display().to_string();
    world
        .attempt(&["--cgroup", &folder])
        .expect(1, &[&folder, "cgroup"]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_place_for_pins_that_is_none_is_named() {
    let mut world = World::new();
    for place in ["nothing", "services.toml"] {
        let place = world.path(place).display().to_string();
        world
            .attempt(&["--bpffs", &place])
            .expect(1, &[&place, "--bpffs"]);
        world.assert_untouched();
    }
    world.finish();
}

#[test]
fn a_directory_with_files_in_it_is_not_hidden_below_a_bpffs() {
    let mut world = World::new();
    let folder = world.path("precious");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("data"), "x").unwrap();
    let place = folder.display().to_string();
    let attempt = world.attempt(&["--bpffs", &place]);
    let there = || folder.join("data").exists();
    assert!(world.netns.enter(there).unwrap(), "{}", attempt.said);
    attempt.expect(1, &[&place, "bpffs"]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    let mut world = World::new();
    let place = world.config().join("state").display().to_string();
    world.attempt(&["--state-dir", &place]).expect(1, &[&place]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn missing_privileges_are_named() {
    let mut world = World::new();
    let agent = env!("CARGO_BIN_EXE_lb-agent");
    for (drop, named) in [
        ("-all", "CAP_NET_ADMIN"),
        ("-net_admin", "CAP_NET_ADMIN"),
        ("-sys_admin,-bpf", "CAP_BPF"),
    ] {
        let bounds = [
            format!("--bounding-set={drop}"),
            format!("--inh-caps={drop}"),
        ];
        let attempt = world.attempt_by("setpriv", &[&bounds[0], &bounds[1], agent], &[]);
        attempt.expect(1, &[named]);
        world.assert_untouched();
    }
    world.finish();
}

#[test]
fn taken_ports_are_named_with_the_setting_that_moves_them() {
    let mut world = World::new();
    let listen = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    for (flag, taken) in [("--front", 80), ("--admin", 9180)] {
        let listener = world.netns.enter(|| listen(taken)).unwrap();
        let attempt = world.attempt(&[]);
        attempt.expect(1, &[&format!(":{taken}"), &flag[2..]]);
        drop(listener);
        world.assert_untouched();
    }
    let everywhere = (Ipv4Addr::UNSPECIFIED, 53);
    let udp = world.netns.enter(|| UdpSocket::bind(everywhere).unwrap());
    world.attempt(&[]).expect(1, &[":53", "dns"]);
    drop(udp);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_key_of_cookies_that_cannot_be_used_is_named() {
    let mut world = World::new();
    let key = world.path("sticky.key").display().to_string();
    let setting = format!("[front]\nsticky_key_file = \"{key}\"\n");
    world.configure(&(world.usual() + &setting));
    let refused = [&*key, "[front] sticky_key_file"];
    world.attempt(&[]).expect(1, &refused);
    world.assert_untouched();
    fs::write(&key, "short").unwrap();
    world.attempt(&[]).expect(1, &refused);
    world.assert_untouched();
    world.finish();
}

#[test]
fn resolvers_of_the_host_that_cannot_be_read_are_named_with_the_setting_in_their_place() {
    let mut world = World::new();
    world.configure(&world.usual().replace("upstreams = []\n", ""));
    let etc = world.path("etc");
    fs::create_dir_all(etc.join("resolv.conf")).unwrap();
    world.netns.bind(&etc, Path::new("/etc")).unwrap();
    let attempt = world.attempt(&[]);
    attempt.expect(1, &["/etc/resolv.conf", "[dns] upstreams"]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_pool_that_somebody_else_uses_is_not_taken() {
    let mut world = World::new();
    world
        .netns
        .ip("link add lb-vpn type veth peer name lb-peer\nlink set lb-peer up\nlink set lb-vpn up\n")
        .unwrap();
    for (give, take, named) in [
        (
            "addr add 198.18.9.9/24 dev lb-vpn",
            "addr del 198.18.9.9/24 dev lb-vpn",
            "198.18.9",
        ),
        (
            "route add 198.18.64.0/18 dev lb-vpn",
            "route del 198.18.64.0/18 dev lb-vpn",
            "198.18.64.0/18",
        ),
        (
            "route add 198.18.0.0/15 dev lb-vpn",
            "route del 198.18.0.0/15 dev lb-vpn",
            "198.18.0.0/15",
        ),
        (
            "addr add fd62:6c62:76:1::9/64 dev lb-vpn nodad",
            "addr del fd62:6c62:76:1::9/64 dev lb-vpn",
            "fd62:6c62:76:1::9",
        ),
        (
            "route add fd62:6c62:76::/48 dev lb-vpn",
            "route del fd62:6c62:76::/48 dev lb-vpn",
            "fd62:6c62:76::/48",
        ),
    ] {
        world.netns.ip(give).unwrap();
        let attempt = world.attempt(&[]);
        attempt.expect(1, &[named, "lb-vpn", "pool"]);
        world.netns.ip(take).unwrap();
        world.assert_untouched();
    }
    world.finish();
}

#[test]
fn an_agent_that_is_refused_another_pool_leaves_the_former_one_in_force() {
    let (mut world, _a, vip) = World::with_one();
    world.terminate();
    let link =
        "link add lb-vpn type veth peer name lb-peer\nlink set lb-peer up\nlink set lb-vpn up\n";
    world.netns.ip(link).unwrap();
    world.netns.ip("addr add 198.19.9.9/24 dev lb-vpn").unwrap();
    let before = world.network();
    let attempt = world.attempt(&["--pool", "198.19.0.0/16"]);
    attempt.expect(1, &["198.19.9", "lb-vpn", "pool"]);
    assert_eq!(world.network(), before);
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    // A pool around the former one finds nothing but its traces in the way.
    world.netns.ip("link del lb-vpn").unwrap();
    world.start(&["--pool", "198.16.0.0/13"]);
    world.await_ready();
    let network = world.network();
    assert!(network.contains("unreachable 198.16.0.0/13"), "{network}");
    assert!(!network.contains("198.18.0.0/16"), "{network}");
    world.finish();
}

#[test]
fn a_second_agent_is_refused_and_the_first_does_not_notice() {
    let (mut world, _a, vip) = World::with_one();
    let first = world.agent_id().to_string();
    let state = world.path("state").display().to_string();
    let attempt = world.attempt(&[]);
    attempt.expect(1, &["another agent", &first, &state]);
    // Another state directory, but the same socket, ports and pins: still somebody else's host.
    let other = world.path("other").display().to_string();
    let attempt = world.attempt(&["--state-dir", &other]);
    assert_eq!(attempt.code, Some(1), "{attempt:?}");

    assert_eq!(world.page("/ready").unwrap().status, 200);
    assert_eq!(world.ask(&["status"]).code, Some(0));
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    assert_eq!(world.front("www.hello.localhost").unwrap().body, "a");
    world.finish();
}

#[test]
fn a_second_agent_with_nothing_in_common_but_the_pins_is_refused() {
    let (mut world, a, vip) = World::with_one();
    let (state, socket) = (world.path("other"), world.path("other.sock"));
    let attempt = world.attempt(&[
        "--state-dir",
        &state.display().to_string(),
        "--socket",
        &socket.display().to_string(),
        "--front",
        "127.0.0.1:81",
        "--admin",
        "127.0.0.1:9181",
        "--dns",
        "127.0.0.1:5353",
    ]);
    attempt.expect(
        1,
        &["another agent", &world.path("bpf").display().to_string()],
    );
    let b = Instance::start(&world.netns, "b", [127, 0, 1, 2]);
    world.publish(&service("www_hello", &[&a, &b]));
    assert_eq!(world.await_usable("www_hello", &["a", "b"]), vip);
    world.finish();
}

#[test]
fn a_second_agent_with_nothing_in_common_but_the_network_is_refused_and_so_is_uninstalling() {
    let (mut world, _a, vip) = World::with_one();
    let pins = world.path("pins");
    fs::create_dir(&pins).unwrap();
    world.netns.mount_bpffs(&pins).unwrap();
    let place = |name| world.path(name).display().to_string();
    let (state, pins, socket) = (place("other"), place("pins"), place("other.sock"));
    let cgroup = world.all_groups().display().to_string();
    let first = world.agent_id().to_string();
    let before = world.network();
    let attempt = world.attempt(&[
        "--state-dir",
        &state,
        "--bpffs",
        &pins,
        "--cgroup",
        &cgroup,
        "--pool",
        "198.19.0.0/16",
        "--socket",
        &socket,
        "--front",
        "127.0.0.1:81",
        "--admin",
        "127.0.0.1:9181",
    ]);
    attempt.expect(1, &["another agent", &first, "network namespace"]);
    let elsewhere = ["--state-dir", &state, "--bpffs", &pins];
    let refused = world.uninstall(&elsewhere);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains(&first), "{refused:?}");
    let dry = world.uninstall(&[&["--dry-run"], &elsewhere[..]].concat());
    assert!(dry.out.contains("an agent is running"), "{dry:?}");
    assert_eq!(world.network(), before);
    world.assert_serves(vip, "a");
    // A front that outlives its agent does not hold the lock.
    world.kill();
    world.start(&[]);
    world.await_ready();
    world.assert_serves(vip, "a");
    world.finish();
}
