//! Loads the programs with their maps, new ones or those that an earlier agent pinned.

mod attach;
mod layout;
mod pin;
mod remove;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData, MapError, ProgramArray},
    programs::{Program, ProgramFd},
};
use ipnet::Ipv6Net;
use lb_common::packet::{PACKET_VERSION, packet_map as map, step};

pub use self::{
    attach::{Attached, Hook, How, Role, XdpMode},
    remove::{Gone, remove},
};
use crate::{
    Config, Error,
    address::{be32, words6},
    config::{HAIRPIN4, HAIRPIN6},
    flows::Context,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/packet"));

/// The programs that devices run. The object has one more, `xdp_pass`, for the other end of a veth in tests.
pub const PROGRAMS: [&str; 5] = [
    "xdp_card",
    "tc_card_in",
    "tc_card_out",
    "tc_client_in",
    "tc_client_out",
];

/// The loaded programs, their maps, and where they are attached. Dropping it leaves all of that in the kernel.
pub struct Programs {
    ebpf: Ebpf,
    /// Where links are pinned.
    links: PathBuf,
    context: Context,
    limits: crate::Limits,
    attached: Vec<Attached>,
    /// Devices where a part could not be attached, with what was.
    begun: Vec<Attached>,
    problems: Vec<String>,
    clsact: bool,
    new: bool,
}

/// The folder with the pins of the packet path.
pub fn pin_root(bpffs: &Path) -> PathBuf {
    bpffs.join("lb/packet")
}

impl Programs {
    /// Loads the programs with maps of their own or, where an earlier agent pinned them, with those. Nothing is attached,
    /// but what an earlier agent attached goes on.
    ///
    /// # Errors
    /// When the configuration cannot be, or the kernel or the bpffs refuses.
    pub fn load(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let root = pin_root(&config.bpffs);
        let versioned = root.join(format!("v{PACKET_VERSION}"));
        // Not below the version: a link goes on to the programs of the next one.
        let links = root.join("links");
        for folder in [&versioned, &links] {
            fs::create_dir_all(folder).map_err(Error::pin("create", folder))?;
        }
        check_versions(&root)?;

        let mut loader = EbpfLoader::new();
        let constants = constants(config);
        for (name, value) in &constants {
            loader.override_global(name, value, true);
        }
        let mut limits = config.limits;
        let mut new = true;
        let mut problems = Vec::new();
        for layout in layout::of(config.limits) {
            let path = versioned.join(layout.name);
            // What is taken over keeps its indexes, so it keeps its size.
            let pinned = layout.pinned(&path)?;
            new &= pinned.is_none();
            let capacity = pinned.unwrap_or(layout.capacity);
            if capacity > 0 {
                loader.map_max_entries(layout.name, capacity);
            }
            if let Some(limit) = layout.limit {
                let room = match limit {
                    layout::Limit::Services => &mut limits.services,
                    layout::Limit::Backends => &mut limits.backends,
                    layout::Limit::Flows => &mut limits.flows,
                };
                let asked = *room;
                *room = asked.min(layout.room(capacity));
                if capacity != layout.capacity {
                    let (limit, room) = (limit.as_str(), layout.room(capacity));
                    let message = format!(
                        "the adopted map {} of the packet path has room for {room} {limit}, not for {}; the new limit takes \
                         effect once {} is removed while no agent runs, which forgets the open flows",
                        layout.name,
                        layout.room(layout.capacity),
                        root.display()
                    );
                    problems.push(message);
                }
            }
            loader.map_pin_path(layout.name, path);
        }
        let mut ebpf = loader.load(OBJECT).map_err(Box::new)?;
        for program in PROGRAMS {
            load(&mut ebpf, program)?;
        }
        set_steps(&mut ebpf)?;
        Ok(Self {
            ebpf,
            links,
            context: Context {
                pool6: config.pool6,
                source4: config.source4,
                source6: config.source6,
                host_mask: u32::from(config.pool.hostmask()),
                room: limits.flows,
            },
            limits,
            attached: Vec::new(),
            begun: Vec::new(),
            problems,
            clsact: false,
            new,
        })
    }

    /// The loaded object, for tests and benches that run programs without a device.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// What of the configuration cannot take effect, each with its remedy.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How much the maps have room for: those of an earlier agent keep their size.
    pub fn limits(&self) -> crate::Limits {
        self.limits
    }

    /// Whether no earlier agent left anything in the maps.
    pub fn has_new_maps(&self) -> bool {
        self.new
    }

    /// What flows are told with.
    pub(crate) fn context(&self) -> Context {
        self.context
    }

    /// One map, as often as somebody wants it.
    pub(crate) fn map<M>(&self, name: &'static str) -> Result<M, Error>
    where
        M: TryFrom<Map, Error = MapError>,
    {
        let failed = Error::map("open", name);
        let map = self
            .ebpf
            .map(name)
            .and_then(data)
            .ok_or(Error::Missing(name))?;
        let copy = map
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::system("open", name))?;
        let opened = MapData::from_fd(copy).and_then(Map::from_map_data);
        opened.and_then(M::try_from).map_err(failed)
    }

    /// The descriptor of one map, for system calls that aya lacks.
    pub(crate) fn descriptor(&self, name: &'static str) -> Result<std::os::fd::OwnedFd, Error> {
        let map = self
            .ebpf
            .map(name)
            .and_then(data)
            .ok_or(Error::Missing(name))?;
        map.fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::system("open", name))
    }
}

