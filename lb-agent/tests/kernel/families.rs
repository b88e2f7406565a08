//! IPv6 VIPs, IPv4 ones on IPv6 sockets, and UDP.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP, PROTO_UDP, ServiceKey, flag};
use socket2::{Domain, Socket, Type};

use super::world::{LIMIT, OWN, VIP, VIP6, World, endpoint};

fn key(proto: u8) -> ServiceKey {
    ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, proto, HOST_VIEW)
}

/// A listener on the namespace's IPv6 loopback.
fn listen6(world: &World) -> (TcpListener, SocketAddr) {
    let listener = world
        .netns
        .enter(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap())
        .unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn an_ipv4_service_answers_on_its_ipv6_vip_and_on_the_mapped_one() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    for vip in [VIP6, VIP.to_ipv6_mapped()] {
        let client = world.connect(vip, 80).unwrap();
        let (_, peer) = listener.accept().unwrap();
        // The source is real, and the client sees the address that it asked for.
        assert_eq!(peer.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!(client.peer_addr().unwrap(), SocketAddr::from((vip, 80)));
        assert_eq!(world.active(backend), 1, "{vip}");
        drop(client);
        world.await_active(backend, 0);
    }
}

#[test]
fn an_ipv6_backend_is_for_ipv6_sockets_and_ipv4_ones_get_the_rest() {
    let mut world = World::new();
    let (_four, four) = world.listen([127, 0, 0, 2]);
    let (_six, six) = listen6(&world);
    let mut all = endpoint(Balance::RoundRobin, &[four, six]);
    let mut some = endpoint(Balance::RoundRobin, &[four]);
    some.flags = flag::V6;
    all.flags = 0;
    world.put(key(PROTO_TCP).for_v6(), all);
    world.put(key(PROTO_TCP), some);
    let sixes: Vec<_> = (0..4).map(|_| world.connect(VIP6, 80).unwrap()).collect();
    assert_eq!((world.active(four), world.active(six)), (2, 2));
    assert!(
        sixes
            .iter()
            .all(|it| it.peer_addr().unwrap() == SocketAddr::from((VIP6, 80)))
    );
    let fours: Vec<_> = (0..4).map(|_| world.connect(VIP, 80).unwrap()).collect();
    assert_eq!((world.active(four), world.active(six)), (6, 2));
    drop((sixes, fours));
    world.await_active(four, 0);
    world.await_active(six, 0);
}

#[test]
fn an_ipv6_address_of_the_pool_that_nobody_has_is_refused_and_the_agents_own_passes() {
    let world = World::new();
    let nobody = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 0x0708);
    let beyond = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 1, 0x0708);
    for vip in [nobody, beyond] {
        let error = world.connect(vip, 80).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{vip}");
    }
    world
        .netns
        .ip("addr add fd62:6c62:76:1::1/128 dev lo nodad\n")
        .unwrap();
    let own = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 1);
    let listener = world
        .netns
        .enter(|| TcpListener::bind((own, 0)).unwrap())
        .unwrap();
    world
        .connect(own, listener.local_addr().unwrap().port())
        .unwrap();
}

#[test]
fn nobody_can_bind_to_a_vip_but_the_agent_to_its_own_address() {
    let world = World::new();
    // Without the hook this would be allowed.
    world
        .netns
        .enter(|| {
            for family in ["ipv4", "ipv6"] {
                let allowed = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
                std::fs::write(allowed, "1").unwrap();
            }
        })
        .unwrap();
    let bind = |kind, address: IpAddr| {
        let address = SocketAddr::from((address, 0));
        let bound = world.netns.enter(|| {
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            socket.bind(&address.into())
        });
        bound.unwrap()
    };
    let own6 = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 1);
    for kind in [Type::STREAM, Type::DGRAM] {
        for vip in [VIP.into(), VIP6.into(), VIP.to_ipv6_mapped().into()] {
            let error = bind(kind, vip).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{vip}");
        }
        for own in [OWN.into(), own6.into(), OWN.to_ipv6_mapped().into()] {
            bind(kind, own).unwrap();
        }
    }
}

