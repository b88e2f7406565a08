//! What the kernel tells as it happens: its two rings, and what their bytes mean.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{MapData, RingBuf};
use lb_common::{Be16, Be32, Event, Trace};

/// What the kernel tells about backends, as it happens.
pub struct Events(pub(super) RingBuf<MapData>);

impl Events {
    /// Takes the next event, if one is waiting.
    pub fn take(&mut self) -> Option<Event> {
        self.0.next().and_then(|item| event(&item))
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// An event from its bytes; `None` if they are too few.
pub(crate) fn event(item: &[u8]) -> Option<Event> {
    let word = |at: usize| Some(u32::from_ne_bytes(item.get(at..at + 4)?.try_into().ok()?));
    let (low, high) = (word(0)?, word(4)?);
    Some(Event {
        backend: u64::from(high) << 32 | u64::from(low),
        kind: word(8)?,
        table: word(12)?,
    })
}

/// What the kernel tells about decisions, while somebody follows a service.
pub struct Traces(pub(super) RingBuf<MapData>);

impl Traces {
    /// Takes the next decision, if one is waiting.
    pub fn take(&mut self) -> Option<Trace> {
        self.0.next().and_then(|item| trace(&item))
    }
}

impl AsRawFd for Traces {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A decision from its bytes; `None` if they are too few.
pub(crate) fn trace(item: &[u8]) -> Option<Trace> {
    let bytes = |at: usize, many: usize| item.get(at..at + many);
    let word = |at| Some(u32::from_ne_bytes(bytes(at, 4)?.try_into().ok()?));
    let long = |at| Some(u64::from_ne_bytes(bytes(at, 8)?.try_into().ok()?));
    Some(Trace {
        time_ns: long(0)?,
        client: long(8)?,
        socket: long(16)?,
        process: long(24)?,
        command: bytes(32, 16)?.try_into().ok()?,
        vip: Be32::from_raw(word(48)?),
        port: Be16::from_raw(u16::from_ne_bytes(bytes(52, 2)?.try_into().ok()?)),
        proto: *item.get(54)?,
        form: *item.get(55)?,
        table: word(56)?,
        backend: word(60)?,
        detail: word(64)?,
        spare: word(68)?,
    })
}
