//! The sockets behind VIPs: which are seen, and which are ended.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
};

use lb_agent::{
    desired::Endpoint,
    sockets::{Flows, Sockets, Target},
};
use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP, PROTO_UDP, ServiceKey, flag};
use lb_testkit::{Netns, Process, Spawn, eventually};
use socket2::Type;

use super::world::{LIMIT, VIP, VIP6, World, endpoint};
use crate::ends::{Pair, Server};

/// Somebody lives there, so that the namespace is found among those of the processes.
fn inhabit(netns: &Netns) -> Process {
    Spawn::new("inhabitant", "sleep")
        .args(["600"])
        .netns(netns)
        .start()
        .unwrap()
}

/// What lists and ends sockets; its thread stands outside the namespaces of the clients.
fn sockets(world: &World) -> Sockets {
    let records = world.netns.enter(|| world.programs.records().unwrap());
    Sockets::start(records.unwrap()).unwrap()
}

fn wait<T>(answer: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(answer)
}

fn flows(sockets: &Sockets) -> Flows {
    wait(sockets.list(None)).unwrap()
}

fn target(vip: Ipv4Addr, backend: SocketAddr) -> Target {
    Target {
        vip,
        address: backend,
    }
}

#[test]
fn a_flow_through_a_vip_is_seen_with_its_owner_and_a_direct_one_is_not() {
    let mut world = World::new();
    let _somebody = inhabit(&world.netns);
    let (listener, backend) = world.listen([127, 0, 1, 1]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let through = Pair::new(&listener, world.connect(VIP, 80));
    let _direct = Pair::new(&listener, world.connect(backend.ip(), backend.port()));

    let flows = flows(&sockets(&world));
    let [flow] = &flows.listed[..] else {
        panic!("{flows:#?}");
    };
    assert_eq!(flow.origin.vip, VIP);
    assert_eq!(flow.origin.vip_port, 80);
    assert_eq!(flow.origin.address, backend);
    assert_eq!(flow.origin.backend, world.installed.backends[&backend].id);
    let local = through.client.local_addr().unwrap();
    assert_eq!(Some(flow.local), local.as_socket());
    assert_eq!((flow.protocol, flow.state), ("tcp", "established"));
    assert!(flow.age < LIMIT, "{flow:?}");
    assert!(flows.sight.namespaces.contains(&flow.netns));
    let owner = flow.process.as_ref().unwrap();
    assert_eq!(owner.pid, std::process::id());
    assert_eq!(flows.left_out, 0);
}

#[test]
fn a_flow_that_is_over_is_not_seen() {
    let mut world = World::new();
    let _somebody = inhabit(&world.netns);
    let (listener, backend) = world.listen([127, 0, 1, 1]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let sockets = sockets(&world);
    let pair = Pair::new(&listener, world.connect(VIP, 80));
    assert_eq!(flows(&sockets).listed.len(), 1);
    drop(pair.client);
    world.await_active(backend, 0);
    // The server still has its end open, so the client's lingers in the kernel.
    assert_eq!(flows(&sockets).listed, []);
}

#[test]
fn only_flows_through_the_vip_to_the_backend_are_ended() {
    let mut world = World::new();
    let _somebody = inhabit(&world.netns);
    let other_vip = Ipv4Addr::new(198, 18, 7, 8);
    let (listener, backend) = world.listen([127, 0, 1, 1]);
    let (other_listener, other) = world.listen([127, 0, 1, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    world.serve(other_vip, Balance::LeastConn, &[backend, other]);
    let through = Pair::new(&listener, world.connect(VIP, 80));
    let direct = Pair::new(&listener, world.connect(backend.ip(), backend.port()));
    world.serve(other_vip, Balance::LeastConn, &[backend]);
    let by_other_vip = Pair::new(&listener, world.connect(other_vip, 80));
    world.serve(VIP, Balance::LeastConn, &[other]);
    let to_other = Pair::new(&other_listener, world.connect(VIP, 80));

    let sockets = sockets(&world);
    let gone = target(VIP, backend);
    let (targets, _) = wait(sockets.targets()).unwrap();
    let all = [gone, target(VIP, other), target(other_vip, backend)];
    assert_eq!(targets, BTreeSet::from(all));
    let outcome = wait(sockets.end(BTreeSet::from([gone]))).unwrap();
    assert_eq!((outcome.error, outcome.failed), (None, BTreeSet::new()));
    assert_eq!(Vec::from_iter(outcome.ended), [(gone, 1)]);
    through.assert_cut();
    for other in [&direct, &by_other_vip, &to_other] {
        other.assert_works();
    }
    // Once more finds nothing.
    let again = wait(sockets.end(BTreeSet::from([gone]))).unwrap();
    assert!(again.ended.is_empty());
    // The count falls when the application has heard of it.
    drop(through.client);
    world.await_active(backend, 1);
}

/// Cuts a flow through the VIP, which `named` names, to `server`; a direct one there goes on.
#[track_caller]
fn assert_ends(world: &World, sockets: &Sockets, kind: Type, named: IpAddr, server: &Server) {
    let [through, direct] = server.both(&world.netns, kind, named);
    assert_eq!(world.active(server.address), 1);
    let gone = target(VIP, server.address);
    let seen = flows(sockets).listed;
    let [flow] = &seen[..] else {
        panic!("{named}: {seen:#?}");
    };
    let protocol = if kind == Type::STREAM { "tcp" } else { "udp" };
    assert_eq!((flow.protocol, flow.state), (protocol, "established"));
    assert_eq!(flow.process.as_ref().unwrap().pid, std::process::id());
    assert_eq!(wait(sockets.targets()).unwrap().0, BTreeSet::from([gone]));
    let outcome = wait(sockets.end(BTreeSet::from([gone]))).unwrap();
    assert_eq!(outcome.error, None);
    assert_eq!(Vec::from_iter(outcome.ended), [(gone, 1)], "{named}");
    through.assert_cut();
    direct.assert_works();
    assert_eq!(flows(sockets).listed, [], "{named}");
    drop(through);
    world.await_active(server.address, 0);
}

#[test]
fn flows_of_every_family_and_protocol_are_ended_and_direct_ones_go_on() {
    let mut world = World::new();
    let _somebody = inhabit(&world.netns);
    let four = Server::start(&world.netns, Ipv4Addr::new(127, 0, 1, 1));
    let six = Server::start(&world.netns, Ipv6Addr::LOCALHOST);
    let sockets = sockets(&world);
    for (kind, proto) in [(Type::STREAM, PROTO_TCP), (Type::DGRAM, PROTO_UDP)] {
        let key = ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, proto, HOST_VIEW);
        world.put(key, endpoint(Balance::LeastConn, &[four.address]));
        for named in [VIP.into(), VIP6.into(), VIP.to_ipv6_mapped().into()] {
            assert_ends(&world, &sockets, kind, named, &four);
        }
        world.put(key.for_v6(), endpoint(Balance::LeastConn, &[six.address]));
        let any = Endpoint {
            flags: flag::V6,
            ..endpoint(Balance::LeastConn, &[four.address])
        };
        world.put(key, any);
        assert_ends(&world, &sockets, kind, VIP6.into(), &six);
    }
}

#[test]
fn an_ipv6_socket_that_talks_ipv4_past_a_vip_is_left_alone() {
    let mut world = World::new();
    let _somebody = inhabit(&world.netns);
    let (listener, backend) = world.listen([127, 0, 1, 1]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let mapped = Ipv4Addr::new(127, 0, 1, 1).to_ipv6_mapped();
    let mapped = SocketAddr::from((mapped, backend.port()));
    let client = world.netns.enter(|| TcpStream::connect(mapped)).unwrap();
    let pair = Pair::new(&listener, client);
    let sockets = sockets(&world);
    assert_eq!(flows(&sockets).listed, []);
    let targets = BTreeSet::from([target(VIP, backend)]);
    assert!(wait(sockets.end(targets)).unwrap().ended.is_empty());
    pair.assert_works();
}

#[test]
fn a_socket_that_went_from_a_vip_to_the_backend_itself_is_direct() {
    let mut world = World::new();
    let _somebody = inhabit(&world.netns);
    let (listener, backend) = world.listen([127, 0, 1, 1]);
    world.serve(VIP, Balance::LeastConn, &[super::world::NOBODY]);
    let socket = world
        .netns
        .enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, Type::STREAM, None)?;
            let refused = socket.connect(&SocketAddr::from((VIP, 80)).into());
            assert!(refused.is_err(), "somebody listens there");
            socket.connect(&backend.into())?;
            Ok::<_, io::Error>(socket)
        })
        .unwrap();
    let pair = Pair::new(&listener, socket.map(Into::into));
    let sockets = sockets(&world);
    assert_eq!(flows(&sockets).listed, []);
    pair.assert_works();
}

#[test]
fn a_namespace_is_looked_into_while_somebody_lives_in_it() {
    let world = World::new();
    let own = fs::metadata(world.netns.path()).unwrap().ino();
    let somebody = inhabit(&world.netns);
    let sockets = sockets(&world);
    assert!(flows(&sockets).sight.namespaces.contains(&own));
    drop(somebody);
    let left = eventually(LIMIT, || match flows(&sockets).sight.namespaces {
        seen if seen.contains(&own) => Err(seen),
        _ => Ok(()),
    });
    left.unwrap();
}
