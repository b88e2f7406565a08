//! The many ways in which applications connect, and where they do it.

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    thread,
};

use lb_common::{ANY_PORT, Balance, Be32, HOST_VIEW, PROTO_TCP, ServiceKey, flag};
use lb_testkit::{Cgroup, Spawn, disconnect};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Socket, Type};

use super::world::{Nested, VIP, VIP6, World, endpoint};

fn tcp(world: &World, domain: Domain) -> Socket {
    let made = world
        .netns
        .enter(|| Socket::new(domain, Type::STREAM, None));
    made.unwrap().unwrap()
}

fn vip() -> SocketAddr {
    (VIP, 80).into()
}

/// What a shell does that connects to a VIP and shows what it is told there.
fn shell(vip: Ipv4Addr) -> String {
    format!("exec 3<>/dev/tcp/{vip}/80 && read -r line <&3 && echo \"$line\"")
}

/// Says `hello` to so many connections.
fn greet(listener: TcpListener, times: usize) -> thread::JoinHandle<TcpListener> {
    thread::spawn(move || {
        for _ in 0..times {
            listener.accept().unwrap().0.write_all(b"hello\n").unwrap();
        }
        listener
    })
}

fn flows(world: &World) -> u64 {
    let tables = world.installed.services.values().map(|it| it.table);
    tables
        .map(|table| world.maps.counters(table).unwrap().flows)
        .sum()
}

#[test]
fn many_threads_that_hold_flows_at_once_are_all_counted() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..4).map(|n| world.listen([127, 0, 0, n])).unzip();
    world.serve(VIP, Balance::RoundRobin, &backends);
    let held = world.netns.enter(|| {
        thread::scope(|scope| {
            let connect = || (0..10).map(|_| TcpStream::connect((VIP, 80)).unwrap());
            let threads: Vec<_> = (0..20)
                .map(|_| scope.spawn(move || connect().collect::<Vec<_>>()))
                .collect();
            let held = threads.into_iter().map(|it| it.join().unwrap());
            held.collect::<Vec<_>>()
        })
    });
    let active: Vec<_> = backends.iter().map(|&it| world.active(it)).collect();
    assert_eq!(active, [100, 100]);
    drop((held.unwrap(), listeners));
    for backend in backends {
        world.await_active(backend, 0);
    }
}

#[test]
fn a_connect_that_does_not_block_is_counted_from_its_start_and_works() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let socket = tcp(&world, Domain::IPV4);
    socket.set_nonblocking(true).unwrap();
    let started = socket.connect(&vip().into()).unwrap_err();
    assert_eq!(started.raw_os_error(), Some(nix::libc::EINPROGRESS));
    assert_eq!(world.active(backend), 1);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    socket.set_nonblocking(false).unwrap();
    // The second connect tells how the first one went, and counts nothing more.
    assert!(
        socket
            .connect(&vip().into())
            .is_ok_and(|()| socket.take_error().unwrap().is_none())
    );
    assert_eq!((world.active(backend), flows(&world)), (1, 1));
    let mut heard = [0; 5];
    (&socket).read_exact(&mut heard).unwrap();
    assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(vip()));
    drop(socket);
    world.await_active(backend, 0);
}

/// How many servers of the namespace were sent data with the SYN.
fn fast_opens(world: &World) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let text = world.netns.enter(read).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, value) = both
        .find(|(name, _)| *name == "TCPFastOpenPassive")
        .unwrap();
    value.parse().unwrap()
}

/// Sends data with the SYN to `vip`, whose backend this is, and then to nobody.
fn assert_first_packets(world: &mut World, vip: IpAddr, key: ServiceKey, listener: &TcpListener) {
    let backend = listener.local_addr().unwrap();
    let vip = SocketAddr::from((vip, 80));
    let domain = Domain::for_address(vip);
    world.put(key, endpoint(Balance::LeastConn, &[backend]));
    let before = fast_opens(world);
    // The first one may have to fetch the cookie that the others send their data with.
    for round in 0..3 {
        let socket = tcp(world, domain);
        let sent = if round < 2 {
            socket.send_to_with_flags(b"hello", &vip.into(), nix::libc::MSG_FASTOPEN)
        } else {
            // The other way: a connect that only notes the address, and a first write that connects.
            setsockopt(&socket, sockopt::TcpFastOpenConnect, &true).unwrap();
            socket.connect(&vip.into()).unwrap();
            socket.send(b"hello")
        };
        assert_eq!(sent.unwrap(), 5, "{vip}, round {round}");
        let (mut server, _) = listener.accept().unwrap();
        let mut heard = [0; 5];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        assert_eq!(world.active(backend), 1, "{vip}, round {round}");
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(vip));
        drop(socket);
        world.await_active(backend, 0);
    }
    assert!(fast_opens(world) >= before + 2, "{vip}");
    let table = world.table(&key);
    assert_eq!(world.maps.counters(table).unwrap().flows, 3);
    world.put(key, endpoint(Balance::LeastConn, &[]));
    let refused = tcp(world, domain);
    let refused = refused.send_to_with_flags(b"?", &vip.into(), nix::libc::MSG_FASTOPEN);
    let refused = refused.unwrap_err().raw_os_error();
    assert_eq!(refused, Some(nix::libc::ECONNREFUSED));
}

