//! `bpf(2)` commands that aya 0.14 lacks: it cannot replace the program of a cgroup link, nor read the storage of a
//! socket.

mod link;
mod map;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub use self::{
    link::{link_cgroup, link_detach, link_device, link_update},
    map::{Batches, array_value, stored},
};

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens the object pinned at `path`.
///
/// # Errors
/// What the kernel answers: `NotFound` when nothing is pinned there.
pub fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr = ObjGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: `attr` is what the command reads, and the path lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes.
#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// The ids of the programs that run for processes in `cgroup` at the hook `attach_type` (`enum bpf_attach_type`), also those
/// attached above it; the first 64 in their order.
///
/// # Errors
/// What the kernel answers.
pub fn effective(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut attr = ProgQuery {
        target_fd: u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        attach_type,
        query_flags: BPF_F_QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        pad: 0,
    };
    // SAFETY: `attr` is what the command reads and writes; `ids` has room for `prog_cnt` ids and lives until the call returns.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        // There are more than there is room for.
        Err(error) if error.raw_os_error() != Some(libc::ENOSPC) => return Err(error),
        _ => {}
    }
    let found = usize::try_from(attr.prog_cnt).map_err(io::Error::other)?;
    Ok(ids.into_iter().take(found).collect())
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// What the kernel says of an object.
fn info<T: Info>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attr = InfoByFd {
        bpf_fd: u32::try_from(object.as_raw_fd()).map_err(io::Error::other)?,
        info_len: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `attr` is what the command reads and writes; `info` has `info_len` bytes, of which any will do, and lives
    // until it returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// The head of what the kernel says of a kind of object: integers, of which any bits will do.
trait Info: Default {}
/// # Safety
/// `attr` is a `repr(C)` prefix of `union bpf_attr` that holds what `command` reads, and what its pointers name is
/// live and as large as the command takes it to be.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes no more than the size we state, takes the missing rest as zero, and the
    // caller answers for the pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
