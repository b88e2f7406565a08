//! What is stored at sockets of which `sock_diag` does not tell it, which are those of UDP. The kernel is asked for it by
//! a descriptor, and a process that has the socket open has one to copy.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    thread,
};

use nix::errno::Errno;
use socket2::SockRef;

use super::{
    namespaces::Sight,
    process::Wanted,
    wire::{self, Found, Origin, Socket},
};

/// Those of `sockets` that have a record in the map `records` whose flow is not over; each keeps what stands beside it.
pub(super) fn ask<T>(
    records: &OwnedFd,
    sockets: Vec<(T, Socket)>,
    proc: &Path,
    sight: &mut Sight,
) -> Vec<(T, Found)> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut wanted = Wanted::new(sockets.iter().map(|(_, socket)| socket.inode));
    wanted.search(proc);
    if wanted.is_hidden() {
        let why = "processes of other users do not show their UDP sockets; the agent needs CAP_DAC_READ_SEARCH";
        sight.blocked.get_or_insert_with(|| why.to_owned());
    }
    if let Some(error) = wanted.trouble() {
        let why = || format!("cannot see which sockets a process has open: {error}");
        sight.blocked.get_or_insert_with(why);
        sight.missed = true;
    }
    let mut all = Vec::new();
    for (beside, socket) in sockets {
        match origin(records, &wanted, socket.inode) {
            Ok(Some(origin)) => all.push((beside, Found { socket, origin })),
            Ok(None) => {}
            Err(error) => note(&error, sight),
        }
    }
    all
}

/// Notes what was not seen for this `error`.
fn note(error: &io::Error, sight: &mut Sight) {
    match error.raw_os_error().map(Errno::from_raw) {
        // It was closed meanwhile, or its process has ended.
        Some(Errno::EBADF | Errno::ESRCH) => return,
        // A filter of system calls may answer that there is none.
        Some(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => {}
        _ => sight.missed = true,
    }
    let why = || {
        format!(
            "cannot ask other processes for their UDP sockets: {error}; that takes CAP_SYS_PTRACE, pidfd_getfd, which a \
             seccomp filter may forbid, and kernel.yama.ptrace_scope below 3"
        )
    };
    sight.blocked.get_or_insert_with(why);
}

fn origin(records: &OwnedFd, wanted: &Wanted, inode: u32) -> io::Result<Option<Origin>> {
    let Some((pid, number)) = wanted.place(inode) else {
        return Ok(None);
    };
    let copy = lb_sys::process::descriptor(pid, number)?;
    // The number may mean something else by now: another socket, or a file that somebody serves, who may let us wait
    // when we ask for its inode or close it.
    if SockRef::from(&copy).r#type().is_err() {
        drop(thread::Builder::new().spawn(move || drop(copy)));
        return Ok(None);
    }
    let copy = File::from(copy);
    if copy.metadata()?.ino() != u64::from(inode) {
        return Ok(None);
    }
    let record = lb_sys::bpf::stored(records.as_fd(), copy.as_fd())?;
    Ok(record.and_then(|record| wire::origin(&record)).flatten())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{SocketAddr, UdpSocket},
        os::{fd::AsRawFd as _, unix::fs::symlink},
        process::{Command, id},
    };

    use caps::{CapSet, Capability};
    use tempfile::TempDir;

    use super::{super::wire::tests::udp_socket, *};

    /// A folder like `/proc` in which the process has a socket with the inode 7 open as this descriptor.
    fn proc(pid: u32, number: i32) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join(format!("{pid}/fd"));
        fs::create_dir_all(&open).unwrap();
        symlink("socket:[7]", open.join(number.to_string())).unwrap();
        folder
    }

    fn trouble(proc: &TempDir) -> Sight {
        // No map is asked in these tests.
        let records = File::open("/dev/null").unwrap().into();
        let peer = SocketAddr::from(([10, 0, 0, 1], 53));
        let sockets = vec![((), udp_socket(7, peer))];
        let mut sight = Sight::default();
        assert_eq!(ask(&records, sockets, proc.path(), &mut sight), vec![]);
        sight
    }

    #[test]
    fn a_descriptor_that_means_something_else_by_now_is_no_flow_and_no_trouble() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        for number in [socket.as_raw_fd(), reader.as_raw_fd(), i32::MAX] {
            assert_eq!(trouble(&proc(id(), number)), Sight::default(), "{number}");
        }
        assert_eq!(trouble(&proc(u32::MAX >> 1, 0)), Sight::default());
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_is_missed_unless_it_has_ended() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let proc = proc(id(), socket.as_raw_fd());
        fs::create_dir(proc.path().join("1")).unwrap();
        assert_eq!(trouble(&proc), Sight::default());
        fs::remove_dir_all(proc.path().join(id().to_string())).unwrap();
        assert_eq!(trouble(&proc), Sight::default());
        // ELOOP, in place of the want of descriptors or memory.
        symlink("fd", proc.path().join("1/fd")).unwrap();
        let sight = trouble(&proc);
        assert!(sight.missed);
        assert!(sight.limits().unwrap().contains("has open"), "{sight:?}");
    }

    #[test]
    fn who_may_not_be_asked_is_told_with_what_it_takes() {
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let proc = proc(other.id(), 0);
        // Rights belong to a thread.
        let asker = thread::spawn(move || {
            for set in [CapSet::Effective, CapSet::Permitted] {
                caps::drop(None, set, Capability::CAP_SYS_PTRACE).unwrap();
            }
            trouble(&proc)
        });
        let sight = asker.join().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!sight.missed);
        let told = sight.limits().unwrap();
        for word in ["CAP_SYS_PTRACE", "seccomp", "ptrace_scope"] {
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn what_may_go_by_is_tried_again() {
        for (error, missed, told) in [
            (Errno::ESRCH, false, false),
            (Errno::ENOSYS, false, true),
            (Errno::EMFILE, true, true),
        ] {
            let mut sight = Sight::default();
            note(&error.into(), &mut sight);
            assert_eq!(
                (sight.missed, sight.blocked.is_some()),
                (missed, told),
                "{error}"
            );
        }
    }
}
