//! A restarted agent takes over what is pinned: no flow and no count is lost.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use lb_common::Balance;

use super::world::{VIP, World};

#[test]
fn a_restart_keeps_flows_counts_services_and_ids() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::RoundRobin, &[backend]);
    let before = world.installed.clone();
    let mut flows: Vec<_> = (0..50)
        .map(|_| {
            let client = world.connect(VIP, 80).unwrap();
            (client, listener.accept().unwrap().0)
        })
        .collect();
    for _ in 0..4 {
        world.restart();
        assert_eq!(world.installed.services, before.services);
        assert_eq!(world.installed.backends, before.backends);
        assert_eq!(world.active(backend), 50);
    }
    for (client, server) in &mut flows {
        client.write_all(b"?").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(client.peer_addr().unwrap(), (VIP, 80).into());
    }
    assert!(world.programs.attached().all(|(_, attached)| attached));
    drop(flows);
    world.await_active(backend, 0);
}

#[test]
fn new_connects_are_served_all_the_time_while_agents_come_and_go() {
    let mut world = World::new();
    let (listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let (done, connects) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(listener.accept().unwrap());
            }
        });
        // Threads inherit the namespace of the one that spawns them.
        let path = world.netns.path();
        let clients = scope.spawn(|| {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            while !done.load(Ordering::Relaxed) {
                TcpStream::connect((VIP, 80)).expect("a connect failed during a restart");
                connects.fetch_add(1, Ordering::Relaxed);
            }
            drop(TcpStream::connect(backend));
        });
        for _ in 0..10 {
            let before = connects.load(Ordering::Relaxed);
            world.restart();
            while connects.load(Ordering::Relaxed) < before + 20 && !clients.is_finished() {
                thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
        clients.join().unwrap();
        accepting.join().unwrap();
    });
    world.await_active(backend, 0);
}

#[test]
fn a_removed_service_leaves_no_entry_behind() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    world.serve_nothing();
    world.restart();
    assert!(world.installed.services.is_empty());
    assert!(world.installed.backends.is_empty());
    // The index was used: it comes back with another generation.
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let ids: Vec<_> = world
        .installed
        .backends
        .values()
        .map(|backend| backend.id)
        .collect();
    assert!(
        ids.iter().all(|id| id.index != 1 || id.generation == 2),
        "{ids:?}"
    );
}
