//! Loads the kernel programs and keeps them attached: pins maps and links, and adopts what an earlier
//! agent pinned.
//!
//! Links are replaced in place, so there is no moment without a program and none with two that both count.

use std::{
    fs, io,
    net::Ipv4Addr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::MapInfo,
    pin::PinError,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};
use ipnet::Ipv4Net;
use lb_common::{MAP_VERSION, map};
use thiserror::Error;

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
        let pins = versioned.join("links");
        fs::create_dir_all(&pins).map_err(|source| Error::Pin {
            verb: "create",
            path: pins.clone(),
            source,
        })?;

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
        for (name, capacity) in [
            (map::SERVICES, Some(config.services)),
            (map::TABLES, Some(config.services)),
            (map::CURSORS, Some(config.services)),
            (map::COUNTERS, Some(config.services)),
            (map::BACKENDS, Some(config.backends)),
            (map::SUSPECTS, Some(config.backends)),
            (map::ACTIVE, Some(config.backends)),
            (map::RECORDS, None),
            (map::EVENTS, None),
        ] {
            // Flow records and counts outlive every map version.
            let shared = name == map::ACTIVE || name == map::RECORDS;
            let path = if shared {
                root.join(name)
            } else {
                versioned.join(name)
            };
            // An adopted map keeps its size whatever the configuration says now.
            let adopted = MapInfo::from_pin(&path).map(|info| info.max_entries()).ok();
            if let Some(capacity) = adopted.or(capacity).filter(|&capacity| capacity > 0) {
                loader.map_max_entries(name, capacity);
            }
            loader.map_pin_path(name, path);
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
        })
    }

    /// The maps, to be taken out.
    pub fn maps(&mut self) -> &mut Ebpf {
        &mut self.ebpf
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
        for hook in HOOKS {
            let path = self.pins.join(hook);
            let program = self.ebpf.program_mut(hook).ok_or(Error::Missing(hook))?;
            if replace(program, hook, &path, id)? {
                tracing::info!(hook, "adopted the attached program's link");
            } else {
                let link = attach(program, hook, &cgroup)?;
                link.pin(&path).map_err(|source| Error::PinLink {
                    program: hook,
                    source,
                })?;
                tracing::info!(hook, cgroup = %self.cgroup.display(), "attached");
            }
            let link = lb_sys::bpf::object_get(&path).map_err(|source| Error::Pin {
                verb: "open the pinned link",
                path,
                source,
            })?;
            self.links.push((hook, link));
        }
        Ok(())
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

/// Puts `program` into the link pinned at `path`, if there is one and it is attached to `cgroup`.
fn replace(program: &Program, hook: &'static str, path: &Path, cgroup: u64) -> Result<bool, Error> {
    let pin = |verb| {
        move |source| Error::Pin {
            verb,
            path: path.to_owned(),
            source,
        }
    };
    let link = match lb_sys::bpf::object_get(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(pin("open the pinned link")(error)),
    };
    if lb_sys::bpf::link_cgroup(link.as_fd()).map_err(pin("read the pinned link"))? != cgroup {
        // Its cgroup is gone, or the configuration names another one now.
        fs::remove_file(path).map_err(pin("remove the outdated link"))?;
        return Ok(false);
    }
    let descriptor = program.fd().map_err(|source| Error::Program {
        verb: "use",
        program: hook,
        source: Box::new(source),
    })?;
    lb_sys::bpf::link_update(link.as_fd(), descriptor.as_fd())
        .map_err(pin("replace the program of the link"))?;
    Ok(true)
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
