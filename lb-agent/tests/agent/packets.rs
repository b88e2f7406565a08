//! The packet path of a whole agent: a client that no socket hook sees, behind a veth, and instances in namespaces of their own.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::fd::AsFd as _,
    thread,
};

use lb_testkit::{Netns, eventually};

use crate::kit::{Instance, LIMIT, World, connect, greeting, service};

/// A host that sends packets on, with a client and two instances, each behind a veth.
struct Place {
    world: World,
    client: Netns,
    instances: [Instance; 2],
    vip: Ipv4Addr,
    _behind: [Netns; 2],
}

/// The options of the service: its drain is brief.
const OPTIONS: &str = "options = { lb_drain = \"1s\", lb_port = \"80\" }\n[[service.instance]]";

impl Place {
    /// An agent runs and serves both instances.
    fn new() -> Self {
        let world = World::new();
        let client = behind(&world.netns, "lb-client", 1);
        let behind = [2, 3].map(|net| behind(&world.netns, &format!("lb-back{net}"), net));
        // Nobody's connects are seen by the socket hooks.
        let nobody = world.all_groups().join("nobody");
        fs::create_dir(&nobody).unwrap();
        let (clients, nobody) = (world.clients(), nobody.display().to_string());
        let usual = world
            .usual()
            .replace(&clients.display().to_string(), &nobody);
        world.configure(&format!("{usual}[packet]\nclients = [\"lb-cli*\"]\n"));
        world
            .netns
            .enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .unwrap()
            .unwrap();
        let start = |(id, net): (&str, u8)| {
            Instance::start(&behind[usize::from(net) - 2], id, [10, 78, net, 2])
        };
        let instances = [("a", 2), ("b", 3)].map(start);
        let mut place = Self {
            world,
            client,
            instances,
            vip: Ipv4Addr::UNSPECIFIED,
            _behind: behind,
        };
        place.publish(&[0, 1]);
        place.world.start(&[]);
        place.world.await_ready();
        place.vip = place.world.await_usable("www_hello", &["a", "b"]);
        place
    }

    fn publish(&self, instances: &[usize]) {
        let instances: Vec<_> = instances.iter().map(|&at| &self.instances[at]).collect();
        let services = service("www_hello", &instances);
        let services = services.replacen("[[service.instance]]", OPTIONS, 1);
        self.world.publish(&services);
    }

    /// A flow of the client to `id`.
    fn flow_to(&self, id: &str) -> TcpStream {
        let found = eventually(LIMIT, || {
            let flow = connect(&self.client, self.vip, 80).map_err(|error| error.to_string())?;
            match greeting(&flow).map_err(|error| error.to_string())? {
                met if met == id => Ok(flow),
                met => Err(met),
            }
        });
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.world.said()))
    }

    fn start_again(&mut self) {
        self.world.start(&[]);
        self.world.await_ready();
        self.world.await_usable("www_hello", &["a", "b"]);
    }
}

/// A namespace that `netns` is the router of, by its device `port`.
fn behind(netns: &Netns, port: &str, net: u8) -> Netns {
    let leaf = Netns::new(port).unwrap();
    let there = leaf.path().display().to_string();
    netns
        .ip(&format!(
            "link add {port} type veth peer name eth0 netns {there}\n\
             addr add 10.78.{net}.1/24 dev {port}\nlink set {port} up\n"
        ))
        .unwrap();
    leaf.ip(&format!(
        "addr add 10.78.{net}.2/24 dev eth0\nlink set eth0 up\nroute add default via 10.78.{net}.1\n"
    ))
    .unwrap();
    leaf
}

#[track_caller]
fn goes_on(flow: &TcpStream, id: &str) {
    assert_eq!(greeting(flow).unwrap(), id);
}

