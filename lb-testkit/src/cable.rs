//! A cable between two taps, each in a namespace: what one kernel sends by its tap, the other one receives by its own.
//!
//! At one end is a host, at the other a machine of its own, as far as the host sees: its packets come through a tap's descriptor as
//! those of QEMU and vhost do, with `struct virtio_net_hdr` before them, checksums that are yet to be made and segments that are
//! yet to be cut.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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
    quality: Arc<Quality>,
    /// Closed, it ends the threads.
    hold: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

/// What becomes of a frame.
enum Deal {
    Carry,
    Lose,
    Twice,
    /// After the next one.
    Late,
}

/// What a bad cable does to frames: always the same for the same seed and as many frames.
#[derive(Clone, Copy, Debug)]
struct Faults(u64);

impl Faults {
    /// Marsaglia's xorshift, which is enough to have no pattern.
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One frame of a hundred is lost, one comes twice, and two after the next one.
    fn deal(&mut self) -> Deal {
        match self.draw() % 100 {
            0 => Deal::Lose,
            1 => Deal::Twice,
            2 | 3 => Deal::Late,
            _ => Deal::Carry,
        }
    }
}

/// Frames that went one way.
#[derive(Debug, Default)]
struct Frames {
    unsummed: AtomicU64,
    uncut: AtomicU64,
}

/// How well a cable carries, both ways.
#[derive(Debug, Default)]
struct Quality {
    /// How many of a thousand frames are lost.
    lost: AtomicU64,
    /// How long each takes, in microseconds.
    takes: AtomicU64,
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
        Self::lay(host, machine, None)
    }

    /// One that loses frames, carries some twice, and some too late. `seed` says which ones; it is not 0.
    ///
    /// # Errors
    /// As [`Cable::between`].
    pub fn bad(host: (&Netns, &str), machine: (&Netns, &str), seed: u64) -> Result<Self> {
        Self::lay(host, machine, Some(Faults(seed)))
    }

    fn lay(host: (&Netns, &str), machine: (&Netns, &str), faults: Option<Faults>) -> Result<Self> {
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
        let quality = Arc::<Quality>::default();
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
                carry(&from, &to, &end, &frames, faults, &quality);
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

    /// Lets so many of a thousand frames be lost from now on, and the others take so long. A cable that was just laid loses none
    /// and takes no time.
    pub fn spoil(&self, lost: u32, takes: Duration) {
        let takes = u64::try_from(takes.as_micros()).unwrap_or(u64::MAX);
        self.quality.lost.store(lost.into(), Ordering::Relaxed);
        self.quality.takes.store(takes, Ordering::Relaxed);
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
fn carry(
    mut from: &File,
    to: &File,
    end: &PipeReader,
    frames: &Frames,
    mut faults: Option<Faults>,
    quality: &Quality,
) {
    let mut frame = vec![0; LONGEST];
    let mut late: Option<Vec<u8>> = None;
    let mut lost = Faults(0x9e37_79b9_7f4a_7c15);
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
            if lost.draw() % 1000 < quality.lost.load(Ordering::Relaxed) {
                continue;
            }
            let takes = Duration::from_micros(quality.takes.load(Ordering::Relaxed));
            let mut send = |frame: &[u8]| held.send(to, frame, takes);
            match faults.as_mut().map_or(Deal::Carry, Faults::deal) {
                Deal::Carry => send(frame),
                Deal::Lose => {}
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

/// Makes a tap in the namespace of this thread, whose frames need neither checksums nor to be cut. It goes with its descriptor.
fn tap(device: &str) -> io::Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut name = [0; libc::IFNAMSIZ];
    if device.len() >= name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(flags).map_err(io::Error::other)?,
        },
    };
    // SAFETY: the descriptor is open, and the request lives; the kernel reads and writes it and keeps nothing of it.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // SAFETY: the descriptor is open, and the argument is an integer.
    let set = unsafe {
        libc::ioctl(
            tap.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(offloads),
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tap)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;

    /// A cable, and a connection over it between client and server.
    fn connected(host: &Netns, machine: &Netns) -> (Cable, TcpStream, TcpStream) {
        let cable = Cable::between((host, "vm0"), (machine, "eth0")).unwrap();
        host.ip("link set vm0 up\naddr add 10.1.0.1/24 dev vm0\n")
            .unwrap();
        machine
            .ip("link set eth0 up\naddr add 10.1.0.2/24 dev eth0\n")
            .unwrap();
        let listener = host
            .enter(|| TcpListener::bind("10.1.0.1:80"))
            .unwrap()
            .unwrap();
        let to = "10.1.0.1:80".parse().unwrap();
        let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(10));
        let client = machine.enter(connect).unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        (cable, client, server)
    }

    /// Says a megabyte over the connection, which arrives as it was said.
    fn carries(client: &mut TcpStream, server: &mut TcpStream) {
        let said: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
        let mut heard = vec![0; said.len()];
        thread::scope(|scope| {
            scope.spawn(|| client.write_all(&said).unwrap());
            server.read_exact(&mut heard).unwrap();
        });
        assert!(heard == said);
    }

    #[test]
    fn a_cable_carries_what_its_ends_leave_to_each_other() {
        let (host, machine) = (Netns::new("host").unwrap(), Netns::new("machine").unwrap());
        let (cable, mut client, mut server) = connected(&host, &machine);
        carries(&mut client, &mut server);
        let (there, back) = (cable.from_machine(), cable.from_host());
        assert!(there.unsummed > 10 && there.uncut > 10, "{there:?}");
        assert!(back.unsummed > 1, "{back:?}");
    }

    #[test]
    fn a_spoiled_cable_is_slow_and_loses_what_is_then_sent_again() {
        let (host, machine) = (Netns::new("host").unwrap(), Netns::new("machine").unwrap());
        let (cable, mut client, mut server) = connected(&host, &machine);
        cable.spoil(0, Duration::from_millis(50));
        let began = Instant::now();
        client.write_all(b"?").unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"!").unwrap();
        client.read_exact(&mut [0]).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
        cable.spoil(300, Duration::ZERO);
        carries(&mut client, &mut server);
        let sent_again = || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let counted = machine.enter(sent_again).unwrap();
        let lines: Vec<_> = counted
            .lines()
            .filter(|it| it.starts_with("Tcp:"))
            .collect();
        let place = lines[0].split(' ').position(|it| it == "RetransSegs");
        let segments = lines[1].split(' ').nth(place.unwrap()).unwrap();
        assert_ne!(segments, "0", "nothing was lost");
    }
}
