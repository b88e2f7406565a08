//! The programs in a scene, and packets to them.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::{HashMap, Map},
    programs::{Program, TestRun as _, TestRunOptions, TestRunResult},
};
use lb_common::packet::{Flow, FlowKey4, FlowKey6, Reply, ReplyKey4, ReplyKey6, packet_map};
use lb_packet::{Figures, Flows, Programs, Publisher, Samples};
use lb_testkit::chain;

use super::{CLIENT, CLIENT_DEVICE, Desired, Family, Frame, V4, Verdict, scene, vip};

/// The programs, loaded and told the scene. Lives in the host's namespace.
pub(crate) struct World {
    pub(crate) programs: Programs,
    pub(crate) publisher: Publisher,
    pub(crate) flows: Flows,
    pub(crate) figures: Figures,
    pub(crate) samples: Samples,
    pub(crate) devices: BTreeMap<&'static str, u32>,
    /// What is desired when a row begins, and now.
    pub(super) scene: Desired,
    pub(super) desired: Desired,
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) verdict: Result<Verdict, u32>,
    pub(crate) packet: Vec<u8>,
}

impl World {
    /// Loads the programs and tells them the scene.
    pub(crate) fn new(bpffs: &Path, devices: BTreeMap<&'static str, u32>) -> Self {
        let mut programs = Programs::load(&scene::config(bpffs))
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        for card in ["card", "card2"] {
            programs.tell_card(card, devices[card]).unwrap();
        }
        let mut publisher = Publisher::open(&mut programs).unwrap();
        let desired = scene::desired();
        let report = publisher.apply(&desired).unwrap();
        assert_eq!(report.refused, [], "the scene fits");
        Self {
            flows: Flows::open(&mut programs).unwrap(),
            figures: Figures::open(&mut programs).unwrap(),
            samples: Samples::open(&mut programs).unwrap(),
            programs,
            publisher,
            devices,
            scene: desired.clone(),
            desired,
        }
    }

    /// The device that a program is for.
    pub(super) fn device(&self, program: &str) -> u32 {
        let client = program.contains("client");
        self.devices[if client { "client" } else { "card" }]
    }

    /// Runs a program with very many packets, one after the other, of which `next` makes each from the one before. What becomes of
    /// them is only counted.
    pub(crate) fn pour(
        &mut self,
        program: &'static str,
        frame: &Frame,
        count: usize,
        mut next: impl FnMut(&mut [u8]),
    ) {
        let mut packet = frame.bytes();
        for _ in 0..count {
            next(&mut packet);
            self.test(program, &packet, 0, None);
        }
    }

    /// Runs a program with a packet that came by the device that it is for.
    pub(crate) fn run(&mut self, program: &'static str, packet: &[u8]) -> Ran {
        self.run_with(program, packet, 0)
    }

    /// The same for a packet that comes with so many bytes of metadata, all zero; for XDP only.
    pub(super) fn run_with(
        &mut self,
        program: &'static str,
        packet: &[u8],
        metadata: usize,
    ) -> Ran {
        let packet = [&vec![0; metadata], packet].concat();
        let mut out = vec![0; 4096];
        let (tc, result) = self.test(program, &packet, metadata, Some(&mut out));
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        // What it came with lies before it.
        out.drain(..metadata.min(out.len()));
        let verdict = match (tc, result.return_value) {
            (false, 1) | (true, 2) => Ok(Verdict::Drop),
            (false, 2) | (true, 0 | u32::MAX) => Ok(Verdict::Pass),
            (false, 3) => Ok(Verdict::Tx),
            (false, 4) | (true, 7) => Ok(Verdict::Redirect),
            (_, other) => Err(other),
        };
        Ran {
            verdict,
            packet: out,
        }
    }

