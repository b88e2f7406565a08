//! A backend that the kernel saw fail is skipped for a while, and only while there is another one.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use lb_agent::plan::Step;
use lb_common::{BackendId, Balance, Event, EventKind, SUSPICION_NS};
use lb_testkit::{Netns, disconnect, eventually};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

use super::{
    lookups::BALANCES,
    world::{LIMIT, NOBODY, VIP, World},
};

/// An address behind a device that answers no ARP: a SYN to it goes unanswered. See [`silence`].
const SILENT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, 2), 80));

#[test]
fn a_client_meets_a_refusing_backend_once_while_another_one_answers() {
    let mut world = World::new();
    let (_listener, good) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::RoundRobin, &[NOBODY, good]);
    let failures = (0..40).filter(|_| world.connect(VIP, 80).is_err()).count();
    assert_eq!(failures, 1);
    assert!(world.suspected(NOBODY));
    assert_eq!(
        event(&mut world),
        (id(&world, NOBODY), EventKind::Refused as u32)
    );
}

#[test]
fn a_storm_of_failing_connects_is_told_once() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    for _ in 0..1000 {
        world.connect(VIP, 80).unwrap_err();
    }
    assert_eq!(
        event(&mut world),
        (id(&world, NOBODY), EventKind::Refused as u32)
    );
    assert_eq!(world.events.take(), None);
}

#[test]
fn a_connect_that_times_out_is_one_failure() {
    let mut world = World::new();
    silence(&world);
    world.serve(VIP, Balance::LeastConn, &[SILENT]);
    let socket = world
        .netns
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .unwrap();
    // Behind the second retransmission.
    socket
        .set_tcp_user_timeout(Some(Duration::from_millis(4500)))
        .unwrap();
    let error = socket
        .connect(&SocketAddr::from((VIP, 80)).into())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    world.await_active(SILENT, 0);
    let table = world.installed.services.values().next().unwrap().table;
    let counters = world.maps.counters(table).unwrap();
    assert_eq!((counters.flows, counters.failed), (1, 1));
}

#[test]
fn a_suspect_is_still_tried_when_there_is_nobody_else() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    for _ in 0..3 {
        assert_eq!(
            world.connect(VIP, 80).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    }
    let table = world.installed.services.values().next().unwrap().table;
    let counters = world.maps.counters(table).unwrap();
    assert_eq!(
        (counters.flows, counters.failed, counters.refused),
        (3, 3, [0; 4])
    );
}

#[test]
fn a_new_backend_does_not_inherit_the_suspicion_of_its_index() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    world.connect(VIP, 80).unwrap_err();
    assert!(world.suspected(NOBODY));
    let step = Step::PutBackend {
        address: NOBODY,
        id: id(&world, NOBODY),
        weight: 1,
        counted_at: id(&world, NOBODY),
        fresh: true,
    };
    world.maps.carry_out(&step, &mut world.installed).unwrap();
    assert!(!world.suspected(NOBODY));
}

#[test]
fn an_application_that_closes_a_pending_connect_makes_nobody_suspect() {
    let mut world = World::new();
    silence(&world);
    world.serve(VIP, Balance::LeastConn, &[SILENT]);
    for _ in 0..20 {
        let socket = pending(&world);
        assert_eq!(world.active(SILENT), 1);
        drop(socket);
        world.await_active(SILENT, 0);
    }
    assert!(!world.suspected(SILENT));
    assert_eq!(world.events.take(), None);
}

#[test]
fn a_disconnect_of_a_pending_connect_looks_like_a_refusal_and_takes_no_service_down() {
    let mut world = World::new();
    silence(&world);
    world.serve(VIP, Balance::LeastConn, &[SILENT]);
    let socket = pending(&world);
    disconnect(&socket).unwrap();
    world.await_active(SILENT, 0);
    assert!(world.suspected(SILENT));
    // The only backend goes on taking flows.
    let again = pending(&world);
    assert_eq!(world.active(SILENT), 1);
    drop(again);
}

#[test]
fn a_silent_backend_becomes_suspect_at_the_second_retransmission() {
    let mut world = World::new();
    silence(&world);
    world.serve(VIP, Balance::LeastConn, &[SILENT]);
    let _socket = pending(&world);
    let marked = eventually(LIMIT, || {
        if world.suspected(SILENT) {
            Ok(())
        } else {
            Err("not suspected yet")
        }
    });
    marked.unwrap();
    assert_eq!(
        event(&mut world),
        (id(&world, SILENT), EventKind::Unanswered as u32)
    );
    assert_eq!(world.active(SILENT), 1, "the flow goes on trying");
}

#[test]
fn a_silent_backend_gets_no_flow_after_the_suspicion_while_another_one_answers() {
    let mut world = World::new();
    silence(&world);
    let (listener, good) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::RoundRobin, &[SILENT, good]);
    let _waiting = pending(&world);
    assert_eq!((world.active(SILENT), world.active(good)), (1, 0));
    let marked = || match world.suspected(SILENT) {
        true => Ok(()),
        false => Err("not suspected yet"),
    };
    eventually(LIMIT, marked).unwrap();
    // Whatever is asked for, far within the time that the mark lasts.
    for balance in BALANCES {
        world.serve(VIP, balance, &[SILENT, good]);
        let flows: Vec<_> = (0..40)
            .map(|_| {
                let client = world.connect(VIP, 80).unwrap();
                (client, listener.accept().unwrap())
            })
            .collect();
        assert_eq!(
            (world.active(SILENT), world.active(good)),
            (1, 40),
            "{balance:?}"
        );
        drop(flows);
        world.await_active(good, 0);
    }
}

