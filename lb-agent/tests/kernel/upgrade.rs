//! From one map version to the next, with real programs of both: no connect fails, no flow and no count is lost.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use lb_agent::{
    installed::{InstalledBackend, InstalledService},
    maps::Maps,
    programs::{Config, HOOKS, Programs},
};
use lb_common::{BackendId, Balance, Refusal};
use lb_testkit::{Netns, eventually};

use super::world::{LIMIT, OWN, VIP, World};
use crate::{
    crowd::{Crowd, Echoes, MANY},
    former::{Former, ROOM, key},
};

/// A VIP without a backend.
const EMPTY: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 8);

/// Where the former agent put things: nowhere that a new one would by itself.
const LEFT: BackendId = BackendId {
    index: 5,
    generation: 3,
};
const RIGHT: BackendId = BackendId {
    index: 9,
    generation: 2,
};
const TABLE: u32 = 6;
const EMPTY_TABLE: u32 = 8;

/// Two backends, and clients that connect all the time.
struct Load {
    echoes: Echoes,
    done: Arc<AtomicBool>,
    /// Flows that were given a backend, all told.
    connects: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn new(netns: &Netns) -> Self {
        Self {
            echoes: Echoes::start(netns, 2),
            done: Arc::default(),
            connects: Arc::default(),
            clients: Vec::new(),
        }
    }

    fn backends(&self) -> [SocketAddrV4; 2] {
        [self.echoes.addresses[0], self.echoes.addresses[1]]
    }

