//! Packets that the programs sampled, and the files that other tools read them from.

use std::{
    io::{self, Write},
    mem::offset_of,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use lb_common::packet::{Fate, SAMPLE_BYTES, Sample, packet_map as map};
use nix::time::ClockId;

use crate::{Error, Programs};

/// Samples as they come. There is one reader at a time.
pub struct Samples(RingBuf<MapData>);

/// One sampled packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Of the monotonic clock.
    pub time: Duration,
    /// Interface index of the device that it came by, or leaves by.
    pub device: u32,
    /// Its length with the link's head.
    pub length: u32,
    /// What became of it; `None` if the programs know a fate that this agent does not.
    pub fate: Option<Fate>,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

impl AsRawFd for Samples {
    /// Readable while there is one to read.
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Samples {
    /// Opens the ring buffer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(programs: &mut Programs) -> Result<Self, Error> {
        programs.map(map::SAMPLES).map(Self)
    }

    /// The next one, if one waits.
    pub fn take(&mut self) -> Option<Packet> {
        self.0.next().and_then(|bytes| Packet::read(&bytes))
    }
}

impl Packet {
    /// A sample from its bytes; `None` if they are fewer than a sample has.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
            bytes.get(at..)?.first_chunk().copied()
        }
        let word = |at| part(bytes, at).map(u32::from_ne_bytes);
        let kept = usize::try_from(word(offset_of!(Sample, kept))?).ok()?;
        let first = offset_of!(Sample, bytes);
        let fate = word(offset_of!(Sample, fate))?;
        let time = part(bytes, offset_of!(Sample, time_ns)).map(u64::from_ne_bytes)?;
        Some(Self {
            time: Duration::from_nanos(time),
            device: word(offset_of!(Sample, device))?,
            length: word(offset_of!(Sample, length))?,
            fate: Fate::ALL.into_iter().find(|it| *it as u32 == fate),
            bytes: bytes.get(first..first + kept.min(SAMPLE_BYTES))?.to_vec(),
        })
    }
}

/// A file of packets as tcpdump and Wireshark read it
/// (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html>), with nanoseconds.
pub struct Pcap<W> {
    to: W,
    /// What has to be added to the monotonic clock.
    epoch: Duration,
}

/// The magic number of files with nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

impl<W: Write> Pcap<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(to: W) -> io::Result<Self> {
        let read = |clock: ClockId| clock.now().map(Duration::from).map_err(io::Error::from);
        let epoch = read(ClockId::CLOCK_REALTIME)?.saturating_sub(read(ClockId::CLOCK_MONOTONIC)?);
        Self::with_epoch(to, epoch)
    }

    fn with_epoch(mut to: W, epoch: Duration) -> io::Result<Self> {
        let kept = u32::try_from(SAMPLE_BYTES).unwrap_or(u32::MAX);
        // Version 2.4; two fields that nobody uses; the most that is kept of a packet.
        for word in [MAGIC, 4 << 16 | 2, 0, 0, kept, ETHERNET] {
            to.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { to, epoch })
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, packet: &Packet) -> io::Result<()> {
        let time = self.epoch + packet.time;
        let kept = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
        // Seconds go round in 2106, as the format has it.
        let seconds = u32::try_from(time.as_secs() & u64::from(u32::MAX)).unwrap_or(0);
        for word in [seconds, time.subsec_nanos(), kept, packet.length.max(kept)] {
            self.to.write_all(&word.to_le_bytes())?;
        }
        self.to.write_all(&packet.bytes)
    }

    /// Writes out what waits in buffers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kept: u32, fate: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(1_500_000_007_u64.to_ne_bytes());
        for word in [3, 1514, kept, fate] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend([0xab; SAMPLE_BYTES]);
        bytes
    }

    #[test]
    fn a_sample_is_read_as_it_lies_in_the_ring() {
        let packet = Packet::read(&sample(60, Fate::NoPort as u32)).unwrap();
        assert_eq!(packet.time, Duration::from_nanos(1_500_000_007));
        assert_eq!((packet.device, packet.length), (3, 1514));
        assert_eq!(packet.fate, Some(Fate::NoPort));
        assert_eq!(packet.bytes, [0xab; 60]);
    }

    #[test]
    fn what_is_no_sample_is_none_and_nothing_is_read_outside() {
        let whole = sample(u32::MAX, 99);
        let read = Packet::read(&whole).unwrap();
        assert_eq!(read.bytes.len(), SAMPLE_BYTES);
        assert_eq!(read.fate, None);
        for length in 0..whole.len() {
            assert_eq!(Packet::read(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_file_is_as_the_format_says() {
        let mut file = Pcap::with_epoch(Vec::new(), Duration::from_secs(1_000)).unwrap();
        file.add(&Packet::read(&sample(3, 0)).unwrap()).unwrap();
        let bytes = file.finish().unwrap();
        let head = "4d3cb2a1 02000400 00000000 00000000 80000000 01000000";
        let record = "e9030000 0765cd1d 03000000 ea050000 ababab";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("{head}{record}").replace(' ', ""));
    }
}
