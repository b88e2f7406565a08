//! A restarted agent takes over what is pinned: no flow and no count is lost.

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_agent::programs::HOOKS;
use lb_common::Balance;

use super::world::{NOBODY, VIP, World};
use crate::crowd::{Crowd, Echoes, MANY};

#[test]
fn a_restart_keeps_flows_counts_services_and_ids() {
    let mut world = World::new();
    let echoes = Echoes::start(&world.netns, 4);
    let backends: Vec<SocketAddr> = echoes.addresses.iter().map(|&it| it.into()).collect();
    world.serve(VIP, Balance::RoundRobin, &backends);
    let before = world.installed.clone();
    let crowd = Crowd::open(&world.netns, VIP);
    for _ in 0..4 {
        world.restart();
        assert_eq!(world.installed.services, before.services);
        assert_eq!(world.installed.backends, before.backends);
        let active = backends.iter().map(|&it| world.active(it));
        assert!(active.eq([MANY as u64 / 4; 4]));
    }
    crowd.assert_alive();
    assert!(world.programs.attached().all(|(_, attached)| attached));
    drop(crowd);
    for backend in backends {
        world.await_active(backend, 0);
    }
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
        let clients = scope.spawn({
            let (done, connects) = (&done, &connects);
            move || {
                enter(&path);
                while !done.load(Ordering::Relaxed) {
                    TcpStream::connect((VIP, 80)).expect("a connect failed during a restart");
                    connects.fetch_add(1, Ordering::Relaxed);
                }
                drop(TcpStream::connect(backend));
            }
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
    world.settle_at(later());
    world.restart();
    assert!(world.installed.services.is_empty());
    assert!(world.installed.backends.is_empty());
}

#[test]
fn a_backend_is_never_freed_under_a_connect_that_is_on_its_way_there() {
    let mut world = World::new();
    let (left_listener, left) = world.listen([127, 0, 0, 2]);
    let (right_listener, right) = world.listen([127, 0, 0, 3]);
    world.serve(VIP, Balance::RoundRobin, &[left]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for listener in [left_listener, right_listener] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    drop(listener.accept().unwrap());
                }
            });
        }
        let path = world.netns.path();
        let clients = scope.spawn({
            let done = &done;
            move || {
                enter(&path);
                while !done.load(Ordering::Relaxed) {
                    TcpStream::connect((VIP, 80))
                        .expect("refused although a backend was there all the time");
                }
            }
        });
        for round in 0..1000 {
            if clients.is_finished() {
                break;
            }
            let (now, before) = if round % 2 == 0 {
                (right, left)
            } else {
                (left, right)
            };
            world.serve(VIP, Balance::RoundRobin, &[now]);
            assert!(
                world.installed.backends.contains_key(&before),
                "freed in round {round}"
            );
        }
        done.store(true, Ordering::Relaxed);
        let ended = clients.join();
        // Lets the listeners see the end.
        for listener in [left, right] {
            drop(world.netns.enter(|| TcpStream::connect(listener)).unwrap());
        }
        ended.unwrap();
    });
}

#[test]
fn a_cgroup_that_refuses_the_programs_leaves_all_of_the_former_one() {
    let mut world = World::new();
    let (_listener, backend) = world.listen([127, 0, 0, 2]);
    world.serve(VIP, Balance::LeastConn, &[backend]);
    let flow = world.connect(VIP, 80).unwrap();
    // The kernel attaches programs to nothing but a cgroup.
    let none = tempfile::tempdir().unwrap();
    let refusal = world.try_restart_at(none.path()).unwrap_err();
    assert!(
        refusal.to_string().contains("cannot attach program"),
        "{refusal}"
    );
    let pins = world.pins().join("links");
    let kept = |hook: &str| std::fs::exists(pins.join(hook)).unwrap();
    let lost = world
        .netns
        .enter(|| HOOKS.into_iter().filter(|hook| !kept(hook)).collect());
    let lost: Vec<_> = lost.unwrap();
    assert_eq!(lost, [""; 0]);
    world.restart();
    assert_eq!(world.active(backend), 1);
    drop(flow);
    world.await_active(backend, 0);
}

#[test]
fn a_pin_of_another_layout_is_refused() {
    let mut world = World::new();
    world.serve(VIP, Balance::LeastConn, &[NOBODY]);
    let pins = world.pins().join(format!("v{}", lb_common::MAP_VERSION));
    let swapped = world.netns.enter(|| {
        std::fs::remove_file(pins.join("SUSPECTS"))?;
        std::fs::rename(pins.join("CURSORS"), pins.join("SUSPECTS"))
    });
    swapped.unwrap().unwrap();
    let Err(refusal) = world.try_restart() else {
        panic!("the pin was adopted")
    };
    let refusal = refusal.to_string();
    assert!(
        refusal.contains("SUSPECTS holds a map of another layout"),
        "{refusal}"
    );
}

fn enter(namespace: &std::path::Path) {
    let namespace = std::fs::File::open(namespace).unwrap();
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

/// When an index that was given back now has rested.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}
