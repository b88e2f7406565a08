//! What can go wrong, each with its remedy.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError, tc::TcError},
};
use lb_common::packet::PACKET_VERSION;
use thiserror::Error;

/// Why the packet path cannot be brought up, or told something.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The kernel refuses the programs or maps.
    #[error(
        "the kernel does not take the programs of the packet path; it must be Linux 5.19 or newer with BTF, and the agent needs \
         CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or CAP_SYS_ADMIN)"
    )]
    Load(#[from] Box<EbpfError>),
    /// One program cannot be loaded or attached.
    #[error("cannot {verb} program {program}{place}; the agent needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or CAP_SYS_ADMIN)", place = device.as_deref().map_or(String::new(), |device| format!(" on {device}")))]
    Program {
        /// What failed.
        verb: &'static str,
        /// Which program.
        program: &'static str,
        /// On which device, where it matters.
        device: Option<String>,
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
    /// A program or a link cannot be pinned.
    #[error("cannot pin {path}")]
    MakePin {
        /// Where.
        path: PathBuf,
        /// What aya said.
        source: PinError,
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
        "{path} holds maps of the packet path of version {version}, and this agent knows version {PACKET_VERSION}: start an agent \
         that knows it, or run `lb-agent uninstall`, which forgets the open flows"
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
    /// There is no such device.
    #[error("there is no network device {device}: `ip link` lists those that are there")]
    Device {
        /// Which one.
        device: String,
        /// What the system said.
        source: io::Error,
    },
    /// The device is no card of a link.
    #[error("{device} has no link address: name a network card or a bridge")]
    NoLinkAddress {
        /// Which one.
        device: String,
    },
    /// The device joins packets before a program sees them.
    #[error(
        "{device} joins received packets into larger ones (LRO), which cannot be sent on; switch it off: ethtool -K {device} lro off"
    )]
    Lro {
        /// Which one.
        device: String,
    },
    /// The qdisc that programs hang from below kernel 6.6 cannot be made.
    #[error(
        "cannot add the qdisc clsact to {device}; the kernel needs CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF"
    )]
    Clsact {
        /// Which device.
        device: String,
        /// What aya said.
        source: TcError,
    },
    /// The kernel attached the program without a link.
    #[error("program {program} has no link that could be pinned; the kernel is too old")]
    Link {
        /// Whose link.
        program: &'static str,
        /// What aya said.
        source: LinkError,
    },
    /// The object lacks a program or a map: a fault of the build.
    #[error("the embedded object has no {0}")]
    Missing(&'static str),
    /// A map operation that the kernel refused.
    #[error("cannot {verb} map {map}")]
    Map {
        /// What failed.
        verb: &'static str,
        /// Which map.
        map: &'static str,
        /// What the kernel said.
        source: Box<MapError>,
    },
    /// The same, by a system call of our own.
    #[error("cannot {verb} map {map}")]
    System {
        /// What failed.
        verb: &'static str,
        /// Which map.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn program(
        verb: &'static str,
        program: &'static str,
        device: Option<&str>,
    ) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program {
            verb,
            program,
            device: device.map(str::to_owned),
            source: Box::new(source),
        }
    }

    pub(crate) fn make_pin(path: &Path) -> impl FnOnce(PinError) -> Self {
        move |source| Self::MakePin {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn pin(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Pin {
            verb,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn map(verb: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map {
            verb,
            map,
            source: Box::new(source),
        }
    }

    pub(crate) fn system(verb: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { verb, map, source }
    }
}

/// What is not there any more is no fault.
pub(crate) fn there<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