    fn start(&mut self, netns: &Netns) {
        for _ in 0..2 {
            let (path, done) = (netns.path(), Arc::clone(&self.done));
            let connects = Arc::clone(&self.connects);
            self.clients.push(thread::spawn(move || {
                let namespace = fs::File::open(path).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                while !done.load(Ordering::Relaxed) {
                    let client = TcpStream::connect((VIP, 80)).expect("a connect failed");
                    assert_eq!(client.peer_addr().unwrap(), (VIP, 80).into());
                    connects.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    }

    /// Waits until so many more connects were served.
    fn await_more(&self, more: u64) {
        let enough = self.connects.load(Ordering::Relaxed) + more;
        let served = eventually(LIMIT, || match self.connects.load(Ordering::Relaxed) {
            connects if connects >= enough => Ok(()),
            connects => Err(format!("{connects} connects instead of {enough}")),
        });
        served.unwrap();
    }

    /// Ends the clients, and answers how many connects were served.
    fn end(&mut self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        self.connects.load(Ordering::Relaxed)
    }
}

/// An agent of version 1 with a service of two backends and one of none.
fn former(netns: &Netns, config: &Config, backends: [SocketAddrV4; 2]) -> Former {
    let former = netns.enter(|| Former::start(&config.bpffs, &config.cgroup, OWN));
    let mut former = former.unwrap();
    former.backend(LEFT.index, LEFT.generation, Some(backends[0]));
    former.backend(RIGHT.index, RIGHT.generation, Some(backends[1]));
    // Used once, and free.
    former.backend(7, 4, None);
    former.serve(VIP, TABLE, 12, &[LEFT.index, RIGHT.index]);
    former.serve(EMPTY, EMPTY_TABLE, 3, &[]);
    former
}

/// Ids, tables and generations are where the former agent put them.
fn assert_taken_over(world: &World, backends: [SocketAddrV4; 2]) {
    let installed = &world.installed;
    for (address, id) in backends.into_iter().zip([LEFT, RIGHT]) {
        let expect = InstalledBackend {
            id,
            weight: 1,
            counted_at: id,
        };
        assert_eq!(installed.backends.get(&address.into()), Some(&expect));
    }
    assert_eq!(installed.backends.len(), 2);
    assert_eq!(installed.generations.get(&7), Some(&4));
    let service = |table, generation, slots: &[u32]| InstalledService {
        table,
        half: generation & 1,
        generation,
        balance: Balance::RoundRobin,
        affinity_seconds: 0,
        flags: 0,
        slots: slots.to_vec(),
    };
    let expect = [
        (key(VIP), service(TABLE, 12, &[LEFT.index, RIGHT.index])),
        (key(EMPTY), service(EMPTY_TABLE, 3, &[])),
    ];
    assert_eq!(installed.services, expect.into());
    assert_eq!(world.maps.room().backends, ROOM);
    assert_eq!(world.maps.room().services, ROOM);
    let former = world.pins().join("v1");
    assert!(!world.netns.enter(|| former.exists()).unwrap());
}

#[test]
fn another_map_version_takes_over_under_load() {
    let (mut world, (mut load, held)) = World::after(|netns, config| {
        let mut load = Load::new(netns);
        drop(former(netns, config, load.backends()));
        let held = Crowd::open(netns, VIP);
        load.start(netns);
        load.await_more(50);
        (load, held)
    });
    load.await_more(200);
    assert_taken_over(&world, load.backends());
    held.assert_alive();
    world.restart();
    assert_taken_over(&world, load.backends());
    load.await_more(50);
    assert!(world.connect(EMPTY, 80).is_err());
    let served = load.end();
    for backend in load.backends() {
        world.await_active(backend.into(), MANY as u64 / 2);
    }
    held.assert_alive();
    // Those before, those between and those after: each once.
    assert_eq!(
        world.maps.counters(TABLE).unwrap().flows,
        served + MANY as u64
    );
    let mut expect = [0; 4];
    expect[Refusal::NoBackend as usize] = 1;
    assert_eq!(world.maps.counters(EMPTY_TABLE).unwrap().refused, expect);
    drop(held);
    for backend in load.backends() {
        world.await_active(backend.into(), 0);
    }
    // A new service does not begin with the figures of the one before.
    world.serve_nothing();
    world.serve(VIP, Balance::Random, &[load.backends()[0].into()]);
    let table = world.installed.services[&key(VIP)].table;
    assert_eq!(world.maps.counters(table).unwrap().flows, 0);
}

#[test]
fn a_change_of_version_that_was_interrupted_anywhere_is_completed_by_the_next_start() {
    let (world, (mut load, held)) = World::after(|netns, config| {
        let mut load = Load::new(netns);
        drop(former(netns, config, load.backends()));
        let held = Crowd::open(netns, VIP);
        load.start(netns);
        // What each try gets done before it dies: nothing but its maps, their content, some links, all links.
        for links in [
            None,
            Some(0),
            Some(3),
            Some(HOOKS.len() - 1),
            Some(HOOKS.len()),
        ] {
            netns
                .enter(|| {
                    let mut programs = Programs::load(config).unwrap();
                    if let Some(links) = links {
                        drop(Maps::open(&mut programs).unwrap());
                        programs.attach_only(&HOOKS[..links]).unwrap();
                    }
                })
                .unwrap();
            load.await_more(50);
            held.assert_alive();
        }
        (load, held)
    });
    load.await_more(50);
    assert_taken_over(&world, load.backends());
    held.assert_alive();
    let served = load.end();
    for backend in load.backends() {
        world.await_active(backend.into(), MANY as u64 / 2);
    }
    assert_eq!(
        world.maps.counters(TABLE).unwrap().flows,
        served + MANY as u64
    );
    drop(held);
    for backend in load.backends() {
        world.await_active(backend.into(), 0);
    }
}

#[test]
fn what_the_former_agent_changed_after_a_try_that_failed_is_taken_over() {
    let gone = Ipv4Addr::new(198, 18, 7, 9);
    let (world, load) = World::after(|netns, config| {
        let load = Load::new(netns);
        let mut former = former(netns, config, load.backends());
        former.serve(gone, 10, 1, &[LEFT.index]);
        netns
            .enter(|| {
                let mut programs = Programs::load(config).unwrap();
                drop(Maps::open(&mut programs).unwrap());
                programs.attach_only(&HOOKS[..2]).unwrap();
            })
            .unwrap();
        former.remove(gone);
        load
    });
    assert_taken_over(&world, load.backends());
    assert!(world.connect(VIP, 80).is_ok());
    assert!(world.connect(gone, 80).is_err());
}

#[test]
fn a_map_version_that_is_not_known_is_refused_with_the_remedy() {
    let world = World::new();
    let foreign = world.pins().join("v7");
    let made = world.netns.enter(|| fs::create_dir(&foreign)).unwrap();
    made.unwrap();
    let Err(refusal) = world.try_restart() else {
        panic!("it was taken over")
    };
    let refusal = refusal.to_string();
    assert!(refusal.contains("version 7"), "{refusal}");
    assert!(refusal.contains("lb-agent uninstall"), "{refusal}");
}