#[test]
fn data_in_the_first_packet_reaches_a_backend_through_a_vip() {
    let mut world = World::new();
    // Of both families.
    let allow = || std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1027");
    world.netns.enter(allow).unwrap().unwrap();
    let key = ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, PROTO_TCP, HOST_VIEW);
    let (four, _) = world.listen([127, 0, 0, 2]);
    for vip in [VIP.into(), VIP6.into(), VIP.to_ipv6_mapped().into()] {
        assert_first_packets(&mut world, vip, key, &four);
        world.forget(key);
    }
    let mut any = endpoint(Balance::LeastConn, &[]);
    any.flags = flag::V6;
    world.put(key, any);
    let six = world
        .netns
        .enter(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)));
    assert_first_packets(
        &mut world,
        VIP6.into(),
        key.for_v6(),
        &six.unwrap().unwrap(),
    );
}

#[test]
fn a_socket_that_a_child_inherits_counts_once_until_the_last_one_closes_it() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let client = world.connect(VIP, 80).unwrap();
    let inherited = OwnedFd::from(client.try_clone().unwrap());
    let mut child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::from(inherited))
        .spawn()
        .unwrap();
    drop(client);
    assert_eq!(world.active(backend), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    world.await_active(backend, 0);
}

#[test]
fn a_socket_on_its_way_to_another_process_counts_once_until_the_last_one_closes_it() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    for arrives in [true, false] {
        let client = world.connect(VIP, 80).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let passed = [client.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&passed)];
        let (text, flags) = ([IoSlice::new(b"?")], MsgFlags::empty());
        sendmsg::<()>(here.as_raw_fd(), &text, &rights, flags, None).unwrap();
        drop(client);
        assert_eq!(world.active(backend), 1, "on its way");
        if arrives {
            let mut room = nix::cmsg_space!([i32; 1]);
            let mut byte = [0];
            let mut text = [IoSliceMut::new(&mut byte)];
            let got = recvmsg::<()>(there.as_raw_fd(), &mut text, Some(&mut room), flags).unwrap();
            let Some(ControlMessageOwned::ScmRights(descriptors)) = got.cmsgs().unwrap().next()
            else {
                panic!("no descriptor came");
            };
            drop((here, there));
            assert_eq!(world.active(backend), 1, "arrived");
            nix::unistd::close(descriptors[0]).unwrap();
        } else {
            drop((here, there));
        }
        world.await_active(backend, 0);
    }
    assert_eq!(flows(&world), 2);
}

#[test]
fn processes_that_live_for_one_connect_leave_nothing_behind() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let greeting = greet(listener, 50);
    for _ in 0..50 {
        let client = Spawn::new("client", "bash").args(["-c", &shell(VIP)]);
        assert_eq!(client.netns(&world.netns).output().unwrap(), "hello");
    }
    greeting.join().unwrap();
    world.await_active(backend, 0);
    assert_eq!(flows(&world), 50);
}

#[test]
fn a_process_in_a_child_of_the_cgroup_is_a_client_and_one_outside_is_not() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let greeting = greet(listener, 1);
    let child = world.cgroup().subgroup("child").unwrap();
    let grandchild = child.subgroup("grandchild").unwrap();
    let outside = Cgroup::new("kernel-outside").unwrap();
    let from = |group| {
        let client = Spawn::new("client", "bash").args(["-c", &shell(VIP)]);
        client.netns(&world.netns).cgroup(group).output()
    };
    assert_eq!(from(&grandchild).unwrap(), "hello");
    greeting.join().unwrap();
    // The pool's route answers.
    let refused = from(&outside).unwrap_err().to_string();
    assert!(refused.contains("No route to host"), "{refused}");
    assert_eq!(flows(&world), 1);
    drop(grandchild);
}

