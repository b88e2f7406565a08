//! Debian packages as tools: fetched, checked and unpacked into the project's ignored tool folder.
//!
//! Nothing is ever installed, no maintainer script runs, and the machine's own package state is neither
//! read nor changed: apt works on folders below the tool folder. The mirror is the one that the machine
//! already uses, read at run time; apt checks the signature of its index and the hash of the package.

mod apt;
mod archive;
mod tools;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::tools::{
    compose, consul, docker, faketime, for_tests, kernel, qemu, rivals, valgrind,
};
use self::{
    apt::{fetch, unpack},
    archive::archives_of_this_machine,
};

/// A Debian release that packages are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Debian 11: the last one that ships Consul.
    Bullseye,
    /// Debian 12: its Docker Engine needs only libraries that every Debian has.
    Bookworm,
    /// Debian 13: the first one that ships Compose of today's format, and a VictoriaMetrics that takes OTLP.
    Trixie,
    /// What Debian 13 gets of later releases: the newest kernel.
    TrixieBackports,
    /// Debian 14 as it comes into being.
    Forky,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
            Self::Forky => "forky",
        })
    }
}

/// Unpacks packages of `suite` below `tools`, unless they are there already, and returns the folder `name` that stands for `/`
/// in them. Apt's configuration tells `choose` which ones; what they depend on is not fetched.
///
/// # Errors
/// When no package source of the machine serves the suite, or a download, check or unpacking fails.
fn ensure_all(
    tools: &Path,
    suite: Suite,
    name: &str,
    choose: impl Fn(&Path) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let tools = std::path::absolute(tools)?;
    let root = tools.join(format!("debian-{suite}")).join(name);
    if root.is_dir() {
        return Ok(root);
    }
    let apt = tools.join(format!("apt-{suite}"));
    fs::create_dir_all(&apt).with_context(|| format!("cannot create {}", apt.display()))?;
    // Two commands at once must not share apt's folders; the lock goes with the process.
    let lock = fs::File::create(apt.join("lock"))?;
    lock.lock()?;
    if root.is_dir() {
        return Ok(root);
    }

    let mut refusals = Vec::new();
    let mut archives = archives_of_this_machine(Path::new("/etc/apt"))?;
    // Third-party sources never hold another Debian release; asking Debian's own first avoids the detour.
    archives.sort_by_key(|archive| !archive.keyring.contains("debian-archive"));
    for archive in &archives {
        match fetch(&apt, archive, suite, name, &choose) {
            Ok(debs) => {
                unpack(&debs, &root)?;
                return Ok(root);
            }
            Err(refusal) => refusals.push(format!("{refusal:#}")),
        }
    }
    bail!(
        "cannot fetch the package {name} of Debian {suite}: {}. It is taken from the mirror that \
         /etc/apt/sources.list or /etc/apt/sources.list.d names for this machine's own Debian; see that \
         the mirror can be reached and serves {suite}",
        if refusals.is_empty() {
            "the machine has no Debian package source".to_owned()
        } else {
            refusals.join("; ")
        }
    )
}
