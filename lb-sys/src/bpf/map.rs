//! What maps hold.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{Info, bpf, info};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;
const BPF_MAP_TYPE_SK_STORAGE: u32 = 24;

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

impl Info for MapInfo {}

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
    let key = socket.as_raw_fd().to_ne_bytes();
    let wrong = "it is no map of socket storage";
    match lookup(map, BPF_MAP_TYPE_SK_STORAGE, wrong, key) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value at `index` of `map`, an array without values for each CPU: for values that are too large for the stack.
///
/// # Errors
/// What the kernel answers, for example when the index is beyond the map, or the map is of another kind.
pub fn array_value(map: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    let key = index.to_ne_bytes();
    lookup(map, BPF_MAP_TYPE_ARRAY, "it is no array", key)
}

/// What `map` has under `key`, if it is of this `kind`, of which all keys have four bytes and no value is one for each CPU; else says what
/// is `wrong`.
fn lookup(
    map: BorrowedFd<'_>,
    kind: u32,
    wrong: &'static str,
    key: [u8; 4],
) -> io::Result<Vec<u8>> {
    let info: MapInfo = info(map)?;
    if info.kind != kind {
        return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
    }
    let mut value = vec![0_u8; usize::try_from(info.value_size).map_err(io::Error::other)?];
    let mut attr = Lookup {
        map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: `attr` is what the command reads. The key of an array is an integer of four bytes, that of socket storage a
    // descriptor; values have as many bytes as the kernel just said; and both live until the call returns.
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