    /// Runs a program once. Answers whether it is one of tc, and what the kernel says.
    fn test(
        &mut self,
        program: &'static str,
        packet: &[u8],
        metadata: usize,
        out: Option<&mut [u8]>,
    ) -> (bool, TestRunResult) {
        let device = self.device(program);
        let [metadata, length] = [metadata, packet.len()].map(|it| u32::try_from(it).unwrap());
        let options = |context| TestRunOptions {
            data_in: Some(packet),
            data_out: out,
            ctx_in: Some(context),
            ..TestRunOptions::default()
        };
        let (tc, result) = match self.programs.ebpf().program(program) {
            Some(Program::Xdp(xdp)) => {
                // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
                let context = words(&[metadata, length, 0, device, 0, 0]);
                (false, xdp.test_run(options(&context)))
            }
            Some(Program::SchedClassifier(classifier)) => {
                // `struct __sk_buff` up to ifindex, the eleventh word.
                let context = words(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, device]);
                (true, classifier.test_run(options(&context)))
            }
            _ => panic!("the object has no program {program}"),
        };
        let result = result.unwrap_or_else(|error| panic!("{program}: {}", chain(&error)));
        (tc, result)
    }

    /// Takes all flows out, and leaves their answers.
    pub(crate) fn forget_flows(&mut self) {
        empty::<FlowKey4, Flow>(self.map(packet_map::FLOWS4));
        empty::<FlowKey6, Flow>(self.map(packet_map::FLOWS6));
    }

    /// Takes the answers of all flows out, and answers how many there were.
    pub(crate) fn forget_answers(&mut self) -> usize {
        empty::<ReplyKey4, Reply>(self.map(packet_map::REPLIES4))
            + empty::<ReplyKey6, Reply>(self.map(packet_map::REPLIES6))
    }

    /// Fills the map of the flows' answers up, with those of a client on this host.
    pub(crate) fn fill(&mut self, family: Family) {
        let room = usize::try_from(scene::LIMITS.flows).unwrap();
        let left = room - self.answers();
        let client = (family.ip("10.77.0.2"), 0);
        let syn = Frame::tcp(client, (family.vip(vip::THREE), 80)).macs(CLIENT_DEVICE, CLIENT);
        // Where its port is.
        let at = if family == V4 { 34 } else { 54 };
        // Beyond those of rows.
        let mut port = 10_000;
        self.pour("tc_client_in", &syn, left, |packet| {
            port += 1;
            packet[at..at + 2].copy_from_slice(&u16::to_be_bytes(port));
        });
        assert_eq!(self.answers(), room, "it is full");
    }

    /// How many flows have answers.
    pub(crate) fn answers(&mut self) -> usize {
        keys::<ReplyKey4, Reply>(self.map(packet_map::REPLIES4)).len()
            + keys::<ReplyKey6, Reply>(self.map(packet_map::REPLIES6)).len()
    }

    fn map(&mut self, name: &str) -> &mut Map {
        self.programs.ebpf().map_mut(name).unwrap()
    }

    /// What is desired now.
    pub(crate) fn apply(&mut self, change: impl Fn(&mut Desired)) {
        change(&mut self.desired);
        self.publisher.apply(&self.desired).unwrap();
    }

    /// Publishes until nothing is left to be done: backends that nobody names any more are taken out a while later.
    pub(super) fn settle(&mut self) {
        let limit = Instant::now() + Duration::from_secs(10);
        while let Some(again) = self.publisher.apply(&self.desired).unwrap().again {
            assert!(again < limit, "backends are not taken out");
            std::thread::sleep(again.saturating_duration_since(Instant::now()));
        }
    }
}

fn keys<K: Pod, V: Pod>(map: &mut Map) -> Vec<K> {
    let map = HashMap::<_, K, V>::try_from(map).unwrap();
    map.keys().map(Result::unwrap).collect()
}

/// Takes all out of a map, and answers how many there were.
fn empty<K: Pod, V: Pod>(map: &mut Map) -> usize {
    let all = keys::<K, V>(map);
    let mut map = HashMap::<_, K, V>::try_from(map).unwrap();
    for key in &all {
        map.remove(key).unwrap();
    }
    all.len()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
