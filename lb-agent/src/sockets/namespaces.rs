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

use super::{diag::Blind, process::has_ended};

/// How much of the host was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The namespaces looked into, by their inode.
    pub namespaces: BTreeSet<u64>,
    /// Processes whose namespace may not be asked for.
    pub hidden: usize,
    /// Why others were not looked into.
    pub blocked: Option<String>,
    /// Whether the kernel does not list the sockets of UDP.
    pub without_udp: bool,
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
        let udp = self.without_udp.then(|| {
            "those over UDP, which this kernel does not list: it lacks CONFIG_INET_UDP_DIAG"
                .to_owned()
        });
        let causes = self.blocked.iter().cloned().chain(hidden).chain(udp);
        let causes: Vec<String> = causes.collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }
}

/// The network namespace that a thread comes back to.
#[derive(Debug)]
pub(super) struct Home {
    namespace: File,
    inode: u64,
    /// Whether the thread is in another one. If it is after [`each`], it could not come back and must end: it would take that
    /// for its own, and keep it alive when everybody else has left it.
    pub(super) away: bool,
}

impl Home {
    /// Where this thread is, and those that it starts.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn here() -> io::Result<Self> {
        let namespace = File::open("/proc/thread-self/ns/net")?;
        let inode = namespace.metadata()?.ino();
        Ok(Self {
            namespace,
            inode,
            away: false,
        })
    }

    fn leave(&mut self, namespace: &File) -> nix::Result<()> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        self.away = true;
        Ok(())
    }

    fn come_back(&mut self) -> io::Result<()> {
        // Who may not enter others may not enter this one either.
        if self.away {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
            self.away = false;
        }
        Ok(())
    }
}

/// Calls `look` in every network namespace that has a process, this thread's own first. This thread is back in its
/// own afterwards, or could not come back.
///
/// # Errors
/// When this thread's own namespace cannot be used. A failure elsewhere stands in the [`Sight`].
pub(super) fn each(
    home: &mut Home,
    proc: &Path,
    mut look: impl FnMut(u64) -> io::Result<Blind>,
) -> io::Result<Sight> {
    let mut sight = Sight::default();
    sight.namespaces.insert(home.inode);
    // The same kernel everywhere.
    sight.without_udp = look(home.inode)?.udp;
    if fs::metadata("/proc/self/ns/pid")?.ino() != FIRST_PID_NAMESPACE {
        sight.blocked = Some(
            "the agent sees only the processes of its own container; give it the host's (pid: host)"
                .to_owned(),
        );
    }
    let visited = visit(home, proc, &mut sight, &mut look);
    home.come_back()?;
    visited.map(|()| sight)
}

fn visit(
    home: &mut Home,
    proc: &Path,
    sight: &mut Sight,
    look: &mut impl FnMut(u64) -> io::Result<Blind>,
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
            Err(error) if has_ended(&error) => continue,
            Err(error) => {
                let why = || format!("cannot see the network namespace of a process: {error}");
                sight.blocked.get_or_insert_with(why);
                sight.missed = true;
                continue;
            }
        };
        let inode = file.metadata()?.ino();
        if sight.namespaces.contains(&inode) {
            continue;
        }
        match home.leave(&file) {
            Ok(()) => match look(inode) {
                Ok(_) => drop(sight.namespaces.insert(inode)),
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

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process, sync::mpsc, thread};

    use caps::{CapSet, Capability};
    use nix::{sched::unshare, unistd::gettid};

    use super::*;

    #[test]
    fn what_is_not_seen_is_told_with_its_cause() {
        let mut sight = Sight::default();
        assert_eq!(sight.limits(), None);
        sight.without_udp = true;
        sight.hidden = 2;
        let told = sight.limits().unwrap();
        for cause in ["CONFIG_INET_UDP_DIAG", "CAP_SYS_PTRACE"] {
            assert!(told.contains(cause), "{told}");
        }
    }

    #[test]
    fn a_process_that_ended_is_passed_over_and_one_that_cannot_be_seen_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let looks = || {
            let mut home = Home::here().unwrap();
            each(&mut home, folder.path(), |_| Ok(Blind::default())).unwrap()
        };
        fs::create_dir_all(folder.path().join("1")).unwrap();
        let sight = looks();
        assert!(!sight.missed && sight.hidden == 0, "{sight:?}");
        let place = folder.path().join("2/ns");
        fs::create_dir_all(&place).unwrap();
        // ELOOP, in place of the want of descriptors or memory.
        symlink("net", place.join("net")).unwrap();
        let sight = looks();
        assert!(sight.missed && sight.hidden == 0, "{sight:?}");
        assert!(sight.limits().unwrap().contains("of a process"));
    }

    #[test]
    fn a_thread_that_cannot_come_back_is_away_and_one_that_may_not_leave_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("1/ns");
        fs::create_dir_all(&place).unwrap();
        // A namespace lives as long as somebody is in it.
        let (stay, leave) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let inhabitant = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            leave.recv().unwrap_err();
        });
        let of_it = format!(
            "/proc/{}/task/{}/ns/net",
            process::id(),
            told.recv().unwrap()
        );
        symlink(&of_it, place.join("net")).unwrap();
        let foreign = fs::metadata(&of_it).unwrap().ino();

        // Rights belong to a thread.
        let visitor = thread::spawn(move || {
            let mut home = Home::here().unwrap();
            let mut seen = Vec::new();
            let sight = each(&mut home, folder.path(), |inode| {
                seen.push(inode);
                Ok(Blind::default())
            });
            assert_eq!(seen, [home.inode, foreign]);
            assert!(sight.is_ok() && !home.away);
            assert_eq!(Home::here().unwrap().inode, home.inode);
            let stranded = each(&mut home, folder.path(), |inode| {
                if inode == foreign {
                    caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
                }
                Ok(Blind::default())
            });
            assert!(stranded.is_err() && home.away);
            assert_eq!(Home::here().unwrap().inode, foreign);
            folder
        });
        let folder = visitor.join().unwrap();
        let homely = thread::spawn(move || {
            caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
            let mut home = Home::here().unwrap();
            let sight = each(&mut home, folder.path(), |_| Ok(Blind::default())).unwrap();
            assert!(!home.away);
            let limits = sight.limits().unwrap();
            assert!(limits.contains("CAP_SYS_ADMIN"), "{limits}");
        });
        homely.join().unwrap();
        drop(stay);
        inhabitant.join().unwrap();
    }
}
