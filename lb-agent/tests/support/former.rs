//! An agent of map version 1, as far as the next one meets it: its programs, its pins and what it wrote.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, HashMap, MapData},
    programs::{CgroupAttachMode, Program, links::FdLink},
};
use lb_common::{ANY_PORT, Be16, Be32, HOST_VIEW, PROTO_TCP, SLOTS, ServiceKey, map};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/previous"));

/// Entries of its maps of services and backends.
pub(crate) const ROOM: u32 = 32;

/// Words of one half of a table.
const HALF: usize = 2 + SLOTS as usize;

/// The maps that an agent of that version writes.
pub(crate) struct Former {
    services: HashMap<MapData, ServiceKey, [u32; 6]>,
    tables: Array<MapData, [u32; 2 * HALF]>,
    backends: Array<MapData, [u32; 4]>,
}

impl Former {
    /// Loads the programs, pins the maps below `bpffs` and attaches to `cgroup`. All of it outlives the value.
    pub(crate) fn start(bpffs: &Path, cgroup: &Path, own: Ipv4Addr) -> Self {
        let root = bpffs.join("lb");
        let (versioned, links) = (root.join("v1"), root.join("links"));
        fs::create_dir_all(&versioned).unwrap();
        fs::create_dir_all(&links).unwrap();
        let raw = |address: [u8; 4]| u32::from_ne_bytes(address);
        let (prefix, mask) = (raw([198, 18, 0, 0]), raw([255, 255, 0, 0]));
        let own = raw(own.octets());
        let mut loader = EbpfLoader::new();
        loader
            .override_global("POOL_PREFIX", &prefix, true)
            .override_global("POOL_MASK", &mask, true)
            .override_global("OWN_ADDRESS", &own, true);
        let sized = [
            map::SERVICES,
            map::TABLES,
            map::CURSORS,
            map::COUNTERS,
            map::BACKENDS,
            map::SUSPECTS,
            map::ACTIVE,
        ];
        for name in sized {
            loader.map_max_entries(name, ROOM);
        }
        for name in sized.into_iter().chain([map::RECORDS, map::EVENTS]) {
            let shared = [map::ACTIVE, map::RECORDS].contains(&name);
            let folder = if shared { &root } else { &versioned };
            loader.map_pin_path(name, folder.join(name));
        }
        let mut ebpf = loader.load(OBJECT).unwrap();
        let cgroup = fs::File::open(cgroup).unwrap();
        for hook in ["getpeername4", "sock_release", "sock_ops", "connect4"] {
            attach(&mut ebpf, hook, &cgroup)
                .pin(links.join(hook))
                .unwrap();
        }
        let mut take = |name| ebpf.take_map(name).unwrap();
        Self {
            services: take(map::SERVICES).try_into().unwrap(),
            tables: take(map::TABLES).try_into().unwrap(),
            backends: take(map::BACKENDS).try_into().unwrap(),
        }
    }

    /// Puts a backend at an index, or says that it was there once.
    pub(crate) fn backend(&mut self, index: u32, generation: u32, address: Option<SocketAddrV4>) {
        let value = address.map_or([0, 0, generation, 0], |address| {
            let [p0, p1] = address.port().to_be_bytes();
            let [w0, w1] = 1_u16.to_ne_bytes();
            [
                u32::from_ne_bytes(address.ip().octets()),
                u32::from_ne_bytes([p0, p1, w0, w1]),
                generation,
                0,
            ]
        });
        self.backends.set(index, value, 0).unwrap();
    }

    /// Publishes a service with these backends in turn, on every port.
    pub(crate) fn serve(&mut self, vip: Ipv4Addr, table: u32, generation: u32, backends: &[u32]) {
        let half = generation & 1;
        let mut words = self.tables.get(&table, 0).unwrap();
        let at = half as usize * HALF;
        words[at] = generation;
        words[at + 1] = u32::from_ne_bytes(vip.octets());
        let slots = backends.iter().copied().cycle();
        for (word, slot) in words[at + 2..at + HALF].iter_mut().zip(slots) {
            *word = slot;
        }
        self.tables.set(table, words, 0).unwrap();
        let count = u32::try_from(backends.len()).unwrap();
        // Round robin.
        let value = [table, half, count, generation, 1, 0];
        self.services.insert(key(vip), value, 0).unwrap();
    }
}

impl Former {
    /// Takes a service away.
    pub(crate) fn remove(&mut self, vip: Ipv4Addr) {
        self.services.remove(&key(vip)).unwrap();
    }
}

/// The key of a service that answers on every port.
pub(crate) fn key(vip: Ipv4Addr) -> ServiceKey {
    ServiceKey::new(
        Be32::from_host(vip.into()),
        Be16::from_host(ANY_PORT.host()),
        PROTO_TCP,
        HOST_VIEW,
    )
}

fn attach(ebpf: &mut Ebpf, hook: &str, cgroup: &fs::File) -> FdLink {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    // The three kinds share method names, not a trait.
    match ebpf.program_mut(hook).unwrap() {
        Program::CgroupSockAddr(program) => {
            program.load().unwrap();
            let id = program.attach(cgroup, MODE).unwrap();
            program.take_link(id).unwrap().try_into().unwrap()
        }
        Program::CgroupSock(program) => {
            program.load().unwrap();
            let id = program.attach(cgroup, MODE).unwrap();
            program.take_link(id).unwrap().try_into().unwrap()
        }
        Program::SockOps(program) => {
            program.load().unwrap();
            let id = program.attach(cgroup, MODE).unwrap();
            program.take_link(id).unwrap().try_into().unwrap()
        }
        other => panic!("{hook} is a {:?}", other.prog_type()),
    }
}
