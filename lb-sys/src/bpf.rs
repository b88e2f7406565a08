//! `bpf(2)` commands that aya 0.14 lacks: it cannot replace the program of a cgroup link, nor read the storage of a
//! socket.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;
const BPF_MAP_TYPE_SK_STORAGE: u32 = 24;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
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

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
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

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

/// The part of `union bpf_attr` that `BPF_MAP_LOOKUP_ELEM` reads.
#[repr(C)]
struct Lookup {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// What `socket` has in `map`, a map of socket storage; `None` if that is nothing.
///
/// # Errors
/// What the kernel answers, for example when `map` is of another kind.
pub fn stored(map: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let info: MapInfo = info(map)?;
    if info.kind != BPF_MAP_TYPE_SK_STORAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no map of socket storage",
        ));
    }
    let key = socket.as_raw_fd();
    let mut value = vec![0_u8; usize::try_from(info.value_size).map_err(io::Error::other)?];
    let mut attr = Lookup {
        map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        pad: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: `attr` is what the command reads. The key of such a map is a descriptor, its values have as many bytes as
    // the kernel just said, and both live until the call returns.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value at `index` of `map`, an array without values for each CPU: for values that are too large for the stack.
///
/// # Errors
/// What the kernel answers, for example when the index is beyond the map, or the map is of another kind.
pub fn array_value(map: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    let info: MapInfo = info(map)?;
    if info.kind != BPF_MAP_TYPE_ARRAY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no array"));
    }
    let mut value = vec![0_u8; usize::try_from(info.value_size).map_err(io::Error::other)?];
    let mut attr = Lookup {
        map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        pad: 0,
        key: (&raw const index) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: `attr` is what the command reads. The key of an array is an integer of four bytes, its values have as many bytes
    // as the kernel just said, and both live until the call returns.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value)
}

/// The part of `union bpf_attr` that `BPF_MAP_LOOKUP_BATCH` reads and writes.
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A walk through a hash map with many entries for each system call (kernel 5.6). What is added or removed meanwhile may
/// be met or not; what stays is met once.
#[derive(Debug)]
pub struct Batches {
    map: OwnedFd,
    key_size: usize,
    value_size: usize,
    /// Where the walk is; the kernel's own business. `None` before the first call.
    cursor: Option<u32>,
    over: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// Entries for each system call: enough that the call itself costs nothing beside them.
const AT_ONCE: usize = 4096;

impl Batches {
    /// A walk through `map`, a hash or an LRU hash without values for each CPU.
    ///
    /// # Errors
    /// When it is of another kind, or the kernel does not tell.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        let info: MapInfo = info(map)?;
        if !matches!(info.kind, BPF_MAP_TYPE_HASH | BPF_MAP_TYPE_LRU_HASH) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no hash"));
        }
        let size = |size: u32| usize::try_from(size).map_err(io::Error::other);
        Ok(Self {
            map: map.try_clone_to_owned()?,
            key_size: size(info.key_size)?,
            value_size: size(info.value_size)?,
            cursor: None,
            over: false,
            keys: Vec::new(),
            values: Vec::new(),
        })
    }

    /// The next entries, each a key and a value; `None` when all were told.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn step(&mut self) -> io::Result<Option<impl Iterator<Item = (&[u8], &[u8])>>> {
        let mut room = AT_ONCE.max(self.keys.len() / self.key_size);
        let count = loop {
            if self.over {
                return Ok(None);
            }
            self.keys.resize(room * self.key_size, 0);
            self.values.resize(room * self.value_size, 0);
            let (from, mut to) = (self.cursor.unwrap_or(0), 0_u32);
            let mut attr = LookupBatch {
                in_batch: if self.cursor.is_some() {
                    (&raw const from) as u64
                } else {
                    0
                },
                out_batch: (&raw mut to) as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: u32::try_from(room).map_err(io::Error::other)?,
                map_fd: u32::try_from(self.map.as_raw_fd()).map_err(io::Error::other)?,
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: `attr` is what the command reads and writes. Both buffers have room for `count` keys and values of the sizes
            // that the kernel has told of this map, the positions in a hash are integers of four bytes, and all of them live
            // until the call returns.
            match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) } {
                Ok(_) => self.cursor = Some(to),
                // That was the end.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.over = true,
                // One bucket of the hash has more than there is room for.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && room < AT_ONCE * 1024 =>
                {
                    room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let count = usize::try_from(attr.count).map_err(io::Error::other)?;
            if count > 0 || self.over {
                break count.min(room);
            }
        };
        let keys = self.keys.chunks_exact(self.key_size);
        Ok(Some(
            keys.zip(self.values.chunks_exact(self.value_size))
                .take(count),
        ))
    }
}

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
impl Info for CgroupLinkInfo {}
impl Info for DeviceLinkInfo {}
impl Info for MapInfo {}
