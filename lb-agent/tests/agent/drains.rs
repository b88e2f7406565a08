//! The end of a drain: flows through the VIP are cut after their time, in every network namespace, and no others.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use lb_testkit::{Netns, Process, Spawn, eventually};
use socket2::Type;

use crate::{
    ends::Server,
    kit::{Instance, LIMIT, World, connect, greeting, service},
};

/// How long the flows of a backend may go on here that is taken out.
const DRAIN: Duration = Duration::from_secs(1);

/// Both instances of the worlds here, on an address that other namespaces reach.
const HOST: [u8; 4] = [10, 77, 0, 1];

/// The service `www_hello` of these instances, with [`DRAIN`].
fn brief(instances: &[&Instance]) -> String {
    let options = "options = { lb_drain = \"1s\" }\n[[service.instance]]";
    service("www_hello", instances).replacen("[[service.instance]]", options, 1)
}

/// A world whose agent serves `www_hello` by the instances `a` and `b`, and a flow through the VIP to each.
struct Pair {
    world: World,
    a: Instance,
    b: Instance,
    vip: Ipv4Addr,
    to_a: TcpStream,
    to_b: TcpStream,
}

impl Pair {
    fn new() -> Self {
        let mut instances = None;
        let world = World::with_services(|netns| {
            netns
                .add_bridge("lb-br0", "10.77.0.1/24".parse().unwrap())
                .unwrap();
            let start = |id| Instance::start(netns, id, HOST);
            let [a, b] = instances.insert(["a", "b"].map(start));
            brief(&[a, b])
        });
        let [a, b] = instances.unwrap();
        let vip = world.await_usable("www_hello", &["a", "b"]);
        let (to_a, to_b) = (flow_to(&world, vip, "a"), flow_to(&world, vip, "b"));
        Self {
            world,
            a,
            b,
            vip,
            to_a,
            to_b,
        }
    }

    fn drain(&self, arguments: &[&str]) {
        let asked = self.world.ask(&[&["drain"], arguments].concat());
        assert_eq!(asked.code, Some(0), "{asked:?}");
    }
}

/// A flow that this instance serves.
pub(crate) fn flow_to(world: &World, vip: Ipv4Addr, id: &str) -> TcpStream {
    let found = eventually(LIMIT, || {
        let flow = world.connect(vip, 80).unwrap();
        match greeting(&flow).unwrap() {
            met if met == id => Ok(flow),
            met => Err(met),
        }
    });
    found.unwrap()
}

/// Waits for the end of a flow on which nothing comes, and says what the client was told.
#[track_caller]
pub(crate) fn end_of(mut flow: &TcpStream) -> io::ErrorKind {
    flow.set_read_timeout(Some(LIMIT)).unwrap();
    flow.read(&mut [0]).unwrap_err().kind()
}

pub(crate) const CUT: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// A container, as far as the network goes.
fn container(world: &World) -> Netns {
    let leaf = Netns::new("client").unwrap();
    // First of all: nothing for the pool can leave.
    leaf.ip("route add unreachable 198.18.0.0/16\n").unwrap();
    let (address, via) = ("10.77.0.2/24".parse().unwrap(), HOST.into());
    world
        .netns
        .plug("lb-br0", "lb-leaf", &leaf, address, via)
        .unwrap();
    leaf
}

/// A process in there that has a flow to the VIP, asks once, and then waits for the flow's end.
fn client(netns: &Netns, vip: Ipv4Addr, folder: &Path) -> Process {
    let script = format!(
        "exec 3<>/dev/tcp/{vip}/80; echo who >&3; read -r line <&3; echo \"met $line\"; read -r line <&3; echo over"
    );
    let bash = Spawn::new("client", "bash").args(["-c", &script]);
    let process = bash.netns(netns).log(folder).start().unwrap();
    let log = process.log().unwrap().to_owned();
    let met = eventually(LIMIT, || match std::fs::read_to_string(&log) {
        Ok(said) if said.contains("met ") => Ok(()),
        said => Err(format!("{said:?}")),
    });
    met.unwrap();
    process
}

