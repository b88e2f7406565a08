//! The sockets behind VIPs: which are seen, and which are ended.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
};

use lb_agent::sockets::{Flows, Sockets, Target};
use lb_common::Balance;
use lb_testkit::{Netns, Process, Spawn, eventually};

use super::world::{LIMIT, VIP, World};

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

/// Both ends of a flow, which works.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn new(listener: &TcpListener, client: io::Result<TcpStream>) -> Self {
        let client = client.unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(LIMIT)).unwrap();
        }
        let pair = Self { client, server };
        pair.assert_works();
        pair
    }

    #[track_caller]
    fn assert_works(&self) {
        let mut byte = [0];
        (&self.client).write_all(b"?").unwrap();
        (&self.server).read_exact(&mut byte).unwrap();
        (&self.server).write_all(b"!").unwrap();
        (&self.client).read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"!");
    }

    /// The client is told at once, and so is the server.
    #[track_caller]
    fn assert_cut(&self) {
        let kind = |mut end: &TcpStream| end.read(&mut [0]).unwrap_err().kind();
        assert_eq!(kind(&self.client), io::ErrorKind::ConnectionAborted);
        assert_eq!(kind(&self.server), io::ErrorKind::ConnectionReset);
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
    assert_eq!(flow.local, through.client.local_addr().unwrap());
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
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
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