#[test]
fn a_client_that_no_hook_sees_is_balanced_by_its_packets_and_seen() {
    let place = Place::new();
    let world = &place.world;
    let (to_a, to_b) = (place.flow_to("a"), place.flow_to("b"));
    goes_on(&to_a, "a");
    goes_on(&to_b, "b");
    // Nobody has this port.
    connect(&place.client, place.vip, 81).unwrap_err();

    let status = world.ask(&["status"]);
    assert!(status.out.contains("1 device of clients: "), "{status:?}");
    let listed = world.ask(&["flows", "www_hello", "-o", "json"]).json();
    let packets = listed["packets"].as_array().unwrap();
    let way = |backend: &str| {
        let mut all = packets.iter();
        let flow = all.find(|it| it["backend"] == backend && it["state"] == "established");
        flow.unwrap_or_else(|| panic!("{listed:#}"))["way"].clone()
    };
    assert_eq!(
        [way("file/a"), way("file/b")],
        ["destination", "destination"]
    );
    let from = to_a.local_addr().unwrap().to_string();
    let vip = format!("{}:80", place.vip);
    let explained = world.ask(&["explain", &from, &vip]);
    assert!(
        explained.out.contains("file/a at 10.78.2.2")
            && explained.out.contains("as the packets before it"),
        "{explained:?}"
    );
    let metrics = || world.page("/metrics").unwrap().body;
    let counted = eventually(LIMIT, || {
        let metrics = metrics();
        let flows = metrics
            .lines()
            .find_map(|it| it.strip_prefix("lb_packet_flows_total{service=\"www_hello\"} "))
            .and_then(|it| it.parse::<f64>().ok());
        match flows {
            Some(flows) if flows >= 2.0 => Ok(()),
            _ => Err(metrics),
        }
    });
    counted.unwrap_or_else(|late| panic!("{late}"));
    assert!(metrics().contains("lb_packet_program_attached{device=\"lb-client\",role=\"client\""));

    // What is forgotten in the midst is one of no flow, and TCP is told.
    let flushed = world.ask(&["flows", "--flush", "--client", "10.78.1.2"]);
    assert!(flushed.out.contains("flows are forgotten"), "{flushed:?}");
    let listed = world.ask(&["flows", "-o", "json"]).json();
    assert_eq!(
        listed["packets"].as_array().map(Vec::len),
        Some(0),
        "{listed:#}"
    );
    place.world.finish();
}

#[test]
fn packets_are_followed_and_written_to_a_file() {
    let place = Place::new();
    let file = place.world.path("www.pcap");
    let file_name = file.display().to_string();
    let arguments = [
        "trace",
        "--packets",
        "www_hello",
        "--count",
        "6",
        "--pcap",
        &file_name,
        "-o",
        "json",
    ];
    let traced = thread::scope(|scope| {
        let tracing = scope.spawn(|| place.world.ask(&arguments));
        // From when on packets are told is not known here, so there are some until enough were.
        let enough = eventually(LIMIT, || {
            let flow = connect(&place.client, place.vip, 80).map_err(|error| error.to_string())?;
            greeting(&flow).map_err(|error| error.to_string())?;
            match tracing.is_finished() {
                true => Ok(()),
                false => Err("not enough packets are told".to_owned()),
            }
        });
        enough.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
        tracing.join().unwrap()
    });
    assert_eq!(traced.code, Some(0), "{traced:?}");
    let packets: Vec<serde_json::Value> = traced
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(packets.len(), 6, "{traced:?}");
    let is_sent = |it: &&serde_json::Value| it["destination"] == place.vip.to_string();
    let sent = packets.iter().find(is_sent).unwrap();
    assert_eq!(
        (
            &sent["device"],
            &sent["protocol"],
            &sent["destination_port"]
        ),
        (&"lb-client".into(), &"tcp".into(), &80.into())
    );
    // The magic number of files with nanoseconds.
    let written = fs::read(file).unwrap();
    assert_eq!(written[..4], 0xa1b2_3c4d_u32.to_le_bytes());
    assert!(written.len() > 24 + 6 * (16 + 54));
    place.world.finish();
}

