//! A cable between two taps, each in a namespace: what one kernel sends by its tap, the other one receives by its own.
//!
//! At one end is a host, at the other a machine of its own, as far as the host sees: its packets come through a tap's descriptor as
//! those of QEMU and vhost do, with `struct virtio_net_hdr` before them, checksums that are yet to be made and segments that are
//! yet to be cut.

mod quality;
mod tap;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::quality::Quality;
use self::{
    quality::{Deal, Draws},
    tap::tap,
};
use crate::{Error, Netns, Result};

/// The longest frame, and what comes before it.
const LONGEST: usize = 65_536 + 64;

/// How many frames a slow cable holds for each way; what comes beyond is lost, as in a queue of a device.
const HOLDS: usize = 10_000;

/// In `flags` of `struct virtio_net_hdr`, its first byte: the checksum is yet to be made.
const NEEDS_CHECKSUM: u8 = 1;

/// One cable. It lasts as long as this value, and so do its taps.
#[derive(Debug)]
pub struct Cable {
    from_host: Arc<Frames>,
    from_machine: Arc<Frames>,
    quality: Arc<Mutex<Quality>>,
    /// Closed, it ends the threads.
    hold: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

/// Frames that went one way.
#[derive(Debug, Default)]
struct Frames {
    unsummed: AtomicU64,
    uncut: AtomicU64,
}

/// What was left to whoever takes the frames that went one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloaded {
    /// How many had a checksum that was yet to be made.
    pub unsummed: u64,
    /// How many were several segments that were yet to be cut.
    pub uncut: u64,
}

impl Frames {
    fn count(&self, frame: &[u8]) {
        let &[flags, kind, ..] = frame else { return };
        if flags & NEEDS_CHECKSUM != 0 {
            self.unsummed.fetch_add(1, Ordering::Relaxed);
        }
        if kind != 0 {
            self.uncut.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn told(&self) -> Offloaded {
        Offloaded {
            unsummed: self.unsummed.load(Ordering::Relaxed),
            uncut: self.uncut.load(Ordering::Relaxed),
        }
    }
}

impl Cable {
    /// Makes a tap in each of two namespaces, and lays a cable between them.
    ///
    /// # Errors
    /// When the kernel makes no taps, or a namespace cannot be entered.
    pub fn between(host: (&Netns, &str), machine: (&Netns, &str)) -> Result<Self> {
        let open = |(netns, device): (&Netns, &str)| {
            let tap = netns.enter(|| tap(device))?;
            tap.map_err(Error::of("make the tap", device))
        };
        let (near, far) = (open(host)?, open(machine)?);
        let pipe = || io::pipe().map_err(Error::of("lay a cable to", machine.1));
        let (end, hold) = pipe()?;
        let copy = |file: &File| {
            let copied = file.try_clone();
            copied.map_err(Error::of("copy the descriptor of", host.1))
        };
        let (from_host, from_machine) = (Arc::default(), Arc::default());
        let quality = Arc::<Mutex<Quality>>::default();
        let mut threads = Vec::new();
        for (from, to, frames) in [
            (copy(&near)?, copy(&far)?, &from_host),
            (far, near, &from_machine),
        ] {
            let end = end
                .try_clone()
                .map_err(Error::of("lay a cable to", machine.1))?;
            let (frames, quality) = (Arc::clone(frames), Arc::clone(&quality));
            threads.push(thread::spawn(move || {
                carry(&from, &to, &end, &frames, &quality);
            }));
        }
        Ok(Self {
            from_host,
            from_machine,
            quality,
            hold: Some(hold),
            threads,
        })
    }

    /// Lets the cable carry like this from now on.
    pub fn spoil(&self, quality: Quality) {
        *self.quality.lock().unwrap_or_else(PoisonError::into_inner) = quality;
    }

    /// Lets the cable be as one that was just laid.
    pub fn mend(&self) {
        self.spoil(Quality::default());
    }

    /// What the host left to the machine.
    pub fn from_host(&self) -> Offloaded {
        self.from_host.told()
    }

    /// What the machine left to the host.
    pub fn from_machine(&self) -> Offloaded {
        self.from_machine.told()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        drop(self.hold.take());
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

/// Carries frames until the other end of the pipe is closed.
fn carry(mut from: &File, to: &File, end: &PipeReader, frames: &Frames, quality: &Mutex<Quality>) {
    let mut frame = vec![0; LONGEST];
    let mut late: Option<Vec<u8>> = None;
    let mut draws = Draws::new();
    let mut held = Held::default();
    loop {
        let mut ready = [
            PollFd::new(from.as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, held.send_due(to)) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return,
        }
        if ready[1].any() != Some(false) {
            return;
        }
        // Neither waits; what cannot be taken is lost, as on any cable: the device is down.
        if let Ok(count) = from.read(&mut frame) {
            let frame = &frame[..count];
            frames.count(frame);
            let quality = *quality.lock().unwrap_or_else(PoisonError::into_inner);
            let mut send = |frame: &[u8]| held.send(to, frame, quality.takes);
            match quality.deal(draws.draw()) {
                Deal::Carry => send(frame),
                Deal::Lose => continue,
                Deal::Twice => {
                    send(frame);
                    send(frame);
                }
                Deal::Late => {
                    if let Some(before) = late.replace(frame.to_vec()) {
                        send(&before);
                    }
                    continue;
                }
            }
            if let Some(late) = late.take() {
                send(&late);
            }
        }
    }
}

/// Frames on their way over a slow cable, each with the moment when it arrives.
#[derive(Default)]
struct Held(VecDeque<(Instant, Vec<u8>)>);

impl Held {
    /// Sends a frame that takes so long: at once if it takes no time. Frames keep their order, also when the cable is mended.
    fn send(&mut self, mut to: &File, frame: &[u8], takes: Duration) {
        if takes.is_zero() && self.0.is_empty() {
            drop(to.write(frame));
        } else if self.0.len() < HOLDS {
            let due = Instant::now() + takes;
            let due = self.0.back().map_or(due, |(last, _)| due.max(*last));
            self.0.push_back((due, frame.to_vec()));
        }
    }

    /// Sends what has arrived, and says how long to wait for the next one.
    fn send_due(&mut self, mut to: &File) -> PollTimeout {
        let now = Instant::now();
        while let Some((_, frame)) = self.0.pop_front_if(|(due, _)| *due <= now) {
            drop(to.write(&frame));
        }
        // A millisecond more than is left: poll rounds down.
        let left = self
            .0
            .front()
            .map(|(due, _)| due.duration_since(now).as_millis() + 1);
        left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }
}

#[cfg(test)]
mod tests;