#[test]
fn after_the_deadline_the_flows_of_a_drained_backend_are_cut_everywhere_and_direct_ones_go_on() {
    let pair = Pair::new();
    let Pair { world, a, vip, .. } = &pair;
    pair.drain(&["www_hello/b"]);
    world.await_usable("www_hello", &["a"]);
    let leaf = container(world);
    let mut process = client(&leaf, *vip, &world.path(""));
    let far = connect(&leaf, *vip, 80).unwrap();
    assert_eq!(greeting(&far).unwrap(), "a");
    let (address, port) = (*a.address().ip(), a.address().port());
    let direct = [
        connect(&leaf, address, port).unwrap(),
        world.connect(address, port).unwrap(),
    ];

    let ordered = Instant::now();
    pair.drain(&["www_hello/a"]);
    let shown = world.await_report(|report| {
        let cuts = report.0["cuts"].as_array()?;
        let cut = cuts.iter().find(|cut| cut["id"] == "a")?;
        Some(cut["active"].clone())
    });
    assert_eq!(
        shown, 3,
        "the flows of this process twice, and that of the other"
    );
    assert_eq!(end_of(&far), CUT);
    let took = ordered.elapsed();
    assert!(took >= DRAIN, "after {took:?}");
    assert!(took < DRAIN + Duration::from_secs(2), "after {took:?}");
    assert_eq!(end_of(&pair.to_a), CUT);
    assert!(process.wait(LIMIT).unwrap().success());
    for flow in &direct {
        assert_eq!(greeting(flow).unwrap(), "a");
    }
    // When all is done nothing is announced any more.
    world.await_report(|report| report.0["cuts"].as_array()?.is_empty().then_some(()));
    let metrics = world.page("/metrics").unwrap().body;
    // Those to `a`, and the one to `b`.
    assert!(metrics.contains("lb_drain_cut_flows_total 4"), "{metrics}");
    pair.world.finish();
}

/// A service of its own name at this address, with [`DRAIN`].
fn at(name: &str, proto: &str, server: &Server) -> String {
    let (ip, port) = (server.address.ip(), server.address.port());
    format!(
        "[[service]]\nname = \"{name}\"\n\
         options = {{ lb_drain = \"1s\", lb_proto = \"{proto}\", lb_check = \"off\" }}\n\
         [[service.instance]]\nid = \"{name}\"\naddress = \"{ip}\"\nport = {port}\n"
    )
}

#[test]
fn flows_of_every_family_and_protocol_are_cut_and_direct_ones_go_on() {
    let mut servers = None;
    let world = World::with_services(|netns| {
        let four = Server::start(netns, Ipv4Addr::new(127, 0, 1, 1));
        let six = Server::start(netns, Ipv6Addr::LOCALHOST);
        let [four, six] = servers.insert([four, six]);
        [
            at("tcp4", "tcp", four),
            at("tcp6", "tcp", six),
            at("udp4", "udp", four),
            at("udp6", "udp", six),
        ]
        .concat()
    });
    let [four, six] = servers.unwrap();
    let vips = |name: &str| {
        let vip = world.await_usable(name, &[name]);
        let vip6 = world.report().service(name).unwrap()["vip6"].clone();
        (vip, serde_json::from_value::<Ipv6Addr>(vip6).unwrap())
    };
    let mut flows = Vec::new();
    for (kind, name4, name6) in [
        (Type::STREAM, "tcp4", "tcp6"),
        (Type::DGRAM, "udp4", "udp6"),
    ] {
        let ((vip, vip6), (_, other6)) = (vips(name4), vips(name6));
        for (server, named) in [
            (&four, IpAddr::from(vip)),
            (&four, vip6.into()),
            (&four, vip.to_ipv6_mapped().into()),
            (&six, other6.into()),
        ] {
            flows.push(server.both(&world.netns, kind, named));
        }
    }
    let ordered = Instant::now();
    for name in ["tcp4", "tcp6", "udp4", "udp6"] {
        let asked = world.ask(&["drain", name]);
        assert_eq!(asked.code, Some(0), "{asked:?}");
    }
    for [through, direct] in &flows {
        through.assert_cut();
        let took = ordered.elapsed();
        assert!(took >= DRAIN, "after {took:?}");
        direct.assert_works();
    }
    world.await_report(|report| report.0["cuts"].as_array()?.is_empty().then_some(()));
    let metrics = world.page("/metrics").unwrap().body;
    assert!(metrics.contains("lb_drain_cut_flows_total 8"), "{metrics}");
    world.finish();
}

#[test]
fn a_drain_that_is_undone_in_time_cuts_nothing() {
    let pair = Pair::new();
    // The later one says when the time of the earlier one is over.
    pair.drain(&["www_hello/a"]);
    pair.drain(&["www_hello/b"]);
    pair.drain(&["www_hello/a", "--undo"]);
    assert_eq!(end_of(&pair.to_b), CUT);
    assert_eq!(greeting(&pair.to_a).unwrap(), "a");
    pair.world.finish();
}

#[test]
fn an_instance_that_leaves_the_catalog_loses_its_flows_after_the_time_it_had_asked_for() {
    let pair = Pair::new();
    let left = Instant::now();
    // It takes its option with it.
    pair.world.publish(&service("www_hello", &[&pair.b]));
    assert_eq!(end_of(&pair.to_a), CUT);
    let took = left.elapsed();
    assert!(took >= DRAIN, "after {took:?}");
    assert_eq!(greeting(&pair.to_b).unwrap(), "b");
    pair.world.finish();
}