/// An echo server for datagrams on this loopback address. It ends with the test.
struct Echo {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Echo {
    fn new(world: &World, ip: IpAddr) -> Self {
        let socket = udp(world, ip);
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// Answers one datagram.
    fn answer(&self) {
        let mut buffer = [0; 64];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        self.socket.send_to(&buffer[..length], from).unwrap();
    }

    /// Whether a datagram waits.
    fn is_asked(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let asked = self.socket.peek_from(&mut [0; 64]).is_ok();
        self.socket.set_nonblocking(false).unwrap();
        asked
    }
}

/// A socket that gives up after a while.
fn udp(world: &World, ip: IpAddr) -> UdpSocket {
    let socket = world
        .netns
        .enter(|| UdpSocket::bind((ip, 0)).unwrap())
        .unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

#[test]
fn an_unconnected_socket_sees_answers_come_from_each_vip_that_it_asked() {
    let mut world = World::new();
    let loopback = |n| IpAddr::from([127, 0, 0, n]);
    let echoes = [2, 3].map(|n| Echo::new(&world, loopback(n)));
    let other = Ipv4Addr::new(198, 18, 7, 8);
    for (vip, echo) in [(VIP, &echoes[0]), (other, &echoes[1])] {
        let key = ServiceKey::new(Be32::from_host(vip.into()), ANY_PORT, PROTO_UDP, HOST_VIEW);
        world.put(key, endpoint(Balance::RoundRobin, &[echo.address]));
    }
    let client = udp(&world, [0, 0, 0, 0].into());
    for _ in 0..3 {
        for (vip, echo) in [(VIP, &echoes[0]), (other, &echoes[1])] {
            client.send_to(b"hello", (vip, 53)).unwrap();
            echo.answer();
            let (length, from) = client.recv_from(&mut [0; 64]).unwrap();
            assert_eq!((length, from), (5, SocketAddr::from((vip, 53))));
        }
    }
    // An address that is no VIP answers under its own name.
    client.send_to(b"direct", echoes[1].address).unwrap();
    echoes[1].answer();
}

#[test]
fn all_datagrams_of_a_socket_go_to_one_backend_while_it_is_there() {
    let mut world = World::new();
    let echoes = [2, 3].map(|n| Echo::new(&world, [127, 0, 0, n].into()));
    let both = [echoes[0].address, echoes[1].address];
    world.put(key(PROTO_UDP), endpoint(Balance::RoundRobin, &both));
    let client = udp(&world, [0, 0, 0, 0].into());
    client.send_to(b"first", (VIP, 53)).unwrap();
    let first = usize::from(!echoes[0].is_asked());
    echoes[first].answer();
    for _ in 0..5 {
        client.send_to(b"again", (VIP, 53)).unwrap();
        echoes[first].answer();
    }
    // It leaves the slots: the next datagram goes to the other one.
    world.put(
        key(PROTO_UDP),
        endpoint(Balance::RoundRobin, &[both[1 - first]]),
    );
    client.send_to(b"moved", (VIP, 53)).unwrap();
    echoes[1 - first].answer();
    assert!(!echoes[first].is_asked());
}

#[test]
fn a_connected_udp_socket_is_counted_and_sees_the_vip() {
    let mut world = World::new();
    let echo = Echo::new(&world, [127, 0, 0, 2].into());
    world.put(
        key(PROTO_UDP),
        endpoint(Balance::LeastConn, &[echo.address]),
    );
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let any: IpAddr = if vip.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let client = udp(&world, any);
        client.connect((vip, 53)).unwrap();
        assert_eq!(client.peer_addr().unwrap(), SocketAddr::from((vip, 53)));
        assert_eq!(world.active(echo.address), 1);
        client.send(b"hello").unwrap();
        echo.answer();
        let (_, from) = client.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from, SocketAddr::from((vip, 53)));
        drop(client);
        world.await_active(echo.address, 0);
    }
}

#[test]
fn an_ipv6_socket_gets_its_answers_from_the_form_of_the_vip_that_it_used() {
    let mut world = World::new();
    let echo = Echo::new(&world, [127, 0, 0, 2].into());
    world.put(key(PROTO_UDP), endpoint(Balance::Random, &[echo.address]));
    let client = udp(&world, Ipv6Addr::UNSPECIFIED.into());
    let mapped = SocketAddr::from((VIP.to_ipv6_mapped(), 53));
    client.send_to(b"hello", mapped).unwrap();
    echo.answer();
    let (_, from) = client.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(from, mapped);
    // The kernel cannot send a datagram of an IPv6 address to an IPv4 one.
    let error = client.send_to(b"hello", (VIP6, 53)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let six = Echo::new(&world, Ipv6Addr::LOCALHOST.into());
    world.put(
        key(PROTO_UDP).for_v6(),
        endpoint(Balance::Random, &[six.address]),
    );
    let mut four = endpoint(Balance::Random, &[echo.address]);
    four.flags = flag::V6;
    world.put(key(PROTO_UDP), four);
    client.send_to(b"hello", (VIP6, 53)).unwrap();
    six.answer();
    let (_, from) = client.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(from, SocketAddr::from((VIP6, 53)));
}

#[test]
fn an_ipv6_socket_that_is_connected_by_an_ipv4_address_sees_it_in_its_mapped_form() {
    let mut world = World::new();
    let echo = Echo::new(&world, [127, 0, 0, 2].into());
    world.put(key(PROTO_UDP), endpoint(Balance::Random, &[echo.address]));
    let client = udp(&world, Ipv6Addr::UNSPECIFIED.into());
    // Once by the IPv6 form, which leaves its marks in the record.
    client.connect((VIP6, 53)).unwrap();
    assert_eq!(client.peer_addr().unwrap(), (VIP6, 53).into());
    client.connect((VIP, 53)).unwrap();
    let mapped = SocketAddr::from((VIP.to_ipv6_mapped(), 53));
    assert_eq!(client.peer_addr().unwrap(), mapped);
    client.send(b"hello").unwrap();
    echo.answer();
    let (_, from) = client.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(from, mapped);
}

#[test]
fn the_hooks_for_datagrams_come_and_go() {
    let mut world = World::new();
    let hooks = |world: &World| world.programs.attached().count();
    let without = hooks(&world);
    let echo = Echo::new(&world, [127, 0, 0, 2].into());
    world.put(key(PROTO_UDP), endpoint(Balance::Random, &[echo.address]));
    assert_eq!(hooks(&world), without + 4);
    // The next agent takes them over.
    world.restart();
    assert_eq!(hooks(&world), without + 4);
    let programs = &mut world.programs;
    let gone = world.netns.enter(|| programs.serve_datagrams(false));
    gone.unwrap().unwrap();
    assert_eq!(hooks(&world), without);
    let client = udp(&world, [0, 0, 0, 0].into());
    client
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    // The pool's route refuses it.
    client.send_to(b"lost", (VIP, 53)).unwrap_err();
    assert!(!echo.is_asked());
}

#[test]
fn an_ipv6_connect_that_is_refused_makes_the_backend_suspect() {
    let mut world = World::new();
    let (six, address) = listen6(&world);
    drop(six);
    let mut v6 = endpoint(Balance::RoundRobin, &[address]);
    v6.flags = 0;
    world.put(key(PROTO_TCP).for_v6(), v6);
    let mut none = endpoint(Balance::RoundRobin, &[]);
    none.flags = flag::V6 | flag::NO_PATH;
    world.put(key(PROTO_TCP), none);
    let socket = world
        .netns
        .enter(|| Socket::new(Domain::IPV6, Type::STREAM, None).unwrap())
        .unwrap();
    let error = socket.connect(&SocketAddr::from((VIP6, 80)).into());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(world.suspected(address));
    assert_eq!(world.active(address), 0);
    // No path for an IPv4 socket, which is counted as such.
    let error = world.connect(VIP, 80).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let table = world.installed.services[&key(PROTO_TCP)].table;
    assert_eq!(world.maps.counters(table).unwrap().refused, [0, 0, 1, 0]);
}
