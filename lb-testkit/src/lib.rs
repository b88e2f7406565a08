//! Places to run real parts in: network namespaces, cgroups and processes that are gone when their owner is.
//!
//! Nothing here touches the machine it runs on. A namespace has no name, only descriptors, so the kernel removes
//! it, its devices, routes and mounts with the last process that uses it. A [`Cgroup`] has a name, so a watchdog
//! ends and removes it even when its owner was killed. What the demo, the benches and the kernel tests make of
//! these is theirs.
//!
//! [`Browser`] is a real one that a test leads, and [`http`] asks a server once. [`guest`], [`fuzz`] and [`markdown`] are other things: what the first process
//! of a virtual machine tells; what fuzzing has found runs again in the tests of several crates; and documents are read by
//! those that show that they are true.

pub mod browser;
mod cable;
mod cgroup;
mod docker;
pub mod fuzz;
pub mod guest;
mod hot;
pub mod http;
pub mod markdown;
mod netns;
mod process;
mod socket;
mod spawn;
mod wait;

pub use browser::Browser;
pub use cable::{Cable, Offloaded, Quality};
pub use cgroup::{Cgroup, sweep};
pub use docker::Docker;
pub use hot::{PREFIX as HOT_PATH, RUNS as HOT_RUNS, hot_path};
pub use netns::Netns;
pub use process::Process;
pub use socket::disconnect;
pub use spawn::Spawn;
pub use wait::{Late, eventually};

use std::{io, iter, path::PathBuf, process::ExitStatus};

/// Why a place could not be made, or a process not run in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making namespaces and cgroups is root's right.
    #[error("network namespaces and cgroups need root; run this with sudo")]
    NotRoot,
    /// The kernel's second cgroup version is not there.
    #[error(
        "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    /// A system call failed.
    #[error("cannot {verb} {object}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command ended, but not with success.
    #[error("{command} failed ({status}): {output}")]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The browser did not do what it was asked for.
    #[error("the browser refused {what}: {said}")]
    Browser {
        /// What it was asked for.
        what: String,
        /// What it said.
        said: String,
    },
    /// A bridge did not take up a port in time.
    #[error("the bridge does not forward from {port}: {said}")]
    NotForwarding {
        /// The device.
        port: String,
        /// How `ip` describes it.
        said: String,
    },
    /// A process did not do what it had to in time.
    #[error("{name} has not ended in time; its output is in {log}", log = log.as_deref().map_or("no file".into(), |log| log.display().to_string()))]
    Late {
        /// The process.
        name: String,
        /// Where its output is.
        log: Option<PathBuf>,
    },
}

impl Error {
    /// Turns what the kernel said into an error that names the thing.
    fn of<E: Into<io::Error>>(
        verb: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let object = object.into();
        move |source| Self::System {
            verb,
            object,
            source: source.into(),
        }
    }
}

/// The result of making a place, or of running something in it.
pub type Result<T> = std::result::Result<T, Error>;

/// An error and what it came from, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let all = iter::successors(Some(error), |error| error.source());
    let texts = all.map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ")
}
