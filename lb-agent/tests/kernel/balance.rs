//! Which backend a connect reaches, and what a client sees.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

use lb_common::{Balance, Be16};
use socket2::{Domain, Socket, Type};

use super::world::{NOBODY, OWN, VIP, World};

#[test]
fn a_client_of_a_vip_reaches_the_backend_and_sees_the_vip() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let client = world.connect(VIP, 4711).unwrap();
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(
        peer,
        client.local_addr().unwrap(),
        "the backend sees the real source"
    );
    assert_eq!(
        client.peer_addr().unwrap(),
        SocketAddr::from((VIP, 4711)),
        "the client sees the VIP"
    );
}

#[test]
fn a_client_that_goes_directly_to_a_backend_after_a_refusal_sees_the_backend() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    let socket = world
        .netns
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .unwrap();
    socket
        .connect(&SocketAddr::from((VIP, 80)).into())
        .unwrap_err();
    let _listener = world
        .netns
        .enter(|| TcpListener::bind(NOBODY).unwrap())
        .unwrap();
    socket.connect(&NOBODY.into()).unwrap();
    assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(NOBODY));
}

#[test]
fn a_service_with_named_ports_refuses_the_others() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve_on(VIP, Be16::from_host(443), Balance::LeastConn, &[backend]);
    world.connect(VIP, 443).unwrap();
    assert_eq!(
        world.connect(VIP, 80).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn an_unallocated_address_and_a_service_without_backend_are_refused_at_once() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[]);
    for address in [VIP, Ipv4Addr::new(198, 18, 200, 200)] {
        assert_eq!(
            world.connect(address, 80).unwrap_err().kind(),
            ErrorKind::ConnectionRefused,
            "{address}"
        );
    }
    let table = world.installed.services.values().next().unwrap().table;
    assert_eq!(world.maps.counters(table).unwrap().refused, [0, 1, 0, 0]);
    // Nobody has the other address.
    assert_eq!(world.maps.counters(0).unwrap().refused, [1, 0, 0, 0]);
}

#[test]
fn the_agents_own_address_and_other_protocols_pass() {
    let world = World::new();
    let (_listener, own) = world.listen(OWN.octets());
    world.connect(OWN, own.port()).unwrap();
    let connected = world.netns.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // The unreachable route, not the hook, answers.
        socket.connect((VIP, 53)).unwrap_err().kind()
    });
    assert_eq!(connected.unwrap(), ErrorKind::HostUnreachable);
}

#[test]
fn a_destination_outside_the_pool_is_left_alone() {
    let world = World::new();
    let (_listener, address) = world.listen([127, 0, 0, 2]);
    let client = world.connect(address.ip(), address.port()).unwrap();
    assert_eq!(client.peer_addr().unwrap(), address);
}

#[test]
fn round_robin_shares_exactly() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..5).map(|n| world.listen([127, 0, 0, n])).unzip();
    world.serve(VIP, Balance::RoundRobin, &backends);
    let clients: Vec<_> = (0..30).map(|_| world.connect(VIP, 80).unwrap()).collect();
    assert_eq!(share(&world, &backends), [10, 10, 10]);
    drop((clients, listeners));
}

#[test]
fn least_connections_fills_the_idle_backend_first() {
    let mut world = World::new();
    let (_left, left) = world.listen([127, 0, 0, 2]);
    let (_right, right) = world.listen([127, 0, 0, 3]);
    world.serve(VIP, Balance::LeastConn, &[left]);
    let _held: Vec<_> = (0..20).map(|_| world.connect(VIP, 80).unwrap()).collect();
    world.serve(VIP, Balance::LeastConn, &[left, right]);
    // With two backends both are always compared.
    let _new: Vec<_> = (0..20).map(|_| world.connect(VIP, 80).unwrap()).collect();
    assert_eq!(share(&world, &[left, right]), [20, 20]);
}

#[test]
fn random_reaches_every_backend() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..5).map(|n| world.listen([127, 0, 0, n])).unzip();
    world.serve(VIP, Balance::Random, &backends);
    let clients: Vec<_> = (0..120).map(|_| world.connect(VIP, 80).unwrap()).collect();
    for (backend, flows) in backends.iter().zip(share(&world, &backends)) {
        // 120 draws of 3: fewer than 10 has a chance below 1 in 10^9.
        assert!(flows >= 10, "{backend} got {flows} of 120");
    }
    drop((clients, listeners));
}

#[test]
fn a_change_of_backends_takes_effect_at_the_next_connect() {
    let mut world = World::new();
    let (_old, old) = world.listen([127, 0, 0, 2]);
    let (_new, new) = world.listen([127, 0, 0, 3]);
    for round in 0..50 {
        let (now, before) = if round % 2 == 0 {
            (old, new)
        } else {
            (new, old)
        };
        world.serve(VIP, Balance::LeastConn, &[now]);
        let _client = world.connect(VIP, 80).unwrap();
        assert_eq!(world.active(now), 1, "round {round}");
        if world.installed.backends.contains_key(&before) {
            world.await_active(before, 0);
        }
    }
}

fn share(world: &World, backends: &[SocketAddr]) -> Vec<u64> {
    let counts: BTreeMap<_, _> = backends
        .iter()
        .map(|&backend| (backend, world.active(backend)))
        .collect();
    backends.iter().map(|backend| counts[backend]).collect()
}
