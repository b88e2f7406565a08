//! What keeps a program attached.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Info, bpf, info};

const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts `program` in the place of the link's program, with no moment in between (kernel 5.7).
///
/// # Errors
/// What the kernel answers, for example `EINVAL` when the attach types differ.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let descriptor = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(io::Error::other);
    let mut attr = LinkUpdate {
        link_fd: descriptor(link)?,
        new_prog_fd: descriptor(program)?,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: `attr` is what the command reads; it holds no pointer.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// The part of `union bpf_attr` that `BPF_LINK_DETACH` reads.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Takes the link's program off before it returns (kernel 5.9). A link that only loses its last pin is taken off some time later:
/// the kernel waits until nobody can still look at the pin.
///
/// # Errors
/// What the kernel answers, for example `EOPNOTSUPP` for a link of another kind than cgroup, network device and namespace.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetach {
        link_fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
    };
    // SAFETY: `attr` is what the command reads; it holds no pointer.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// The head of `struct bpf_link_info` for a link of type cgroup.
#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    pad_end: u32,
}

impl Info for CgroupLinkInfo {}

/// The id of the cgroup (the inode number of its directory) that a cgroup link is attached to; 0 once that
/// cgroup is gone and the kernel has detached the link.
///
/// # Errors
/// What the kernel answers.
pub fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    let info: CgroupLinkInfo = info(link)?;
    if info.kind != BPF_LINK_TYPE_CGROUP {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no cgroup link",
        ));
    }
    Ok(info.cgroup_id)
}

/// The head of `struct bpf_link_info` for a link of type XDP or tcx.
#[repr(C)]
#[derive(Default)]
struct DeviceLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    device: u32,
    // Of tcx alone.
    attach_type: u32,
}

impl Info for DeviceLinkInfo {}

/// The index of the network device that a link of XDP or tcx is attached to; 0 once that device is gone and the
/// kernel has detached the link.
///
/// # Errors
/// What the kernel answers.
pub fn link_device(link: BorrowedFd<'_>) -> io::Result<u32> {
    let info: DeviceLinkInfo = info(link)?;
    if !matches!(info.kind, BPF_LINK_TYPE_XDP | BPF_LINK_TYPE_TCX) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no link of a network device",
        ));
    }
    Ok(info.device)
}
