//! Which process has a socket open, and in which container it runs: from `/proc`.

use std::{collections::HashMap, fs, io, os::fd::RawFd, path::Path};

use nix::errno::Errno;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number, as this agent sees it.
    pub pid: u32,
    /// Its name, which it may choose itself.
    pub command: String,
    /// The first twelve digits of its container's id.
    pub container: Option<String>,
}

/// Sockets, by inode, and who has them open.
pub(super) struct Wanted {
    owners: HashMap<u32, Option<Owner>>,
    open: usize,
    denied: bool,
    /// Why a process could not be looked at that is still there.
    missed: Option<io::Error>,
}

/// Who has a socket open, and as which descriptor.
#[derive(Clone)]
struct Owner {
    process: Process,
    descriptor: RawFd,
}

impl Wanted {
    pub(super) fn new(inodes: impl Iterator<Item = u32>) -> Self {
        let owners: HashMap<_, _> = inodes.map(|inode| (inode, None)).collect();
        let open = owners.len();
        Self {
            owners,
            open,
            denied: false,
            missed: None,
        }
    }

    /// Looks through the processes until every socket has an owner. What may not be seen is passed over.
    pub(super) fn search(&mut self, proc: &Path) {
        let processes = match fs::read_dir(proc) {
            Ok(processes) => processes,
            Err(error) => return self.missed(error),
        };
        for process in processes {
            if self.open == 0 {
                return;
            }
            let process = match process {
                Ok(process) => process,
                Err(error) => return self.missed(error),
            };
            let name = process.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
                self.look_at(pid, &process.path());
            }
        }
    }

    /// Whether one that was not found may be open in a process that does not show what it has open.
    pub(super) fn is_hidden(&self) -> bool {
        self.denied && self.open > 0
    }

    /// Why one that was not found may be open in a process that could not be looked at this time.
    pub(super) fn trouble(&self) -> Option<&io::Error> {
        self.missed.as_ref().filter(|_| self.open > 0)
    }

    /// Who has the socket open.
    pub(super) fn process(&self, inode: u32) -> Option<&Process> {
        Some(&self.owners.get(&inode)?.as_ref()?.process)
    }

    /// Which process has the socket open, and as which descriptor.
    pub(super) fn place(&self, inode: u32) -> Option<(u32, RawFd)> {
        let owner = self.owners.get(&inode)?.as_ref()?;
        Some((owner.process.pid, owner.descriptor))
    }

    fn look_at(&mut self, pid: u32, folder: &Path) {
        let descriptors = match fs::read_dir(folder.join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => return self.missed(error),
        };
        let mut process = None;
        for descriptor in descriptors {
            let descriptor = match descriptor {
                Ok(descriptor) => descriptor,
                Err(error) => return self.missed(error),
            };
            let link = match fs::read_link(descriptor.path()) {
                Ok(link) => link,
                // That is how the kernel answers for a process that has ended, too.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => {
                    self.missed(error);
                    continue;
                }
            };
            let inode = link.to_str().and_then(socket_inode);
            let Some(owner) = inode.and_then(|inode| self.owners.get_mut(&inode)) else {
                continue;
            };
            let number = descriptor.file_name();
            let number = number.to_str().and_then(|name| name.parse().ok());
            if let (None, Some(descriptor)) = (&owner, number) {
                let process = process.get_or_insert_with(|| read(pid, folder)).clone();
                *owner = Some(Owner {
                    process,
                    descriptor,
                });
                self.open -= 1;
            }
        }
    }

    fn missed(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.denied = true;
        } else if !has_ended(&error) {
            self.missed.get_or_insert(error);
        }
    }
}

/// Whether `/proc` answers thus for a process, or something of it, that is gone. Anything else says nothing about it.
pub(super) fn has_ended(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ESRCH))
}

fn read(pid: u32, folder: &Path) -> Process {
    let text = |name: &str| {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Process {
        pid,
        command: text("comm").trim_end().to_owned(),
        container: container(&text("cgroup")),
    }
}

fn socket_inode(link: &str) -> Option<u32> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// The container that a process with these cgroups runs in: engines name the group by the container's id of 64
/// digits, as `/docker/<id>`, `docker-<id>.scope` or alike.
pub(super) fn container(cgroups: &str) -> Option<String> {
    let mut words = cgroups.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_id = |word: &&str| {
        word.len() == 64
            && word
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    // The innermost one: an engine may run in a container itself.
    words.rfind(is_id).map(|id| id[..12].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_container_is_known_by_its_cgroup() {
        let short = Some("0123456789ab".to_owned());
        assert_eq!(container(&format!("0::/docker/{ID}\n")), short);
        assert_eq!(
            container(&format!("0::/system.slice/docker-{ID}.scope\n")),
            short
        );
        let outer = "f".repeat(64);
        assert_eq!(
            container(&format!("0::/docker/{outer}/docker/{ID}\n")),
            short
        );
    }

    #[test]
    fn other_cgroups_are_no_container() {
        assert_eq!(container("0::/user.slice/session-3.scope\n"), None);
        assert_eq!(container(&format!("0::/docker/{}\n", &ID[1..])), None);
        assert_eq!(
            container(&format!("0::/docker/{}\n", ID.to_uppercase())),
            None
        );
        assert_eq!(container(""), None);
    }

    #[test]
    fn the_owner_of_a_socket_is_found_by_its_inode_and_a_stranger_has_none() {
        use std::os::{fd::AsRawFd as _, unix::net::UnixDatagram};
        let (one, _other) = UnixDatagram::pair().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", one.as_raw_fd())).unwrap();
        let inode = socket_inode(link.to_str().unwrap()).unwrap();
        let mut wanted = Wanted::new([inode, 0].into_iter());
        wanted.look_at(std::process::id(), Path::new("/proc/self"));
        let owner = wanted.process(inode).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert_ne!(owner.command, "");
        assert_eq!(wanted.place(inode), Some((owner.pid, one.as_raw_fd())));
        assert_eq!((wanted.process(0), wanted.place(0)), (None, None));
    }

    #[test]
    fn only_links_to_sockets_have_an_inode() {
        assert_eq!(socket_inode("socket:[17]"), Some(17));
        assert_eq!(socket_inode("pipe:[17]"), None);
        assert_eq!(socket_inode("socket:[x]"), None);
        assert_eq!(socket_inode("/etc/passwd"), None);
    }
}
