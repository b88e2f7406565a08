//! The network namespaces of this host, and entering them.
//!
//! For a thread of its own only: a namespace belongs to a thread.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::sched::{CloneFlags, setns};

/// How much of the host was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The namespaces looked into, by their inode.
    pub namespaces: BTreeSet<u64>,
    /// Processes whose namespace may not be asked for.
    pub hidden: usize,
    /// Why others were not looked into.
    pub blocked: Option<String>,
    /// Whether that may go by: one that could not be looked into this time may hold flows.
    pub missed: bool,
}

impl Sight {
    /// Whose flows are not seen, and why; nothing if all are.
    pub fn limits(&self) -> Option<String> {
        let hidden = (self.hidden > 0).then(|| {
            format!(
                "processes that do not show their network namespace: {}, most often for want of CAP_SYS_PTRACE",
                self.hidden
            )
        });
        let causes: Vec<String> = self.blocked.iter().cloned().chain(hidden).collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }
}

/// Calls `look` in every network namespace that has a process, this thread's own first. This thread is back in its
/// own afterwards.
///
/// # Errors
/// When this thread's own namespace cannot be used. A failure elsewhere stands in the [`Sight`].
pub(super) fn each(proc: &Path, mut look: impl FnMut(u64) -> io::Result<()>) -> io::Result<Sight> {
    let home = File::open("/proc/thread-self/ns/net")?;
    let mut sight = Sight::default();
    let own = home.metadata()?.ino();
    sight.namespaces.insert(own);
    look(own)?;
    if fs::metadata("/proc/self/ns/pid")?.ino() != FIRST_PID_NAMESPACE {
        sight.blocked = Some(
            "the agent sees only the processes of its own container; give it the host's (pid: host)"
                .to_owned(),
        );
    }
    let visited = visit(proc, &mut sight, &mut look);
    // Else this thread would keep alive a namespace that everybody else has left.
    setns(&home, CloneFlags::CLONE_NEWNET)?;
    visited.map(|()| sight)
}

fn visit(
    proc: &Path,
    sight: &mut Sight,
    look: &mut impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        if !entry.file_name().to_str().is_some_and(is_process) {
            continue;
        }
        let path = entry.path().join("ns/net");
        let file = match fs::metadata(&path).map(|found| found.ino()) {
            Ok(inode) if sight.namespaces.contains(&inode) => continue,
            Ok(_) => File::open(&path),
            Err(error) => Err(error),
        };
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                sight.hidden += 1;
                continue;
            }
            // It ended meanwhile.
            Err(_) => continue,
        };
        let inode = file.metadata()?.ino();
        if sight.namespaces.contains(&inode) {
            continue;
        }
        match setns(&file, CloneFlags::CLONE_NEWNET) {
            Ok(()) => match look(inode) {
                Ok(()) => drop(sight.namespaces.insert(inode)),
                Err(error) => {
                    let why = || format!("cannot look into a network namespace: {error}");
                    sight.blocked.get_or_insert_with(why);
                    sight.missed = true;
                }
            },
            Err(nix::Error::EPERM) => {
                let why =
                    "the agent may not enter other network namespaces; it needs CAP_SYS_ADMIN";
                sight.blocked.get_or_insert_with(|| why.to_owned());
                // Nor any other one.
                return Ok(());
            }
            Err(error) => {
                let why = || format!("cannot enter a network namespace: {error}");
                sight.blocked.get_or_insert_with(why);
                sight.missed = true;
            }
        }
    }
    Ok(())
}

/// The inode that the kernel gives the pid namespace of the host (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