#[test]
fn flows_through_a_vip_that_the_service_had_before_are_cut_when_their_instance_leaves() {
    let pair = Pair::new();
    let pool = u32::from(Ipv4Addr::new(198, 18, 0, 80));
    let other = Ipv4Addr::from(if u32::from(pair.vip) == pool {
        pool + 1
    } else {
        pool
    });
    let pinned = pair
        .world
        .ask(&["vip", "pin", "www_hello", &other.to_string()]);
    assert_eq!(pinned.code, Some(0), "{pinned:?}");
    let moved = eventually(LIMIT, || {
        match pair.world.await_usable("www_hello", &["a", "b"]) {
            vip if vip == other => Ok(()),
            vip => Err(vip),
        }
    });
    moved.unwrap();
    let by_other = flow_to(&pair.world, other, "a");
    for flow in [&pair.to_a, &by_other] {
        assert_eq!(greeting(flow).unwrap(), "a");
    }
    pair.world.publish(&brief(&[&pair.b]));
    for flow in [&by_other, &pair.to_a] {
        assert_eq!(end_of(flow), CUT);
    }
    assert_eq!(greeting(&pair.to_b).unwrap(), "b");
    pair.world.finish();
}

#[test]
fn an_instance_that_fails_keeps_its_flows() {
    let pair = Pair::new();
    let checked = brief(&[&pair.a, &pair.b]).replace(
        "lb_drain = \"1s\"",
        "lb_drain = \"1s\", lb_check = \"http /\"",
    );
    pair.world.publish(&checked);
    pair.a.break_application(true);
    pair.world.await_usable("www_hello", &["b"]);
    // Taken out later than that one failed.
    pair.drain(&["www_hello/b"]);
    assert_eq!(end_of(&pair.to_b), CUT);
    assert_eq!(greeting(&pair.to_a).unwrap(), "a");
    pair.world.finish();
}

#[test]
fn what_left_while_no_agent_looked_has_its_whole_time_from_the_next_start() {
    let mut pair = Pair::new();
    pair.world.terminate();
    pair.world.publish(&brief(&[&pair.b]));
    pair.world.start(&[]);
    let started = Instant::now();
    pair.world.await_ready();
    assert_eq!(end_of(&pair.to_a), CUT);
    let took = started.elapsed();
    assert!(took >= DRAIN, "after {took:?}");
    assert_eq!(greeting(&pair.to_b).unwrap(), "b");
    pair.world.finish();
}

#[test]
fn what_left_while_no_agent_looked_is_shown_with_the_end_of_its_flows() {
    let mut pair = Pair::new();
    let gone = pair.a.address().to_string();
    pair.world.terminate();
    // Nothing is left that says what it had asked for, or how it was called.
    pair.world.publish(&service("www_hello", &[&pair.b]));
    pair.world.start(&[]);
    pair.world.await_ready();
    pair.world.await_report(|report| {
        let cuts = report.0["cuts"].as_array()?;
        let shown = cuts.iter().find(|cut| cut["address"] == gone)?;
        (shown["service"] == "www_hello").then_some(())
    });
    let status = pair.world.ask(&["status"]);
    assert!(
        status
            .out
            .contains(&format!("www_hello {gone} has flows, cut in")),
        "{status:?}"
    );
    assert_eq!(greeting(&pair.to_a).unwrap(), "a");
    pair.world.finish();
}

#[test]
fn flows_are_listed_with_the_process_and_the_namespace_of_their_client() {
    let pair = Pair::new();
    let Pair { world, vip, .. } = &pair;
    let leaf = container(world);
    let mut process = client(&leaf, *vip, &world.path(""));
    let list = world.ask(&["flows", "www_hello", "-o", "json"]).json();
    let flows = list["flows"].as_array().unwrap();
    let flow = flows.iter().find(|flow| flow["pid"] == process.id());
    let flow = flow.unwrap_or_else(|| panic!("{list:#}"));
    assert_eq!(flow["command"], "bash");
    assert_eq!(flow["service"], "www_hello");
    assert_eq!(flow["vip"], format!("{vip}:80"));
    assert_eq!(flow["state"], "established");
    assert!(flow["client"].as_str().unwrap().starts_with("10.77.0.2:"));
    let own = std::process::id();
    let near: Vec<_> = flows.iter().filter(|flow| flow["pid"] == own).collect();
    assert_eq!(near.len(), 2, "{list:#}");
    assert!(near.iter().all(|near| near["netns"] != flow["netns"]));
    assert_eq!(list["left_out"], 0);

    let table = world.ask(&["flows"]);
    assert_eq!(table.out.matches("www_hello").count(), 3, "{table:?}");
    let nobody = world.ask(&["flows", "no body"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.err.contains("no service \"no body\""), "{nobody:?}");
    // Over TCP nobody is told of processes.
    assert_eq!(world.page("/api/v1/flows").unwrap().status, 403);
    process.kill().unwrap();
    pair.world.finish();
}
