//! Options of a service that act where its clients connect: what it speaks, who is let in, whom a client meets again.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
};

use lb_testkit::eventually;

use crate::kit::{Instance, LIMIT, World, greeting, service};

/// A services file with one service of these instances and options.
pub(super) fn with_options(name: &str, instances: &[&Instance], options: &str) -> String {
    let options = format!("options = {{ {options} }}\n[[service.instance]]");
    service(name, instances).replacen("[[service.instance]]", &options, 1)
}

/// Whom so many flows meet, one after the other.
fn met(world: &World, vip: Ipv4Addr, flows: usize) -> BTreeSet<String> {
    let flow = |_| greeting(&world.connect(vip, 80).unwrap()).unwrap();
    (0..flows).map(flow).collect()
}

fn refused(connected: io::Result<TcpStream>) -> Result<(), String> {
    match connected {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?} instead of a refusal")),
    }
}

/// A UDP socket in the world, that gives up after a while.
fn udp(world: &World, address: [u8; 4]) -> UdpSocket {
    let bound = world
        .netns
        .enter(|| UdpSocket::bind((Ipv4Addr::from(address), 0)));
    let socket = bound.unwrap().unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

#[test]
fn a_udp_service_answers_through_its_address_until_it_leaves() {
    let mut world = World::new();
    let server = udp(&world, [127, 0, 1, 1]);
    let at = server.local_addr().unwrap();
    world.publish(&format!(
        "[[service]]\nname = \"echo\"\noptions = {{ lb_proto = \"udp\" }}\n\
         [[service.instance]]\nid = \"a\"\naddress = \"{}\"\nport = {}\n",
        at.ip(),
        at.port()
    ));
    world.start(&[]);
    world.await_ready();
    // Nobody probes it: its source is believed.
    let vip = world.await_usable("echo", &["a"]);
    let to = SocketAddr::from((vip, 5353));
    for connected in [false, true] {
        let client = udp(&world, [0, 0, 0, 0]);
        let sent = eventually(LIMIT, || match connected {
            true => client.connect(to).and_then(|()| client.send(b"hello")),
            false => client.send_to(b"hello", to),
        });
        assert_eq!(sent.unwrap(), 5);
        let mut room = [0; 16];
        let (length, from) = server.recv_from(&mut room).unwrap();
        assert_eq!(
            (&room[..length], from.port()),
            (&b"hello"[..], client.local_addr().unwrap().port())
        );
        server.send_to(b"answer", from).unwrap();
        let (length, from) = client.recv_from(&mut room).unwrap();
        assert_eq!((&room[..length], from), (&b"answer"[..], to));
    }
    // TCP has no claim to its address.
    refused(world.connect(vip, 5353)).unwrap();
    world.publish("service = []\n");
    let client = udp(&world, [0, 0, 0, 0]);
    let gone = eventually(LIMIT, || match client.send_to(b"hello", to) {
        Err(error) => Ok(error.kind()),
        Ok(_) => Err("still sent"),
    });
    assert_eq!(gone.unwrap(), io::ErrorKind::HostUnreachable);
    world.finish();
}

#[test]
fn with_affinity_a_client_meets_the_instance_that_it_met_before() {
    let (world, [a, b], vip) = World::with_two();
    let all = with_options(
        "www_hello",
        &[&a, &b],
        "lb_affinity = \"60\", lb_balance = \"round-robin\"",
    );
    world.publish(&all);
    let kept = eventually(LIMIT, || match met(&world, vip, 10) {
        met if met.len() == 1 => Ok(met),
        met => Err(format!("{met:?}")),
    });
    let kept = kept.unwrap();
    for _ in 0..3 {
        assert_eq!(met(&world, vip, 10), kept);
    }
    let told = world.ask(&["explain", "host", "www_hello"]);
    let at = if kept.contains("a") { &a } else { &b };
    let line = format!("kept at   {} by tcp, its last flow began ", at.address());
    assert!(told.out.contains(&line), "{told:?}");
    // It ends: the other one takes over, and keeps the client when the first is back.
    let (gone, other) = match kept.contains("a") {
        true => (a, b),
        false => (b, a),
    };
    let (id, address) = (gone.id().to_owned(), gone.address());
    drop(gone);
    world.await_usable("www_hello", &[other.id()]);
    let others = BTreeSet::from([other.id().to_owned()]);
    assert_eq!(met(&world, vip, 10), others);
    let _back = Instance::start_at(&world.netns, &id, address);
    world.await_usable("www_hello", &["a", "b"]);
    assert_eq!(met(&world, vip, 10), others);
    world.finish();
}

#[test]
fn a_host_that_a_service_denies_is_refused_and_let_in_again() {
    let (world, [a, _b], vip) = World::with_two();
    for options in [
        "lb_deny = \"host\"",
        "lb_allow = \"network:front\"",
        "lb_allow = \"host\", lb_deny = \"127.0.0.1\"",
    ] {
        world.publish(&with_options("www_hello", &[&a], options));
        eventually(LIMIT, || refused(world.connect(vip, 80))).unwrap();
        // That is no word about its instances.
        world.await_usable("www_hello", &["a"]);
        world.publish(&with_options("www_hello", &[&a], "lb_allow = \"host\""));
        let flow = eventually(LIMIT, || world.connect(vip, 80)).unwrap();
        assert_eq!(greeting(&flow).unwrap(), "a", "after {options}");
    }
    world.finish();
}

#[test]
fn without_checks_an_instance_that_does_not_answer_costs_a_connect_now_and_then() {
    let (world, [a, b], vip) = World::with_two();
    drop(b);
    world.await_usable("www_hello", &["a"]);
    let nobody = "[[service.instance]]\nid = \"b\"\naddress = \"127.0.1.2\"\nport = 9\n";
    let text = with_options(
        "www_hello",
        &[&a],
        "lb_check = \"off\", lb_balance = \"round-robin\"",
    );
    world.publish(&(text + nobody));
    // Whoever is not probed is believed to work.
    world.await_usable("www_hello", &["a", "b"]);
    eventually(LIMIT, || refused(world.connect(vip, 80))).unwrap();
    // The kernel saw it, and all that come next meet the other one.
    assert_eq!(met(&world, vip, 20), BTreeSet::from(["a".to_owned()]));
    world.await_usable("www_hello", &["a", "b"]);
    world.finish();
}

#[test]
fn an_instance_that_comes_back_gets_its_share_in_steps() {
    let (world, [a, b], vip) = World::with_two();
    let all = service("www_hello", &[&a, &b]);
    let address = b.address();
    // A new process takes its place, while this is asked for. The port tells when that is known.
    let come_back = |b: Instance, time: &str, port: u16| {
        let options = format!(
            "lb_slow_start = \"{time}\", lb_balance = \"round-robin\", lb_port = \"{port}\""
        );
        let options = format!("options = {{ {options} }}\n[[service.instance]]");
        world.publish(&all.replacen("[[service.instance]]", &options, 1));
        world.await_report(|report| {
            let ports = report.service("www_hello")?["ports"].as_array()?;
            ports.iter().eq([port]).then_some(())
        });
        drop(b);
        world.await_usable("www_hello", &["a"]);
        let b = Instance::start_at(&world.netns, "b", address);
        world.await_usable("www_hello", &["a", "b"]);
        b
    };
    let share = || {
        let told = world.ask(&["explain", "host", "www_hello", "-o", "json"]);
        let told = told.json();
        let mut backends = told["backends"].as_array().unwrap().iter();
        let b = backends.find(|it| it["address"] == address.to_string());
        b.unwrap()["share_permille"].as_u64().unwrap()
    };
    let met_by_b = |port: u16, flows: usize| {
        let flow = |_| greeting(&world.connect(vip, port).unwrap()).unwrap();
        (0..flows).map(flow).filter(|met| met == "b").count()
    };
    let b = come_back(b, "1h", 80);
    // A tenth of what the other one has.
    assert_eq!(share(), 90);
    assert_eq!(met_by_b(80, 110), 10);
    let _b = come_back(b, "4s", 81);
    let mut shares = Vec::new();
    let whole = eventually(LIMIT, || {
        let now = share();
        shares.push(now);
        (now == 500).then_some(()).ok_or(now)
    });
    whole.unwrap();
    assert!(shares.is_sorted(), "{shares:?}");
    shares.dedup();
    assert!(shares.len() > 3, "{shares:?}");
    assert_eq!(met_by_b(81, 20), 10);
    world.finish();
}
