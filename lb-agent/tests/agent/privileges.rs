//! What the agent may do: no more than it needs once it has started, and all that it is for with that.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use lb_testkit::{Process, Spawn, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    drains::{CUT, end_of, flow_to},
    kit::{BINARY, Instance, LIMIT, World, limits, service},
};

/// The bits of these capabilities, by their numbers in `include/uapi/linux/capability.h`.
fn bits(capabilities: &[&str]) -> u64 {
    let bit = |name: &&str| match *name {
        "dac_override" => 1 << 1,
        "dac_read_search" => 1 << 2,
        "kill" => 1 << 5,
        "setgid" => 1 << 6,
        "setuid" => 1 << 7,
        "setpcap" => 1 << 8,
        "net_bind_service" => 1 << 10,
        "net_admin" => 1 << 12,
        "sys_ptrace" => 1 << 19,
        "sys_admin" => 1 << 21,
        "perfmon" => 1 << 38,
        "bpf" => 1 << 39,
        other => panic!("{other}"),
    };
    capabilities.iter().map(bit).sum()
}

const BPF: [&str; 3] = ["bpf", "perfmon", "net_admin"];
const FRONT: [&str; 4] = ["net_bind_service", "setuid", "setgid", "kill"];

/// What /proc says of a set of one thread.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let bits = line.unwrap().trim_start_matches(':').trim();
    u64::from_str_radix(bits, 16).unwrap()
}

