//! A backend that the kernel saw fail is skipped for a while, and only while there is another one.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use lb_agent::plan::Step;
use lb_common::{BackendId, Balance, Event, EventKind};
use lb_testkit::{disconnect, eventually};
use socket2::{Domain, Socket, Type};

use super::world::{LIMIT, NOBODY, VIP, World};

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

/// Gives the namespace a device behind which nobody answers.
fn silence(world: &World) {
    world
        .netns
        .ip("link add lb-silent type veth peer name lb-peer\nlink set lb-silent up\nlink set lb-peer up\n\
             addr add 10.99.0.1/24 dev lb-silent\n\
             neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev lb-silent nud permanent\n")
        .unwrap();
}

/// A socket whose connect to the VIP waits for an answer.
fn pending(world: &World) -> Socket {
    let socket = world
        .netns
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
