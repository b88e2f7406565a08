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
};

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
    let mut all = Vec::new();
    for (beside, socket) in sockets {
        match origin(records, &wanted, socket.inode) {
            Ok(Some(origin)) => all.push((beside, Found { socket, origin })),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let why = "the agent may not ask other processes for their UDP sockets; it needs CAP_SYS_PTRACE";
                sight.blocked.get_or_insert_with(|| why.to_owned());
            }
            // It was closed meanwhile, or its process has ended.
            Err(_) => {}
        }
    }
    all
}

fn origin(records: &OwnedFd, wanted: &Wanted, inode: u32) -> io::Result<Option<Origin>> {
    let Some((pid, number)) = wanted.place(inode) else {
        return Ok(None);
    };
    let copy = lb_sys::process::descriptor(pid, number)?;
    // The number may mean something else by now.
    let copy = File::from(copy);
    if copy.metadata()?.ino() != u64::from(inode) {
        return Ok(None);
    }
    let record = lb_sys::bpf::stored(records.as_fd(), copy.as_fd())?;
    Ok(record.and_then(|record| wire::origin(&record)).flatten())
}
