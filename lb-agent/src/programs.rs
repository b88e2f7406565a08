//! Loads the kernel programs and keeps them attached: pins maps and links, and adopts what an earlier
//! agent pinned.
//!
//! Links are replaced in place, so there is no moment without a program and none with two that both count.

mod layout;
mod links;
mod versions;

use std::{
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::MapError,
    pin::PinError,
    programs::{Program, ProgramError, links::LinkError},
    util::KernelVersion,
};
use ipnet::{Ipv4Net, Ipv6Net};
use lb_common::{MAP_VERSION, map};
use thiserror::Error;

use self::versions::Previous;
use crate::catalog::Problem;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/socket"));

/// The hooks that are always attached, which are also the names of the programs and of the links' pins. Those that
/// begin flows come last: before they start to count, everything that ends flows is in place.
pub const HOOKS: [&str; 8] = [
    "getpeername4",
    "getpeername6",
    "sock_release",
    "sock_ops",
    "bind4",
    "bind6",
    "connect6",
    "connect4",
];

/// The hooks that are attached only while there is a UDP service: they run for each datagram of every process.
pub const DATAGRAM_HOOKS: [&str; 4] = ["recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6"];

/// Where and for what the programs are loaded.
#[derive(Clone, Debug)]
pub struct Config {
    /// The mounted bpffs; pins go to `lb/` below it.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory whose processes are balanced.
    pub cgroup: PathBuf,
    /// The VIP pool. Its first address is the agent's own.
    pub pool: Ipv4Net,
    /// The pool of IPv6 VIPs, each with the host part of an IPv4 one; `None` serves no IPv6 VIP.
    pub pool6: Option<Ipv6Net>,
    /// The agent's own address.
    pub own: Ipv4Addr,
    /// Capacity for virtual endpoints.
    pub services: u32,
    /// Capacity for backends.
    pub backends: u32,
}