/// What is in a map of the kinds that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// What the programs are told once and for all. Addresses are raw, ports in the order of the host.
fn constants(config: &Config) -> Vec<(&'static str, u32)> {
    let raw = |address: Ipv4Addr| be32(address).raw();
    let none = Ipv4Addr::UNSPECIFIED;
    // No address begins with all ones.
    let high = config.pool6.map_or([u32::MAX; 3], high_words);
    let source6 = words6(config.source6.unwrap_or(Ipv6Addr::UNSPECIFIED));
    let hairpin6 = words6(HAIRPIN6);
    let mut all = vec![
        ("POOL_PREFIX", raw(config.pool.network())),
        ("POOL_MASK", raw(config.pool.netmask())),
        ("OWN_ADDRESS", raw(config.own)),
        ("SOURCE4", raw(config.source4.unwrap_or(none))),
        ("HAIRPIN4", raw(HAIRPIN4)),
        ("PORT_FIRST", u32::from(*config.ports.start())),
        ("PORT_COUNT", config.port_count()),
    ];
    all.extend(
        ["POOL6_HIGH0", "POOL6_HIGH1", "POOL6_HIGH2"]
            .into_iter()
            .zip(high),
    );
    all.extend(
        ["SOURCE6_0", "SOURCE6_1", "SOURCE6_2", "SOURCE6_3"]
            .into_iter()
            .zip(source6),
    );
    all.extend(
        ["HAIRPIN6_0", "HAIRPIN6_1", "HAIRPIN6_2", "HAIRPIN6_3"]
            .into_iter()
            .zip(hairpin6),
    );
    all
}

/// The first twelve bytes of the pool, as raw integers.
fn high_words(pool: Ipv6Net) -> [u32; 3] {
    let [first, second, third, _] = words6(pool.network());
    [first, second, third]
}

/// Pins of other versions are not thrown away by accident.
fn check_versions(root: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(root).map_err(Error::pin("list", root))? {
        let name = entry.map_err(Error::pin("list", root))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('v'));
        match number.and_then(|number| number.parse::<u32>().ok()) {
            Some(version) if version != PACKET_VERSION => {
                return Err(Error::Version {
                    path: root.join(name),
                    version,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Loads what `xdp_card` goes on with, and puts it in the place of what was there: an attached program of an earlier agent goes on with
/// ours from now on, as all of it will as soon as the link is replaced.
fn set_steps(ebpf: &mut Ebpf) -> Result<(), Error> {
    let failed = |error| Error::map("write", map::STEPS)(error);
    for (step, name) in (0..).zip(step::PROGRAMS) {
        load(ebpf, name)?;
        let program = loaded(ebpf, name)?
            .try_clone()
            .map_err(Error::system("open", map::STEPS))?;
        let steps = ebpf.map_mut(map::STEPS).ok_or(Error::Missing(map::STEPS))?;
        let mut steps = ProgramArray::try_from(steps).map_err(failed)?;
        steps.set(step, &program, 0).map_err(failed)?;
    }
    Ok(())
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => program.load(),
        Some(Program::SchedClassifier(program)) => program.load(),
        _ => return Err(Error::Missing(name)),
    }
    .map_err(Error::program("load", name, None))
}

/// The descriptor of a loaded program.
fn loaded<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a ProgramFd, Error> {
    let program = ebpf.program(name).ok_or(Error::Missing(name))?;
    program.fd().map_err(Error::program("use", name, None))
}
