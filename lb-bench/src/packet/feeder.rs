//! The programs of the bench itself, run by the kernel as often as asked for (`BPF_PROG_TEST_RUN`), and the time that took.
//!
//! The kernel's own figure is in whole nanoseconds, so the clock is read here. One call is a fraction of a second at most.
//!
//! For a program that no device has, the kernel puts a jump to it into its own code for each call, and takes it out again: tens
//! of milliseconds. So each program is attached to a device that is down, and never runs there.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions, include_bytes_aligned,
    maps::{Array, HashMap, ProgramArray},
    programs::{ProgramFd, Xdp, XdpMode},
};
use lb_common::{
    Be16, Be32, PROTO_TCP,
    packet::{Endpoint, EndpointKey, Flow, FlowKey4, Target},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench_packet"));

/// What XDP programs answer.
pub(super) const ABORTED: u32 = 0;
pub(super) const DROP: u32 = 1;
pub(super) const PASS: u32 = 2;
pub(super) const TX: u32 = 3;

/// One instance of the bench's object, with maps of its own.
pub(super) struct Feeder {
    object: Ebpf,
}

/// What a call was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ran {
    /// Nanoseconds of each run.
    pub(super) each: f64,
    /// What the last run answered.
    pub(super) verdict: u32,
}

impl Feeder {
    /// Loads the programs, with what the primitives look for in their maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn load() -> Result<Self> {
        let mut object = Ebpf::load(OBJECT)?;
        for (name, program) in object.programs_mut() {
            let program: &mut Xdp = program
                .try_into()
                .with_context(|| format!("the program {name} is not for XDP"))?;
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
        }
        let mut feeder = Self { object };
        let service = Endpoint {
            service: 1,
            ..Endpoint::default()
        };
        let vip = Be32::from_raw(u32::from_ne_bytes([198, 18, 0, 2]));
        let port = Be16::from_host(80);
        let key = EndpointKey {
            vip,
            port,
            proto: PROTO_TCP,
            scope: 0,
        };
        let mut endpoints: HashMap<_, EndpointKey, Endpoint> = feeder.map("BENCH_ENDPOINTS")?;
        endpoints.insert(key, service, 0)?;
        let flow = Flow {
            backend: 2,
            ..Flow::default()
        };
        let client = FlowKey4::new(
            Be32::from_raw(0),
            Be16::from_host(1024),
            vip,
            port,
            PROTO_TCP,
        );
        let mut flows: HashMap<_, FlowKey4, Flow> = feeder.map("BENCH_FLOWS")?;
        flows.insert(client, flow, 0)?;
        let target = Target {
            port,
            ..Target::default()
        };
        let mut targets: Array<_, Target> = feeder.map("BENCH_TARGETS")?;
        targets.set(2, target, 0)?;
        Ok(feeder)
    }

    /// Attaches one of the programs to a device, which should be down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn keep_at(&mut self, name: &str, device: &str) -> Result<()> {
        let program = self.object.program_mut(name);
        let program = program.with_context(|| format!("the bench has no program {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        let attached = program.attach(device, XdpMode::Skb);
        attached.with_context(|| format!("cannot attach {name} to {device}"))?;
        Ok(())
    }

    /// Runs one of the programs, on nothing in particular.
    ///
    /// # Errors
    /// When the kernel refuses, or the program found something missing.
    pub(super) fn run(&self, name: &str, repeat: u32) -> Result<f64> {
        let ran = run(self.program(name)?, &[0; 64], None, repeat)?;
        ensure!(ran.verdict == DROP, "{name} answered {}", ran.verdict);
        Ok(ran.each)
    }

    /// Lets packets like `frame` be fed to `eater` from now on, the first of them of client number `first`. After `period` of them
    /// the clients come again, from number 0 on; with 0, never.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn serve(
        &mut self,
        frame: &[u8],
        first: u32,
        period: u32,
        eater: &ProgramFd,
    ) -> Result<()> {
        let mut words = [0_u64; 8];
        for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let mut frames: Array<_, [u64; 8]> = self.map("FRAME")?;
        frames.set(0, words, 0)?;
        let mut varieties: Array<_, [u32; 4]> = self.map("VARIETY")?;
        // The next number, the period, the length, and how many were made.
        varieties.set(0, [first, period, u32::try_from(frame.len())?, 0], 0)?;
        let mut eaters: ProgramArray<_> = self.map("EATER")?;
        eaters.set(0, eater, 0).context("cannot feed the program")
    }

    /// Feeds as many packets. They come by the device of this index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn feed(&self, frame: &[u8], device: Option<u32>, repeat: u32) -> Result<Ran> {
        let ran = run(self.program("feed")?, frame, device, repeat)?;
        ensure!(ran.verdict != ABORTED, "a packet could not be made");
        Ok(ran)
    }

    /// The program of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.object.program(name);
        let program = program.with_context(|| format!("the bench has no program {name}"))?;
        Ok(program.try_into()?)
    }

    fn map<'a, M>(&'a mut self, name: &str) -> Result<M>
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        let map = self.object.map_mut(name);
        let map = map.with_context(|| format!("the bench has no map {name}"))?;
        Ok(map.try_into()?)
    }
}

/// Runs `program` as often, each time on what the run before left of `frame`.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn run(program: &Xdp, frame: &[u8], device: Option<u32>, repeat: u32) -> Result<Ran> {
    // `struct xdp_md`: data, its end, metadata, the device that the packet came by, its queue, the device it leaves by.
    let mut context = [0_u8; 24];
    let length = u32::try_from(frame.len())?;
    context[4..8].copy_from_slice(&length.to_ne_bytes());
    if let Some(device) = device {
        context[12..16].copy_from_slice(&device.to_ne_bytes());
    }
    let start = Instant::now();
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        repeat,
        ..TestRunOptions::default()
    })?;
    let elapsed = start.elapsed();
    Ok(Ran {
        each: elapsed.as_secs_f64() * 1e9 / f64::from(repeat),
        verdict: result.return_value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::frame::{CLIENTS, Segment, frame};

    #[test]
    fn primitives_find_what_they_look_for() {
        let feeder = Feeder::load().unwrap();
        for name in [
            "empty",
            "vip_hash",
            "lru_hit",
            "array",
            "percpu_adds",
            "primitives",
            "insert",
        ] {
            let each = feeder.run(name, 10).unwrap();
            assert!(each > 0.0, "{name}");
        }
    }

    #[test]
    fn each_packet_is_made_anew_with_the_number_of_its_client() {
        let mut feeder = Feeder::load().unwrap();
        let vip = "198.18.0.2:80".parse().unwrap();
        let frame = frame(vip, Segment::Syn);
        let empty = feeder.program("empty").unwrap().fd().unwrap();
        let empty = empty.try_clone().unwrap();
        feeder.serve(&frame, 0x01_0203, 0, &empty).unwrap();
        // As if the program before had spoiled all of it.
        let spoiled = vec![0xff; frame.len()];
        let mut made = vec![0; frame.len()];
        let ran = feeder.program("feed").unwrap().test_run(TestRunOptions {
            data_in: Some(&spoiled),
            data_out: Some(&mut made),
            repeat: 3,
            ..TestRunOptions::default()
        });
        assert_eq!(ran.unwrap().return_value, DROP);
        assert_eq!(made[26..30], [CLIENTS.octets()[0], 0x05, 0x02, 0x01]);
        assert_eq!(made[..26], frame[..26]);
        assert_eq!(made[30..64], frame[30..64]);
    }
}