#[test]
fn a_storm_of_aborted_connects_to_two_backends_never_has_the_service_refused() {
    let mut world = World::new();
    silence(&world);
    let other = SocketAddr::from(([10, 99, 0, 2], 81));
    let both = [SILENT, other];
    world.serve(VIP, Balance::LeastConn, &both);
    for round in 0..200 {
        let sockets: Vec<_> = (0..8).map(|_| pending(&world)).collect();
        let active: u64 = both.iter().map(|&it| world.active(it)).sum();
        assert_eq!(active, 8, "round {round}");
        for (number, socket) in sockets.iter().enumerate() {
            // Some are dissolved, which looks like a refusal, and some are closed.
            if number % 2 == 0 {
                disconnect(socket).unwrap();
            }
        }
        drop(sockets);
        for backend in both {
            world.await_active(backend, 0);
        }
    }
    assert!(both.iter().all(|&it| world.suspected(it)));
    let counters = world.maps.counters(only_table(&world)).unwrap();
    let expected = (1600, 800, [0; 4]);
    assert_eq!(
        (counters.flows, counters.failed, counters.refused),
        expected
    );
}

#[test]
fn a_client_without_a_path_takes_the_only_backend_from_nobody_else() {
    let mut world = World::new();
    // For others the address is one of their own.
    world.netns.ip("addr add 10.99.0.2/32 dev lo\n").unwrap();
    let (_listener, backend) = world.listen([10, 99, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let poor = Netns::new("poor").unwrap();
    poor.ip("route add unreachable 198.18.0.0/16\n").unwrap();
    silence_in(&poor);
    let waiting = pending_in(&poor);
    let suspected = || match world.suspected(backend) {
        true => Ok(()),
        false => Err("not suspected yet"),
    };
    eventually(LIMIT, suspected).unwrap();
    let flows: Vec<_> = (0..20).map(|_| world.connect(VIP, 80).unwrap()).collect();
    assert_eq!(world.active(backend), 21);
    drop((flows, waiting));
    world.await_active(backend, 0);
    let counters = world.maps.counters(only_table(&world)).unwrap();
    assert_eq!((counters.failed, counters.refused), (1, [0; 4]));
}

#[test]
fn a_suspicion_ends_by_itself_without_an_agent() {
    let mut world = World::new();
    let (left_listener, left) = world.listen([127, 0, 0, 2]);
    let (right_listener, right) = world.listen([127, 0, 0, 3]);
    world.serve(VIP, Balance::RoundRobin, &[left, right]);
    let share = |world: &World| {
        let flows: Vec<_> = (0..10).map(|_| world.connect(VIP, 80).unwrap()).collect();
        // None stays in the backlog.
        for (listener, backend) in [(&left_listener, left), (&right_listener, right)] {
            (0..world.active(backend)).for_each(|_| drop(listener.accept().unwrap()));
        }
        let shares = (world.active(left), world.active(right));
        drop(flows);
        for backend in [left, right] {
            world.await_active(backend, 0);
        }
        shares
    };
    assert_eq!(share(&world), (5, 5));
    // As long as it lasts; three seconds of it are left.
    world.suspect(left, 3);
    assert_eq!(share(&world), (0, 10));
    // Nobody touches the map from here on.
    let over = || match share(&world) {
        (5, 5) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(LIMIT, over).unwrap();
    assert!(world.suspected(left), "the mark is still written, and over");
}

#[test]
fn a_mark_of_the_kernel_lasts_ten_seconds() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    let before = coarse_now();
    world.connect(VIP, 80).unwrap_err();
    let after = coarse_now();
    let until = world
        .maps
        .suspected_until(id(&world, NOBODY).index)
        .unwrap();
    assert!(
        (before + SUSPICION_NS..=after + SUSPICION_NS).contains(&until),
        "{until} after {before} to {after}"
    );
}

fn coarse_now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

fn only_table(world: &World) -> u32 {
    world.installed.services.values().next().unwrap().table
}

/// Gives the namespace a device behind which nobody answers.
fn silence(world: &World) {
    silence_in(&world.netns);
}

fn silence_in(netns: &Netns) {
    netns
        .ip("link add lb-silent type veth peer name lb-peer\nlink set lb-silent up\nlink set lb-peer up\n\
             addr add 10.99.0.1/24 dev lb-silent\n\
             neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev lb-silent nud permanent\n")
        .unwrap();
}

/// A socket whose connect to the VIP waits for an answer.
fn pending(world: &World) -> Socket {
    pending_in(&world.netns)
}

fn pending_in(netns: &Netns) -> Socket {
    let socket = netns
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .unwrap();
    socket.set_nonblocking(true).unwrap();
    let started = socket.connect(&SocketAddr::from((VIP, 80)).into());
    assert_eq!(
        started.unwrap_err().raw_os_error(),
        Some(nix::libc::EINPROGRESS)
    );
    socket
}

fn id(world: &World, backend: SocketAddr) -> BackendId {
    world.installed.backends[&backend].id
}

fn event(world: &mut World) -> (BackendId, u32) {
    let Event { backend, kind, .. } = world.events.take().expect("the kernel told of the failure");
    (BackendId::from_bits(backend), kind)
}
