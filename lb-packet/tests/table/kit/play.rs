//! Rows are played, and judged by what became of the packet and by what was counted and told.

use std::{collections::BTreeMap, fmt::Write as _, slice, time::Duration};

use lb_common::packet::{Fate, HAND_OVER, SAMPLE_BYTES};
use lb_packet::{Fates, Filter, Packet};
use nix::time::ClockId;

use super::{
    World,
    row::{Given, Out, Row},
    world::Ran,
};

/// How often a row is played that has to happen within one second: it takes milliseconds.
const TRIES: usize = 20;

impl World {
    /// Back to how every row begins.
    fn reset(&mut self) {
        if self.desired != self.scene {
            self.desired = self.scene.clone();
            self.publisher.apply(&self.desired).unwrap();
        }
        self.flows
            .flush(&self.publisher, &Filter::default())
            .unwrap();
    }

    /// Brings about what a row begins with, then runs its packet. Answers what was counted, too.
    fn play(&mut self, row: &Row) -> (Ran, BTreeMap<Fate, u64>) {
        for _ in 0..TRIES {
            let began = second();
            self.reset();
            for given in &row.given {
                match given {
                    Given::Desired(change) => self.apply(change),
                    Given::Packet(program, packet) => drop(self.run(program, packet)),
                    Given::Do(job) => job(self),
                }
            }
            drop(self.told());
            let before = self.figures.fates().unwrap();
            let ran = self.run_with(row.program, &row.packet, row.metadata);
            let after = self.figures.fates().unwrap();
            if !row.at_once || second() == began {
                return (ran, counted(&before, &after));
            }
        }
        panic!("{}: it never takes less than a second", row.name())
    }

    /// Runs one row with all packets told; says what is wrong with what is told of its packet, if something is.
    pub(crate) fn check_told(&mut self, row: &Row) -> Result<(), String> {
        self.scene.settings.sample = 1;
        let (_, counted) = self.play(row);
        let told = self.told();
        let whole = row.packet.len();
        let is_it = |packet: &Packet| {
            packet.device == self.device(row.program)
                && packet.length as usize == whole
                && packet.bytes == row.packet[..whole.min(SAMPLE_BYTES)]
        };
        let fate = counted.keys().next().copied();
        let last = told.last().and_then(|packet| packet.fate);
        let right = match fate {
            // What the stack goes on with counts for nothing.
            None => matches!(last, None | Some(Fate::Passed | Fate::NoEndpoint)),
            // It turns out when the packet has been changed, and cannot be told any more as it came.
            Some(Fate::Resize) => last.is_some(),
            fate => last == fate,
        };
        if right && told.iter().all(is_it) {
            return Ok(());
        }
        Err(format!("{}: counted {fate:?}, told {told:?}", row.name()))
    }

    /// What is told and was not taken yet.
    pub(crate) fn told(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.samples.take()).collect()
    }

    /// Runs one row; says what is wrong, if something is.
    pub(crate) fn check(&mut self, row: &Row) -> Result<(), String> {
        let (ran, counted) = self.play(row);
        let mut wrong = String::new();
        if ran.verdict != Ok(row.verdict) {
            let _ = writeln!(wrong, "  verdict {:?}, not {:?}", ran.verdict, row.verdict);
        }
        // The metadata of a packet comes before it.
        let handed_over;
        let expected: &[Vec<u8>] = match &row.out {
            Out::Same => slice::from_ref(&row.packet),
            Out::Is(packet) => slice::from_ref(packet),
            Out::Any(packets) => packets,
            Out::HandedOver(device, packet) => {
                let told = [HAND_OVER, self.devices[device]].map(u32::to_ne_bytes);
                handed_over = [told.as_flattened(), packet].concat();
                slice::from_ref(&handed_over)
            }
            Out::Gone => &[],
        };
        if !expected.is_empty() && !expected.contains(&ran.packet) {
            let _ = write!(wrong, "{}", difference(&ran.packet, &expected[0]));
        }
        let expected: BTreeMap<Fate, u64> = row.fate.into_iter().map(|fate| (fate, 1)).collect();
        if counted != expected {
            let _ = writeln!(wrong, "  counted {counted:?}, not {expected:?}");
        }
        if wrong.is_empty() {
            if let Some(check) = &row.then {
                check(self);
            }
            return Ok(());
        }
        Err(format!("{}\n{wrong}", row.name()))
    }
}

/// The second of the clock that the programs look at.
fn second() -> u32 {
    let now = ClockId::CLOCK_MONOTONIC_COARSE.now().unwrap();
    lb_ebpf::whole_seconds(u64::try_from(Duration::from(now).as_nanos()).unwrap())
}

/// What was counted between two looks.
fn counted(before: &Fates, after: &Fates) -> BTreeMap<Fate, u64> {
    let more = after
        .packets
        .iter()
        .map(|(fate, count)| (*fate, count - before.packets[fate]));
    more.filter(|(_, count)| *count > 0).collect()
}

/// Where two packets differ, and both in hexadecimal.
fn difference(is: &[u8], should: &[u8]) -> String {
    let hex = |bytes: &[u8]| {
        let lines = bytes.chunks(16).enumerate().map(|(at, line)| {
            let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("    {:04x} {}\n", at * 16, line.join(" "))
        });
        lines.collect::<String>()
    };
    let at: Vec<usize> = (0..is.len().max(should.len()))
        .filter(|&at| is.get(at) != should.get(at))
        .collect();
    format!(
        "  {} bytes, not {}; they differ at {at:?}\n   is\n{}   should be\n{}",
        is.len(),
        should.len(),
        hex(is),
        hex(should)
    )
}