/// Every thread of the agent holds exactly these, and gets no others back. Without CAP_SETPCAP the bounding set stays as it
/// was, `given`: then it is `NoNewPrivs` alone that sees to that.
#[track_caller]
fn assert_holds(world: &World, expected: u64, given: u64) {
    let tasks = fs::read_dir(format!("/proc/{}/task", world.agent_id())).unwrap();
    let mut threads = 0;
    for task in tasks.map(Result::unwrap) {
        // It may have ended meanwhile.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        threads += 1;
        for (name, expected) in [
            ("CapEff", expected),
            ("CapPrm", expected),
            ("CapBnd", given),
        ] {
            let found = set(&status, name);
            assert_eq!(found, expected, "{name} is {found:x} in:\n{status}");
        }
        for name in ["CapInh", "CapAmb"] {
            assert_eq!(set(&status, name), 0, "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert!(threads > 3, "{threads} threads");
}

#[track_caller]
fn assert_front_holds_nothing(world: &World) {
    let front = world.children()[0];
    let status = fs::read_to_string(format!("/proc/{front}/status")).unwrap();
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(&status, name), 0, "{name} of {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(
        status.contains("Uid:\t65534\t65534\t65534\t65534"),
        "{status}"
    );
}

/// What an agent starts with: these capabilities, or all that this machine gives to root.
type Given<'a> = Option<&'a [&'a str]>;

fn start(world: &mut World, given: Given<'_>) {
    match given {
        Some(capabilities) => world.start_with(capabilities),
        None => world.start(&[]),
    }
    world.await_ready();
}

/// A world with such an agent, two instances, and the address of their service.
fn world(given: Given<'_>) -> (World, [Instance; 2], Ipv4Addr) {
    let mut world = World::new();
    let instance = |(id, last)| Instance::start(&world.netns, id, [127, 0, 1, last]);
    let all = [("a", 1), ("b", 2)].map(instance);
    world.publish(&brief(&all));
    start(&mut world, given);
    let vip = world.await_usable("www_hello", &["a", "b"]);
    (world, all, vip)
}

/// The service `www_hello` of these, whose flows have a second after a drain.
fn brief(all: &[Instance; 2]) -> String {
    let options = "options = { lb_drain = \"1s\" }\n[[service.instance]]";
    service("www_hello", &[&all[0], &all[1]]).replacen("[[service.instance]]", options, 1)
}

/// A socket of UDP, and the service `echo` that it is an instance of.
fn echo(world: &World) -> (UdpSocket, String) {
    let server = world.netns.enter(|| UdpSocket::bind("127.0.1.3:0"));
    let server = server.unwrap().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let service = format!(
        "[[service]]\nname = \"echo\"\noptions = {{ lb_proto = \"udp\", lb_drain = \"1s\" }}\n\
         [[service.instance]]\nid = \"e\"\naddress = \"127.0.1.3\"\nport = {}\n",
        server.local_addr().unwrap().port()
    );
    (server, service)
}

/// Whatever has to be done long after the start: hooks for a UDP service that comes and goes, another front in the place of
/// one that died, the end of a drain; and at last nothing is left.
#[track_caller]
fn assert_works_to_the_end(given: Given<'_>) {
    let (mut world, all, vip) = world(given);
    let (server, service) = echo(&world);
    world.publish(&(brief(&all) + &service));
    let echo = SocketAddr::from((world.await_usable("echo", &["e"]), 53));
    let client = world.netns.enter(|| UdpSocket::bind("0.0.0.0:0"));
    let client = client.unwrap().unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let sent = eventually(LIMIT, || client.send_to(b"hello", echo));
    assert_eq!(sent.unwrap(), 5);
    let mut room = [0; 16];
    let (_, from) = server.recv_from(&mut room).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv_from(&mut room).unwrap(), (6, echo));

    replace_front(&world);
    let flow = flow_to(&world, vip, "a");
    let asked = world.ask(&["drain", "www_hello/a"]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert_eq!(end_of(&flow), CUT);

    // A front that nobody stopped is adopted, and leaves no listener when it dies.
    world.kill();
    start(&mut world, given);
    replace_front(&world);
    world.terminate();
    let done = match given.map(limits) {
        Some([bounding, inherited]) => {
            world.uninstall_by(&["setpriv", &bounding, &inherited, BINARY], &[])
        }
        None => world.uninstall(&[]),
    };
    assert_eq!(done.code, Some(0), "{done:?}");
    world.assert_untouched();
    world.finish();
}

/// Kills the front and waits for another one, which is nobody and may do nothing.
#[track_caller]
fn replace_front(world: &World) {
    let front = world.children()[0];
    let id = Pid::from_raw(i32::try_from(front).unwrap());
    kill(id, Signal::SIGKILL).unwrap();
    let replaced = eventually(LIMIT, || match world.front("www.hello") {
        Ok(answer) if answer.status == 200 && !world.children().contains(&front) => Ok(()),
        other => Err(format!("{other:?}, {:?}", world.children())),
    });
    replaced.unwrap_or_else(|late| panic!("{late}\n{}", world.said()));
    assert_front_holds_nothing(world);
}

fn privileges(world: &World) -> String {
    let status = world.ask(&["status"]).out;
    let line = status.lines().find(|line| line.contains("privileges"));
    line.unwrap_or_else(|| panic!("{status}")).to_owned()
}

#[test]
fn root_keeps_what_is_needed_later_and_nothing_else() {
    let mut held = vec!["sys_admin", "sys_ptrace", "dac_read_search", "dac_override"];
    held.extend(["setpcap", "bpf", "net_admin"]);
    held.extend(FRONT);
    let (world, _all, _) = world(None);
    assert_holds(&world, bits(&held), bits(&held));
    let line = privileges(&world);
    assert!(!line.contains("without"), "{line}");
    world.finish();
    assert_works_to_the_end(None);
}

#[test]
fn on_the_rung_of_sys_admin_everything_works() {
    let mut held = vec!["sys_admin", "sys_ptrace", "net_admin", "dac_read_search"];
    held.extend(FRONT);
    let (world, _all, _) = world(Some(&held));
    assert_holds(&world, bits(&held), bits(&held));
    let line = privileges(&world);
    assert!(line.contains("sys_admin; "), "{line}");
    assert!(!line.contains("without"), "{line}");
    let metrics = world.page("/metrics").unwrap().body;
    assert!(
        metrics.contains("lb_privilege_info{rung=\"sys_admin\"} 1"),
        "{metrics}"
    );
    world.finish();
    assert_works_to_the_end(Some(&held));
}

#[test]
fn on_the_rung_of_bpf_everything_works_but_what_takes_entering_namespaces() {
    let given = [&BPF[..], &FRONT].concat();
    let (world, _all, _) = world(Some(&given));
    let held = [&["bpf", "net_admin"], &FRONT[..]].concat();
    assert_holds(&world, bits(&held), bits(&given));
    let line = privileges(&world);
    for words in ["bpf; ", "without SYS_ADMIN, SYS_PTRACE"] {
        assert!(line.contains(words), "{line}");
    }
    world.finish();
    assert_works_to_the_end(Some(&given));
}

#[test]
fn an_agent_without_a_front_gives_up_what_the_front_needs() {
    let mut world = World::new();
    world.configure(&(world.usual() + "[front]\nenabled = false\n"));
    start(&mut world, Some(&[&BPF[..], &FRONT, &["setpcap"]].concat()));
    let held = bits(&["bpf", "net_admin"]);
    assert_holds(&world, held, held);
    world.finish();
}

#[test]
fn what_lacks_for_the_rung_that_is_nearest_is_all_that_is_named() {
    let mut world = World::new();
    let attempt = world.attempt_with(&["sys_admin", "sys_ptrace"]);
    attempt.expect(1, &["CAP_NET_ADMIN missing", "give the container"]);
    assert!(!attempt.said.contains("CAP_BPF"), "{}", attempt.said);
    let attempt = world.attempt_with(&["bpf", "net_admin"]);
    attempt.expect(1, &["CAP_PERFMON missing", "give the container"]);
    assert!(!attempt.said.contains("CAP_BPF"), "{}", attempt.said);
    world.assert_untouched();
    world.finish();
}

/// A process of nobody with a UDP flow to `echo`, which ends with that flow; the drain of its backend has begun.
fn drained_flow_of_nobody(world: &World) -> Process {
    let (server, service) = echo(world);
    world.publish(&service);
    let vip = world.await_usable("echo", &["e"]);
    let script = format!("exec 3<>/dev/udp/{vip}/53; echo hello >&3; read -r line <&3");
    let process = Spawn::new("nobody", "setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["bash", "-c", &script])
        .netns(&world.netns)
        .start()
        .unwrap();
    assert_eq!(server.recv_from(&mut [0; 16]).unwrap().0, 6);
    let asked = world.ask(&["drain", "echo"]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    process
}

const SIGHT: [&str; 3] = ["sys_admin", "sys_ptrace", "net_admin"];

#[test]
fn udp_flows_of_other_users_are_cut_by_who_may_see_what_they_have_open() {
    let mut world = World::new();
    let given = [&SIGHT[..], &FRONT, &["dac_read_search"]].concat();
    start(&mut world, Some(&given));
    let mut process = drained_flow_of_nobody(&world);
    assert!(!process.wait(LIMIT).unwrap().success());
    world.finish();
}

#[test]
fn who_may_not_see_what_other_users_have_open_says_so() {
    let mut world = World::new();
    start(&mut world, Some(&[&SIGHT[..], &FRONT].concat()));
    let line = privileges(&world);
    assert!(line.contains("without DAC_READ_SEARCH"), "{line}");
    let mut process = drained_flow_of_nobody(&world);
    let told = eventually(LIMIT, || {
        let status = world.ask(&["status"]).out;
        match status.contains("CAP_DAC_READ_SEARCH") {
            true => Ok(()),
            false => Err(status),
        }
    });
    told.unwrap();
    assert!(process.is_running());
    process.kill().unwrap();
    world.finish();
}