/// Why the data plane cannot be brought up.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refuses the programs or maps.
    #[error(
        "the kernel does not take the programs; it must be Linux 5.19 or newer with BTF, and the agent needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or CAP_SYS_ADMIN)"
    )]
    Load(#[from] Box<EbpfError>),
    /// One program cannot be loaded or attached.
    #[error(
        "cannot {verb} program {program}; the agent needs CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)"
    )]
    Program {
        /// What failed.
        verb: &'static str,
        /// Which program.
        program: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// A pin cannot be made or used.
    #[error("cannot {verb} {path}")]
    Pin {
        /// What failed.
        verb: &'static str,
        /// Which pin.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is pinned is not what this agent would pin.
    #[error(
        "{path} holds a map of another layout; it is not this agent's: end what made it, remove the file and start again"
    )]
    Layout {
        /// Which pin.
        path: PathBuf,
    },
    /// Maps of a version that this agent does not know.
    #[error(
        "{path} holds maps of version {version}, and this agent takes over version {before} and its own, {MAP_VERSION}: \
         start an agent that knows it, or run `lb-agent uninstall`, which forgets the open flows",
        before = MAP_VERSION - 1
    )]
    Version {
        /// The folder of its pins.
        path: PathBuf,
        /// Which one.
        version: u32,
    },
    /// A pinned map cannot be examined.
    #[error("cannot examine the pinned map {path}")]
    Examine {
        /// Which pin.
        path: PathBuf,
        /// What the kernel said.
        source: Box<MapError>,
    },
    /// The cgroup directory cannot be used.
    #[error("cannot open the cgroup {0}; it must be a directory of the host's cgroup v2 tree")]
    Cgroup(PathBuf, #[source] io::Error),
    /// The kernel attached the program without a link: it is older than 5.7.
    #[error("program {program} has no link that could be pinned; the kernel is too old")]
    Link {
        /// Whose link.
        program: &'static str,
        /// What aya said.
        source: LinkError,
    },
    /// A link cannot be pinned.
    #[error("cannot pin the link of {program}")]
    PinLink {
        /// Whose link.
        program: &'static str,
        /// What aya said.
        source: PinError,
    },
    /// The object lacks a program: a fault of the build.
    #[error("the embedded object has no program {0}")]
    Missing(&'static str),
}

/// The loaded programs; their maps wait to be taken.
pub struct Programs {
    ebpf: Ebpf,
    cgroup: PathBuf,
    /// Where the links are pinned.
    pins: PathBuf,
    /// The links of the attached programs.
    links: Vec<(&'static str, OwnedFd)>,
    /// The folders of this version's pins, and of those of the version before.
    versioned: PathBuf,
    previous: Option<Previous>,
    former_counters: Option<PathBuf>,
    service_capacity: u32,
    /// Whether no earlier agent left anything in the maps.
    new: bool,
    problems: Vec<Problem>,
}

impl Error {
    fn pin(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Pin {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}

/// The folder with the pins of all map versions.
pub fn pin_root(bpffs: &Path) -> PathBuf {
    bpffs.join("lb")
}

impl Programs {
    /// Loads the programs with maps of their own or, where an earlier agent pinned them, with those.
    ///
    /// # Errors
    /// When the kernel or the bpffs refuses.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let root = pin_root(&config.bpffs);
        let versioned = root.join(format!("v{MAP_VERSION}"));
        // Not below the version: a link goes on to the programs of the next one.
        let pins = root.join("links");
        for folder in [&versioned, &pins] {
            fs::create_dir_all(folder).map_err(Error::pin("create", folder))?;
        }
        let previous = versions::look(&root)?;
        let former_room = previous.as_ref().and_then(|previous| previous.room);

        let raw = |address: Ipv4Addr| u32::from(address).to_be();
        let (prefix, mask, own) = (
            raw(config.pool.network()),
            raw(config.pool.netmask()),
            raw(config.own),
        );
        // Since commit eb166e522c77 these programs may ask which process runs them.
        let knows_process = u32::from(
            KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 10, 0)),
        );
        let mut loader = EbpfLoader::new();
        loader
            .override_global("POOL_PREFIX", &prefix, true)
            .override_global("POOL_MASK", &mask, true)
            .override_global("OWN_ADDRESS", &own, true)
            .override_global("KNOWS_PROCESS", &knows_process, true);
        // No address begins with the default, all ones.
        let high = config.pool6.map_or([u32::MAX; 3], high_words);
        for (name, word) in [
            ("POOL6_HIGH0", &high[0]),
            ("POOL6_HIGH1", &high[1]),
            ("POOL6_HIGH2", &high[2]),
        ] {
            loader.override_global(name, word, true);
        }
        let mut service_capacity = 0;
        let mut new = former_room.is_none();
        let mut problems = Vec::new();
        for layout in layout::of(config.services, config.backends) {
            let folder = if layout.outlives_version {
                &root
            } else {
                &versioned
            };
            let path = folder.join(layout.name);
            // What is taken over keeps its indexes, so it keeps its size.
            let pinned = layout.pinned(&path)?;
            new &= pinned.is_none() || layout.outlives_version;
            let capacity = match (pinned, former_room) {
                (Some(capacity), _) => capacity,
                (None, Some(room)) => layout.room_of(room),
                (None, None) => layout.capacity,
            };
            let key = match layout.name {
                map::SERVICES => Some("services"),
                map::BACKENDS => Some("backends"),
                _ => None,
            };
            if let Some(key) = key.filter(|_| capacity != layout.capacity) {
                // Index 0 is never given out.
                let (room, asked) = (
                    capacity.saturating_sub(1),
                    layout.capacity.saturating_sub(1),
                );
                let message = format!(
                    "the adopted map has room for {room}, not for {asked}; the new limit takes effect once {} is \
                     removed while no agent runs, which forgets the established flows",
                    root.display()
                );
                problems.push(Problem::new(format!("limits.{key}"), message));
            }
            if capacity > 0 {
                loader.map_max_entries(layout.name, capacity);
            }
            if layout.name == map::SERVICES {
                service_capacity = capacity;
            }
            loader.map_pin_path(layout.name, path);
        }
        let mut ebpf = loader.load(OBJECT).map_err(Box::new)?;
        for hook in HOOKS.into_iter().chain(DATAGRAM_HOOKS) {
            load(&mut ebpf, hook)?;
        }
        Ok(Self {
            ebpf,
            cgroup: config.cgroup.clone(),
            pins,
            links: Vec::new(),
            former_counters: versions::former_counters(&versioned, previous.as_ref())?,
            versioned,
            previous,
            service_capacity,
            new,
            problems,
        })
    }

    /// The loaded object, for [`crate::maps::Maps::open`] and for benches that swap programs.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// What of the configuration cannot take effect.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The folder of the former version's maps, if they are still to be taken over.
    pub(crate) fn to_take_over(&self) -> Option<&Path> {
        let previous = self.previous.as_ref()?;
        previous.room.map(|_| previous.folder.as_path())
    }

    /// The pin of what the former version counted, if there is one.
    pub(crate) fn former_counters(&self) -> Option<&Path> {
        self.former_counters.as_deref()
    }

    /// The map `RECORDS` once more, for whoever asks the kernel for sockets and their records.
    ///
    /// # Errors
    /// When its pin is gone.
    pub fn records(&self) -> Result<OwnedFd, Error> {
        let path = self.pins.with_file_name(map::RECORDS);
        lb_sys::bpf::object_get(&path).map_err(Error::pin("open the pinned map", &path))
    }

    /// Whether no earlier agent left anything in the maps of this version.
    pub(crate) fn has_new_maps(&self) -> bool {
        self.new
    }

    /// Entries that `SERVICES` has room for.
    pub(crate) fn service_capacity(&self) -> u32 {
        self.service_capacity
    }

    /// The link of each attached hook: what measures the programs puts others in their place.
    pub fn links(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        self.links.iter().map(|(hook, link)| (*hook, link.as_fd()))
    }

    /// Whether each hook's link is still in place.
    pub fn attached(&self) -> impl Iterator<Item = (&'static str, bool)> {
        // The kernel detaches a link when its cgroup goes.
        self.links.iter().map(|(hook, link)| {
            (
                *hook,
                lb_sys::bpf::link_cgroup(link.as_fd()).is_ok_and(|cgroup| cgroup != 0),
            )
        })
    }
}

/// The first twelve bytes of the pool, as raw integers.
fn high_words(pool: Ipv6Net) -> [u32; 3] {
    let octets = pool.network().octets();
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    [word(0), word(4), word(8)]
}

fn load(ebpf: &mut Ebpf, hook: &'static str) -> Result<(), Error> {
    match ebpf.program_mut(hook) {
        Some(Program::CgroupSockAddr(program)) => program.load(),
        Some(Program::CgroupSock(program)) => program.load(),
        Some(Program::SockOps(program)) => program.load(),
        _ => return Err(Error::Missing(hook)),
    }
    .map_err(|source| Error::Program {
        verb: "load",
        program: hook,
        source: Box::new(source),
    })
}