#[test]
fn flows_of_packets_outlive_an_agent_that_ends_and_one_that_is_killed() {
    let mut place = Place::new();
    let flows = [place.flow_to("a"), place.flow_to("b")];
    let both_go_on = || {
        goes_on(&flows[0], "a");
        goes_on(&flows[1], "b");
    };
    place.world.terminate();
    both_go_on();
    // Without an agent new ones begin, too.
    let without = place.flow_to("a");
    place.start_again();
    both_go_on();
    place.world.kill_all();
    both_go_on();
    drop(place.flow_to("b"));
    place.start_again();
    both_go_on();
    goes_on(&without, "a");
    place.world.finish();
}

#[test]
fn a_drained_instance_keeps_its_flows_of_packets_for_the_time_of_the_drain() {
    let place = Place::new();
    let (to_a, to_b) = (place.flow_to("a"), place.flow_to("b"));
    let asked = place.world.ask(&["drain", "www_hello/a"]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    goes_on(&to_a, "a");
    let over = eventually(LIMIT, || {
        // Nobody new comes there meanwhile.
        let flow = connect(&place.client, place.vip, 80).map_err(|error| error.to_string())?;
        let met = greeting(&flow).map_err(|error| error.to_string())?;
        match greeting(&to_a) {
            Err(_) if met == "b" => Ok(()),
            other => Err(format!("a new one meets {met}, the old one {other:?}")),
        }
    });
    over.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
    goes_on(&to_b, "b");
    // One that leaves the services file does so, too.
    place.publish(&[0]);
    let asked = place.world.ask(&["drain", "www_hello/a", "--undo"]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let over = eventually(LIMIT, || match greeting(&to_b) {
        Err(_) => Ok(()),
        Ok(met) => Err(met),
    });
    over.unwrap();
    drop(place.flow_to("a"));
    place.world.finish();
}

#[test]
fn a_client_whose_device_comes_later_is_served_and_one_that_goes_is_forgotten() {
    let place = Place::new();
    let netns = &place.world.netns;
    let late = behind(netns, "lb-client2", 4);
    let devices = |report: &crate::kit::Report| {
        let devices = report.0["packet"]["devices"].as_array()?.clone();
        let names = devices
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned());
        Some(names.collect::<Vec<_>>())
    };
    let both = ["lb-client", "lb-client2"];
    place
        .world
        .await_report(|report| devices(report).filter(|it| *it == both));
    let flow = connect(&late, place.vip, 80).unwrap();
    greeting(&flow).unwrap();
    netns.ip("link del lb-client2\n").unwrap();
    place
        .world
        .await_report(|report| devices(report).filter(|it| *it == both[..1]));
    let said = place.world.said();
    assert!(!said.contains("somebody took programs off"), "{said}");
    place.world.finish();
}

#[test]
fn what_an_agent_leaves_of_packets_is_taken_away_and_an_agent_without_them_takes_its_programs_off()
{
    let mut place = Place::new();
    drop(place.flow_to("a"));
    place.world.terminate();
    let without = fs::read_to_string(place.world.config()).unwrap();
    let without = without.replace("[packet]\nclients = [\"lb-cli*\"]\n", "");
    place.world.configure(&without);
    place.start_again();
    connect(&place.client, place.vip, 80).unwrap_err();
    place.world.terminate();
    let done = place.world.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    place.world.assert_untouched();
    place.world.finish();
}

#[test]
fn programs_stay_on_devices_that_may_be_a_containers_until_docker_has_told() {
    let mut place = Place::new();
    let flow = place.flow_to("b");
    place.world.terminate();
    // Whoever was served without being named may have been so by a label.
    let usual = fs::read_to_string(place.world.config()).unwrap();
    let unnamed = usual.replace("lb-cli*", "other*");
    let silent = format!("socket = \"{}\"", place.world.path("none.sock").display());
    let silent = unnamed.replacen("socket = \"off\"", &silent, 1);
    assert_ne!(silent, unnamed);
    place.world.configure(&silent);
    place.world.start(&[]);
    // It has attached what it knows of before it shows that.
    place.world.await_page_report(|report| {
        let maps = report.0["packet"]["maps"].as_object()?;
        (!maps.is_empty()).then_some(())
    });
    goes_on(&flow, "b");
    place.world.terminate();
    // Where there are no containers the device is nobody's.
    place.world.configure(&unnamed);
    place.start_again();
    let gone = eventually(LIMIT, || match connect(&place.client, place.vip, 80) {
        Err(_) => Ok(()),
        Ok(_) => Err("still served"),
    });
    gone.unwrap_or_else(|late| panic!("{late}\n{}", place.world.said()));
    place.world.finish();
}

#[test]
fn programs_that_somebody_takes_off_a_device_come_again() {
    let place = Place::new();
    drop(place.flow_to("a"));
    let links = place.world.path("bpf/lb/packet/links");
    let take_off = || {
        let pins = fs::read_dir(links).unwrap().map(Result::unwrap);
        for pin in pins.map(|it| it.path()) {
            let link = lb_sys::bpf::object_get(&pin).unwrap();
            lb_sys::bpf::link_detach(link.as_fd()).unwrap();
        }
    };
    place.world.netns.enter(take_off).unwrap();
    let told = eventually(LIMIT, || {
        let said = place.world.said();
        let told = said.contains("somebody took programs off the device");
        told.then_some(()).ok_or(said)
    });
    told.unwrap_or_else(|late| panic!("{late}"));
    drop(place.flow_to("a"));
    place.world.await_fine();
    place.world.finish();
}

#[test]
fn a_network_with_the_address_of_clients_that_meet_themselves_is_told() {
    let place = Place::new();
    place.world.await_fine();
    let with = |verb: &str| {
        let line = format!("addr {verb} 169.254.0.1/16 dev lb-client\n");
        place.world.netns.ip(&line).unwrap();
    };
    with("add");
    let words = [
        "169.254.0.0/16 on lb-client contains 169.254.255.77",
        "give lb-client another network",
    ];
    place.world.await_degraded(&words);
    with("del");
    place.world.await_fine();
    place.world.finish();
}

/// The number in the metric of this name and these labels.
fn metric(world: &World, name: &str) -> Option<f64> {
    let page = world.page("/metrics").ok()?.body;
    let line = page.lines().find_map(|it| it.strip_prefix(name));
    line?.trim().parse().ok()
}

#[test]
fn flows_that_a_table_leads_elsewhere_or_that_end_are_counted_and_told() {
    let place = Place::new();
    let world = &place.world;
    let (to_a, to_b) = (place.flow_to("a"), place.flow_to("b"));
    let await_metric = |name: &str, value: f64| {
        let reached = eventually(LIMIT, || match metric(world, name) {
            Some(it) if it == value => Ok(()),
            it => Err(format!("{name}: {it:?}, not {value}")),
        });
        reached.unwrap_or_else(|late| panic!("{late}\n{}", world.said()));
    };
    let elsewhere = "lb_packet_elsewhere_flows{service=\"www_hello\"}";
    await_metric("lb_packet_ended_flows_total", 0.0);
    let drain = world.ask(&["drain", "www_hello/a", "--deadline", "60s"]);
    assert_eq!(drain.code, Some(0), "{drain:?}");
    await_metric(elsewhere, 1.0);
    let said = world.said();
    let line = said.lines().find(|it| it.contains("the table changed"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("elsewhere=1") && line.contains("flows=2"),
        "{line}"
    );
    let status = world.ask(&["status"]).out;
    let word = "open flows where the table leads no more: 1";
    assert!(status.contains(word), "{status}");
    goes_on(&to_a, "a");
    let undone = world.ask(&["drain", "www_hello/a", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    // Those that stray are counted again after a while, and at each change.
    await_metric(elsewhere, 0.0);

    place.publish(&[1]);
    await_metric("lb_packet_ended_flows_total", 1.0);
    let said = world.said();
    assert!(
        said.contains("flows ended: their backend is gone"),
        "{said}"
    );
    greeting(&to_a).unwrap_err();
    goes_on(&to_b, "b");
    place.world.finish();
}

/// A network with this host's card, a client and a backend, none of which is behind another.
fn network(host: &Netns) -> (Netns, [Netns; 2]) {
    let switch = Netns::new("lb-net").unwrap();
    let link = "10.79.0.254/24".parse().unwrap();
    switch.add_bridge("lb-br0", link).unwrap();
    let leaf = |port: &str, last: u8| {
        let leaf = Netns::new(port).unwrap();
        let address = format!("10.79.0.{last}/24").parse().unwrap();
        let via = Ipv4Addr::new(10, 79, 0, 1);
        switch.plug("lb-br0", port, &leaf, address, via).unwrap();
        // A program before the stack meets packets of a wire, which have their checksums.
        let whole = || lb_sys::ethtool::offload_checksums("eth0", false);
        leaf.enter(whole).unwrap().unwrap();
        leaf
    };
    let there = host.path().display().to_string();
    switch
        .ip(&format!(
            "link add lb-up type veth peer name lb-card netns {there}\nlink set lb-up master lb-br0 up\n"
        ))
        .unwrap();
    host.ip("addr add 10.79.0.1/24 dev lb-card\nlink set lb-card up\n")
        .unwrap();
    let leaves = [leaf("lb-far", 2), leaf("lb-back", 3)];
    (switch, leaves)
}

#[test]
fn a_client_on_another_host_is_balanced_at_the_card_by_full_nat() {
    let mut world = World::new();
    let (_switch, [client, behind]) = network(&world.netns);
    let instance = Instance::start(&behind, "a", [10, 79, 0, 3]);
    let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    world.netns.enter(forward).unwrap().unwrap();
    let nobody = world.all_groups().join("nobody");
    fs::create_dir(&nobody).unwrap();
    let (clients, nobody) = (world.clients(), nobody.display().to_string());
    let usual = world
        .usual()
        .replace(&clients.display().to_string(), &nobody);
    world.configure(&format!(
        "{usual}[packet]\ncards = [\"lb-card\"]\nxdp = \"generic\"\n"
    ));
    let services = service("www_hello", &[&instance]);
    world.publish(&services.replacen("[[service.instance]]", OPTIONS, 1));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    let flow = eventually(LIMIT, || {
        let flow = connect(&client, vip, 80).map_err(|error| error.to_string())?;
        greeting(&flow)
            .map_err(|error| error.to_string())
            .map(|_| flow)
    });
    let flow = flow.unwrap_or_else(|late| panic!("{late}\n{}", world.said()));
    let listed = world.ask(&["flows", "-o", "json"]).json();
    assert_eq!(listed["packets"][0]["way"], "full", "{listed:#}");
    let port = listed["packets"][0]["local_port"].as_u64().unwrap();
    assert!((61_000..=65_535).contains(&port), "{listed:#}");
    let status = world.ask(&["status"]);
    assert!(
        status.out.contains("card lb-card: generic, tcx"),
        "{status:?}"
    );
    // The agent's end ends nothing.
    world.terminate();
    goes_on(&flow, "a");
    world.finish();
}

#[test]
fn an_agent_that_cannot_have_a_packet_path_says_so_and_serves_sockets() {
    let mut world = World::new();
    let alien = world.path("bpf/lb/packet/v99");
    let make = || fs::create_dir_all(&alien);
    world.netns.enter(make).unwrap().unwrap();
    let instance = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    world.configure(&format!(
        "{}[packet]\nclients = [\"lb-tap0\"]\n",
        world.usual()
    ));
    world.publish(&service("www_hello", &[&instance]));
    world.start(&[]);
    world.await_ready();
    let vip = world.await_usable("www_hello", &["a"]);
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");
    world.await_degraded(&[
        "packet path",
        "maps of the packet path of version 99",
        "lb-agent uninstall",
    ]);
    let asked = world.ask(&["flows", "-o", "json"]).json();
    assert_eq!(asked["packets"], serde_json::json!([]));
    world.finish();
}
