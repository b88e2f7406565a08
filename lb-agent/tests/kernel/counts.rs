//! The count of open flows is exact, whatever ends a flow.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
};

use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_UDP, ServiceKey};
use lb_testkit::disconnect;
use socket2::{Domain, Protocol, Socket, Type};

use super::world::{NOBODY, OWN, VIP, World, endpoint};

#[test]
fn a_closed_flow_is_not_counted_and_a_copied_descriptor_counts_once() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let client = world.connect(VIP, 80).unwrap();
    let copy = client.try_clone().unwrap();
    assert_eq!(world.active(backend), 1);
    drop(client);
    assert_eq!(world.active(backend), 1);
    drop(copy);
    world.await_active(backend, 0);
}

#[test]
fn a_refused_connect_is_not_counted_even_while_its_socket_lives() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    let socket = world
        .netns
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .unwrap();
    socket
        .connect(&SocketAddr::from((VIP, 80)).into())
        .unwrap_err();
    world.await_active(NOBODY, 0);
    drop(socket);
    world.await_active(NOBODY, 0);
}

#[test]
fn a_socket_that_connects_again_is_counted_where_it_is_now() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    let socket = world
        .netns
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .unwrap();
    let vip = SocketAddr::from((VIP, 80));
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    socket.connect(&vip.into()).unwrap_err();
    world.serve(VIP, Balance::LeastConn, &[backend]);
    socket.connect(&vip.into()).unwrap();
    assert_eq!(world.active(backend), 1);
    assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(vip));
    drop(socket);
    world.await_active(backend, 0);
}

#[test]
fn a_socket_that_leaves_its_vip_for_another_address_is_not_counted_and_sees_that_address() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    let (_outside, outside) = world.listen([127, 0, 0, 3]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let client = world.connect(VIP, 80).unwrap();
    assert_eq!(world.active(backend), 1);
    disconnect(&client).unwrap();
    let socket = Socket::from(client);
    socket.connect(&outside.into()).unwrap();
    world.await_active(backend, 0);
    assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(outside));
}

#[test]
fn a_udp_socket_that_is_connected_elsewhere_is_not_counted() {
    let mut world = World::new();
    let backend = SocketAddr::from(([127, 0, 0, 2], 53));
    let key = ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, PROTO_UDP, HOST_VIEW);
    world.put(key, endpoint(Balance::LeastConn, &[backend]));
    for to in [SocketAddr::from(([127, 0, 0, 3], 53)), (OWN, 53).into()] {
        let client = world
            .netns
            .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap())
            .unwrap();
        client.connect((VIP, 53)).unwrap();
        assert_eq!(world.active(backend), 1);
        client.connect(to).unwrap();
        assert_eq!(world.active(backend), 0, "{to}");
        client.connect((VIP, 53)).unwrap();
        assert_eq!(world.active(backend), 1, "{to}");
        // As glibc's resolver asks for a route: that of the pool refuses it, and the socket stays connected.
        client.connect((VIP, 0)).unwrap_err();
        assert_eq!(world.active(backend), 1, "{to}");
        drop(client);
        world.await_active(backend, 0);
    }
}

#[test]
fn a_flow_of_multipath_tcp_is_counted_as_long_as_it_is_open() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    for _ in 0..3 {
        let client = world
            .netns
            .enter(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap());
        let client = client.unwrap();
        client.connect(&SocketAddr::from((VIP, 80)).into()).unwrap();
        let (server, _) = listener.accept().unwrap();
        // Its subflow is a socket of the kernel's own.
        assert_eq!(world.active(backend), 1);
        drop((client, server));
        world.await_active(backend, 0);
    }
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    let client = world
        .netns
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap());
    let error = client.unwrap().connect(&SocketAddr::from((VIP, 80)).into());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    world.await_active(NOBODY, 0);
    assert!(world.suspected(NOBODY));
}

#[test]
fn many_threads_leave_a_count_of_zero() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let accepting = thread::spawn(move || (0..400).for_each(|_| drop(listener.accept().unwrap())));
    world
        .netns
        .enter(|| {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        (0..100).for_each(|_| drop(TcpStream::connect((VIP, 80)).unwrap()));
                    });
                }
            });
        })
        .unwrap();
    accepting.join().unwrap();
    world.await_active(backend, 0);
    let table = world.installed.services.values().next().unwrap().table;
    assert_eq!(world.maps.counters(table).unwrap().flows, 400);
}