#[test]
fn programs_attached_further_down_and_ours_leave_each_other_alone() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let child = world.cgroup().subgroup("child").unwrap();
    let theirs = Ipv4Addr::new(198, 19, 7, 7);
    let mut nested = Nested::new(&world, &child, "198.19.0.0/16");
    let key = ServiceKey::new(
        Be32::from_host(theirs.into()),
        ANY_PORT,
        PROTO_TCP,
        HOST_VIEW,
    );
    nested.put(key, endpoint(Balance::LeastConn, &[backend]));
    let greeting = greet(listener, 6);
    let counts = |nested: &Nested| {
        let table = nested.installed.services[&key].table;
        (flows(&world), nested.maps.counters(table).unwrap().flows)
    };
    for round in 1..4 {
        for vip in [VIP, theirs] {
            let client = Spawn::new("client", "bash").args(["-c", &shell(vip)]);
            let said = client.netns(&world.netns).cgroup(&child).output();
            assert_eq!(said.unwrap(), "hello", "{vip}");
        }
        assert_eq!(counts(&nested), (round, round));
    }
    greeting.join().unwrap();
    // Each refuses what is nobody's in its own pool.
    for nobody in ["198.18.9.9", "198.19.9.9"] {
        let client = Spawn::new("client", "bash").args(["-c", &shell(nobody.parse().unwrap())]);
        let refused = client.netns(&world.netns).cgroup(&child).output();
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("Connection refused"), "{refused}");
    }
    world.await_active(backend, 0);
    let index = nested.installed.backends[&backend].id.index;
    assert_eq!(nested.maps.active(index).unwrap(), 0);
    drop(nested);
}

#[test]
fn a_client_without_ipv4_reaches_what_answers_over_ipv6_and_nothing_else() {
    let mut world = World::new();
    let (_four, four) = world.listen([127, 0, 0, 2]);
    let six = world
        .netns
        .enter(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)));
    let six = six.unwrap().unwrap();
    let at_six = six.local_addr().unwrap();
    let key = ServiceKey::new(Be32::from_host(VIP.into()), ANY_PORT, PROTO_TCP, HOST_VIEW);
    world.put(key.for_v6(), endpoint(Balance::LeastConn, &[at_six]));
    let mut any = endpoint(Balance::LeastConn, &[four]);
    any.flags = flag::V6;
    world.put(key, any.clone());
    world
        .netns
        .ip("addr del 198.18.0.1/32 dev lo\naddr del 127.0.0.1/8 dev lo\n")
        .unwrap();
    for only in [true, false] {
        let socket = tcp(&world, Domain::IPV6);
        socket.set_only_v6(only).unwrap();
        socket
            .connect(&SocketAddr::from((VIP6, 80)).into())
            .unwrap();
        let seen = six.accept().unwrap().1.ip();
        assert_eq!(seen, Ipv6Addr::LOCALHOST);
        assert_eq!(world.active(at_six), 1);
        drop(socket);
        world.await_active(at_six, 0);
    }
    // What answers over IPv4 alone fails at once, and nobody is blamed for it.
    world.forget(key.for_v6());
    any.flags = 0;
    world.put(key, any);
    for only in [true, false] {
        let socket = tcp(&world, Domain::IPV6);
        socket.set_only_v6(only).unwrap();
        let error = socket
            .connect(&SocketAddr::from((VIP6, 80)).into())
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENETUNREACH), "{only}");
        assert!(!world.suspected(four));
        drop(socket);
        world.await_active(four, 0);
    }
}

#[test]
fn one_socket_that_is_disconnected_and_connected_over_and_over_counts_once() {
    let mut world = World::new();
    let (listeners, backends): (Vec<_>, Vec<_>) =
        (2..4).map(|n| world.listen([127, 0, 0, n])).unzip();
    world.serve(VIP, Balance::RoundRobin, &backends);
    let socket = tcp(&world, Domain::IPV4);
    for round in 0..50 {
        socket.connect(&vip().into()).unwrap();
        let active: u64 = backends.iter().map(|&it| world.active(it)).sum();
        assert_eq!(active, 1, "round {round}");
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(vip()));
        disconnect(&socket).unwrap();
    }
    drop((socket, listeners));
    for backend in backends {
        world.await_active(backend, 0);
    }
}
