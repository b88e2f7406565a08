//! Loads the kernel programs and keeps them attached: pins maps and links, and adopts what an earlier
//! agent pinned.
//!
//! Links are replaced in place, so there is no moment without a program and none with two that both count.

mod layout;

use std::{
    fs, io,
    net::Ipv4Addr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::MapError,
    pin::PinError,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};
use ipnet::Ipv4Net;
use lb_common::{MAP_VERSION, map};
use thiserror::Error;

use crate::catalog::Problem;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/socket"));

/// The hooks, which are also the names of the programs and of the links' pins. `connect4` comes last:
/// before it starts to count flows, everything that ends them is in place.
pub const HOOKS: [&str; 4] = ["getpeername4", "sock_release", "sock_ops", "connect4"];

/// Where and for what the programs are loaded.
#[derive(Clone, Debug)]
pub struct Config {
    /// The mounted bpffs; pins go to `lb/` below it.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory whose processes are balanced.
    pub cgroup: PathBuf,
    /// The VIP pool. Its first address is the agent's own.
    pub pool: Ipv4Net,
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
        "the kernel does not take the programs; it must be Linux 5.18 or newer with BTF, and the agent needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or CAP_SYS_ADMIN)"
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
    service_capacity: u32,
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

        let raw = |address: Ipv4Addr| u32::from(address).to_be();
        let (prefix, mask, own) = (
            raw(config.pool.network()),
            raw(config.pool.netmask()),
            raw(config.own),
        );
        let mut loader = EbpfLoader::new();
        loader
            .override_global("POOL_PREFIX", &prefix, true)
            .override_global("POOL_MASK", &mask, true)
            .override_global("OWN_ADDRESS", &own, true);
        let mut service_capacity = 0;
        let mut problems = Vec::new();
        for layout in layout::of(config.services, config.backends) {
            let folder = if layout.outlives_version {
                &root
            } else {
                &versioned
            };
            let path = folder.join(layout.name);
            let capacity = layout.adopt(&path)?;
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
        for hook in HOOKS {
            load(&mut ebpf, hook)?;
        }
        Ok(Self {
            ebpf,
            cgroup: config.cgroup.clone(),
            pins,
            links: Vec::new(),
            service_capacity,
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

    /// The map `RECORDS` once more, for whoever asks the kernel for sockets and their records.
    ///
    /// # Errors
    /// When its pin is gone.
    pub fn records(&self) -> Result<OwnedFd, Error> {
        let path = self.pins.with_file_name(map::RECORDS);
        lb_sys::bpf::object_get(&path).map_err(Error::pin("open the pinned map", &path))
    }

    /// Entries that `SERVICES` has room for.
    pub(crate) fn service_capacity(&self) -> u32 {
        self.service_capacity
    }

    /// Attaches every program, in the place of an earlier agent's where there is one.
    ///
    /// # Errors
    /// When the kernel refuses; programs attached until then stay.
    pub fn attach(&mut self) -> Result<(), Error> {
        let cgroup = fs::File::open(&self.cgroup)
            .map_err(|error| Error::Cgroup(self.cgroup.clone(), error))?;
        let id = cgroup
            .metadata()
            .map_err(|error| Error::Cgroup(self.cgroup.clone(), error))?
            .ino();
        let mut outdated = Vec::new();
        for hook in HOOKS {
            let path = self.pins.join(hook);
            let program = self.ebpf.program_mut(hook).ok_or(Error::Missing(hook))?;
            match adopt(program, hook, &path, id)? {
                Adoption::Replaced => tracing::info!(hook, "adopted the attached program's link"),
                adoption => {
                    if let Adoption::Elsewhere(link) = adoption {
                        fs::remove_file(&path)
                            .map_err(Error::pin("remove the outdated link", &path))?;
                        outdated.push(link);
                    }
                    let link = attach(program, hook, &cgroup)?;
                    link.pin(&path).map_err(|source| Error::PinLink {
                        program: hook,
                        source,
                    })?;
                    tracing::info!(hook, cgroup = %self.cgroup.display(), "attached");
                }
            }
            let link = lb_sys::bpf::object_get(&path)
                .map_err(Error::pin("open the pinned link", &path))?;
            self.links.push((hook, link));
        }
        if !outdated.is_empty() {
            tracing::warn!(
                "the configuration names another cgroup; open flows of the former one stay counted"
            );
        }
        // Only now, when the new ones are in place, and first the one that begins flows.
        while let Some(link) = outdated.pop() {
            drop(link);
        }
        Ok(())
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

/// What became of an earlier agent's link.
enum Adoption {
    /// There was none.
    None,
    /// It now runs our program.
    Replaced,
    /// It belongs to another cgroup, or to none any more.
    Elsewhere(OwnedFd),
}

/// Puts `program` into the link pinned at `path`, if there is one and it is attached to `cgroup`.
fn adopt(
    program: &Program,
    hook: &'static str,
    path: &Path,
    cgroup: u64,
) -> Result<Adoption, Error> {
    let link = match lb_sys::bpf::object_get(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Adoption::None),
        Err(error) => return Err(Error::pin("open the pinned link", path)(error)),
    };
    if lb_sys::bpf::link_cgroup(link.as_fd()).map_err(Error::pin("read the pinned link", path))?
        != cgroup
    {
        return Ok(Adoption::Elsewhere(link));
    }
    let descriptor = program.fd().map_err(|source| Error::Program {
        verb: "use",
        program: hook,
        source: Box::new(source),
    })?;
    lb_sys::bpf::link_update(link.as_fd(), descriptor.as_fd())
        .map_err(Error::pin("replace the program of the link", path))?;
    Ok(Adoption::Replaced)
}

fn attach(program: &mut Program, hook: &'static str, cgroup: &fs::File) -> Result<FdLink, Error> {
    // Single: cgroup links take no flags; links are multi-attach anyway.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let refused = |source| Error::Program {
        verb: "attach",
        program: hook,
        source: Box::new(source),
    };
    // The three kinds share method names, not a trait.
    let link: Result<FdLink, LinkError> = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MODE).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, MODE).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        Program::SockOps(program) => {
            let id = program.attach(cgroup, MODE).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        _ => return Err(Error::Missing(hook)),
    };
    link.map_err(|source| Error::Link {
        program: hook,
        source,
    })
}
