//! Runs rows: one sentence each, a packet in, a verdict, a packet out, and the fate that is counted.
//!
//! A row begins with the scene as `scene.rs` has it and without flows. What it needs beyond that it says itself: changes of what is
//! desired, and packets that came before. Exactly one fate must be counted, or none.

pub(crate) mod frame;
pub(crate) mod scene;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::HashMap,
    programs::{Program, TestRun as _, TestRunOptions},
};
use lb_common::{
    Be16, FlowHash,
    packet::{
        Fate, Flow, FlowKey4, FlowKey6, HAND_OVER, Reply, ReplyKey4, ReplyKey6, SAMPLE_BYTES,
        packet_map,
    },
};
pub(crate) use lb_packet::Desired;
use lb_packet::{Fates, Figures, Filter, Flows, Packet, Programs, Publisher, Samples};

use nix::time::ClockId;

pub(crate) use frame::{ACK, Body, FIN, Frame, RST, SYN};
pub(crate) use scene::{
    CARD, CARD2, CLIENT, CLIENT_DEVICE, Family, V4, V6, key, neighbour, solicitation, vip,
};

/// What a program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the stack: `XDP_PASS`, `TC_ACT_OK` or `TC_ACT_UNSPEC`.
    Pass,
    /// `XDP_DROP` or `TC_ACT_SHOT`.
    Drop,
    /// Out of the device that it came by: `XDP_TX`.
    Tx,
    /// Out of some device: `XDP_REDIRECT` or `TC_ACT_REDIRECT`.
    Redirect,
}

pub(crate) use Verdict::{Drop, Pass, Redirect, Tx};

/// What the packet has to be then.
pub(crate) enum Out {
    /// As it came.
    Same,
    /// This one, byte by byte.
    Is(Vec<u8>),
    /// One of these: where the choice is by a hash that the row does not foretell.
    Any(Vec<Vec<u8>>),
    /// This one, handed over to `tc_card_in` to leave by a device.
    HandedOver(&'static str, Vec<u8>),
    /// It is gone.
    Gone,
}

/// How often a row is played that has to happen within one second: it takes milliseconds.
const TRIES: usize = 20;

/// As much metadata as there is room for: 256 bytes, less what the kernel keeps there of a frame (`struct xdp_frame`).
const ROOM: usize = 216;

type Change = Box<dyn Fn(&mut Desired)>;
type Then = Box<dyn Fn(&mut World)>;

/// One step before the packet of a row.
enum Given {
    Desired(Change),
    Packet(&'static str, Vec<u8>),
    Do(Then),
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) says: String,
    pub(crate) program: &'static str,
    pub(crate) family: Family,
    given: Vec<Given>,
    packet: Vec<u8>,
    /// Bytes of metadata that it comes with.
    metadata: usize,
    /// Whether something has to be waited for.
    pub(crate) waits: bool,
    /// Whether all of it has to happen within one second of the programs' clock.
    at_once: bool,
    verdict: Verdict,
    out: Out,
    pub(crate) fate: Option<Fate>,
    then: Option<Then>,
}

/// Begins a row about a program. Its packet follows by [`Row::takes`].
pub(crate) fn row(program: &'static str, family: Family, says: impl Into<String>) -> Row {
    Row {
        says: says.into(),
        program,
        family,
        given: Vec::new(),
        packet: Vec::new(),
        metadata: 0,
        waits: false,
        at_once: false,
        verdict: Pass,
        out: Out::Same,
        fate: None,
        then: None,
    }
}

#[expect(clippy::wrong_self_convention, reason = "a row reads as a sentence")]
impl Row {
    /// What it is called when it does not hold.
    fn name(&self) -> String {
        format!("{}, {}: {}", self.program, self.family.as_str(), self.says)
    }

    /// What is desired is changed for this row.
    pub(crate) fn desired(mut self, change: impl Fn(&mut Desired) + 'static) -> Self {
        self.given.push(Given::Desired(Box::new(change)));
        self
    }

    /// Anything else that is so before the packet comes.
    pub(crate) fn given(mut self, job: impl Fn(&mut World) + 'static) -> Self {
        self.given.push(Given::Do(Box::new(job)));
        self
    }

    /// A packet that the same program saw before.
    pub(crate) fn after(self, frame: &Frame) -> Self {
        let program = self.program;
        self.after_by(program, frame)
    }

    /// A packet that another program saw before.
    pub(crate) fn after_by(mut self, program: &'static str, frame: &Frame) -> Self {
        self.given.push(Given::Packet(program, frame.bytes()));
        self
    }

    /// The packet.
    pub(crate) fn takes(self, frame: &Frame) -> Self {
        self.takes_bytes(frame.bytes())
    }

    /// The packet, if no frame can be meant like this.
    pub(crate) fn takes_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.packet = bytes;
        self
    }

    /// There is no room before the packet, neither for metadata nor for another head, as with some drivers.
    pub(crate) fn without_room(mut self) -> Self {
        self.metadata = ROOM;
        self
    }

    /// Backends that nobody desires any more are out of the maps.
    pub(crate) fn settled(mut self) -> Self {
        self.waits = true;
        self.given(World::settle)
    }

    /// All of it happens within one second, which flows are counted for.
    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// It is passed as it came, and counts for nothing: none of ours.
    pub(crate) fn is_not_ours(self) -> Self {
        self
    }

    /// It is passed as it came.
    pub(crate) fn is_passed(mut self, fate: Fate) -> Self {
        self.fate = Some(fate);
        self
    }

    /// It becomes another one.
    pub(crate) fn becomes(mut self, verdict: Verdict, frame: &Frame, fate: Fate) -> Self {
        (self.verdict, self.out, self.fate) = (verdict, Out::Is(frame.bytes()), Some(fate));
        self
    }

    /// It becomes one of these.
    pub(crate) fn becomes_one_of(mut self, verdict: Verdict, frames: &[Frame], fate: Fate) -> Self {
        let frames = frames.iter().map(Frame::bytes).collect();
        (self.verdict, self.out, self.fate) = (verdict, Out::Any(frames), Some(fate));
        self
    }

    /// It becomes these bytes.
    pub(crate) fn becomes_bytes(mut self, verdict: Verdict, bytes: Vec<u8>, fate: Fate) -> Self {
        (self.verdict, self.out, self.fate) = (verdict, Out::Is(bytes), Some(fate));
        self
    }

    /// It becomes another one, which the stack is to send by a device.
    pub(crate) fn is_handed_over(mut self, device: &'static str, frame: &Frame) -> Self {
        (self.verdict, self.out) = (Pass, Out::HandedOver(device, frame.bytes()));
        self.fate = Some(Fate::Stack);
        self
    }

    /// It is dropped.
    pub(crate) fn is_dropped(mut self, fate: Fate) -> Self {
        (self.verdict, self.out, self.fate) = (Drop, Out::Gone, Some(fate));
        self
    }

    /// What else must be so then; panics if it is not.
    pub(crate) fn then(mut self, check: impl Fn(&mut World) + 'static) -> Self {
        self.then = Some(Box::new(check));
        self
    }
}

/// The programs, loaded and told the scene. Lives in the host's namespace.
pub(crate) struct World {
    pub(crate) programs: Programs,
    pub(crate) publisher: Publisher,
    pub(crate) flows: Flows,
    pub(crate) figures: Figures,
    pub(crate) samples: Samples,
    pub(crate) devices: BTreeMap<&'static str, u32>,
    /// What is desired when a row begins, and now.
    scene: Desired,
    desired: Desired,
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) verdict: Result<Verdict, u32>,
    pub(crate) packet: Vec<u8>,
}

impl World {
    /// Loads the programs and tells them the scene.
    pub(crate) fn new(bpffs: &std::path::Path, devices: BTreeMap<&'static str, u32>) -> Self {
        let mut programs = Programs::load(&scene::config(bpffs))
            .unwrap_or_else(|error| panic!("{}", told(&error)));
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
    fn device(&self, program: &str) -> u32 {
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
        let device = self.device(program);
        let mut packet = frame.bytes();
        let length = u32::try_from(packet.len()).unwrap();
        for _ in 0..count {
            next(&mut packet);
            let ran = match self.programs.ebpf().program(program) {
                Some(Program::Xdp(xdp)) => xdp.test_run(TestRunOptions {
                    data_in: Some(&packet),
                    ctx_in: Some(&words(&[0, length, 0, device, 0, 0])),
                    ..TestRunOptions::default()
                }),
                Some(Program::SchedClassifier(classifier)) => classifier.test_run(TestRunOptions {
                    data_in: Some(&packet),
                    ctx_in: Some(&words(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, device])),
                    ..TestRunOptions::default()
                }),
                _ => panic!("the object has no program {program}"),
            };
            ran.unwrap();
        }
    }

    /// Runs a program with a packet that came by the device that it is for.
    pub(crate) fn run(&mut self, program: &'static str, packet: &[u8]) -> Ran {
        self.run_with(program, packet, 0)
    }

    /// The same for a packet that comes with so many bytes of metadata, all zero; for XDP only.
    fn run_with(&mut self, program: &'static str, packet: &[u8], metadata: usize) -> Ran {
        let device = self.device(program);
        let packet = [&vec![0; metadata], packet].concat();
        let length = u32::try_from(packet.len()).unwrap();
        let metadata = u32::try_from(metadata).unwrap();
        let mut out = vec![0; 4096];
        let (result, tc) = match self.programs.ebpf().program(program) {
            Some(Program::Xdp(xdp)) => {
                // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
                let context = words(&[metadata, length, 0, device, 0, 0]);
                (xdp.test_run(options(&packet, &mut out, &context)), false)
            }
            Some(Program::SchedClassifier(classifier)) => {
                // `struct __sk_buff` up to ifindex, the eleventh word.
                let context = words(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, device]);
                (
                    classifier.test_run(options(&packet, &mut out, &context)),
                    true,
                )
            }
            _ => panic!("the object has no program {program}"),
        };
        let result = result.unwrap_or_else(|error| panic!("{program}: {}", told(&error)));
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        // What it came with lies before it.
        out.drain(..usize::try_from(metadata).unwrap().min(out.len()));
        let verdict = match (tc, result.return_value) {
            (false, 1) | (true, 2) => Ok(Drop),
            (false, 2) | (true, 0 | u32::MAX) => Ok(Pass),
            (false, 3) => Ok(Tx),
            (false, 4) | (true, 7) => Ok(Redirect),
            (_, other) => Err(other),
        };
        Ran {
            verdict,
            packet: out,
        }
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

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.programs.ebpf().map_mut(name).unwrap()
    }

    /// What is desired now.
    pub(crate) fn apply(&mut self, change: impl Fn(&mut Desired)) {
        change(&mut self.desired);
        self.publisher.apply(&self.desired).unwrap();
    }

    /// Publishes until nothing is left to be done: backends that nobody names any more are taken out a while later.
    fn settle(&mut self) {
        let limit = Instant::now() + Duration::from_secs(10);
        while let Some(again) = self.publisher.apply(&self.desired).unwrap().again {
            assert!(again < limit, "backends are not taken out");
            std::thread::sleep(again.saturating_duration_since(Instant::now()));
        }
    }

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
            Out::Same => std::slice::from_ref(&row.packet),
            Out::Is(packet) => std::slice::from_ref(packet),
            Out::Any(packets) => packets,
            Out::HandedOver(device, packet) => {
                let told = [HAND_OVER, self.devices[device]].map(u32::to_ne_bytes);
                handed_over = [told.as_flattened(), packet].concat();
                std::slice::from_ref(&handed_over)
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

fn keys<K: Pod, V: Pod>(map: &mut aya::maps::Map) -> Vec<K> {
    let map = HashMap::<_, K, V>::try_from(map).unwrap();
    map.keys().map(Result::unwrap).collect()
}

/// Takes all out of a map, and answers how many there were.
fn empty<K: Pod, V: Pod>(map: &mut aya::maps::Map) -> usize {
    let all = keys::<K, V>(map);
    let mut map = HashMap::<_, K, V>::try_from(map).unwrap();
    for key in &all {
        map.remove(key).unwrap();
    }
    all.len()
}

/// What was counted between two looks.
fn counted(before: &Fates, after: &Fates) -> BTreeMap<Fate, u64> {
    let more = after
        .packets
        .iter()
        .map(|(fate, count)| (*fate, count - before.packets[fate]));
    more.filter(|(_, count)| *count > 0).collect()
}

fn options<'a>(packet: &'a [u8], out: &'a mut [u8], context: &'a [u8]) -> TestRunOptions<'a> {
    TestRunOptions {
        data_in: Some(packet),
        data_out: Some(out),
        ctx_in: Some(context),
        ..TestRunOptions::default()
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
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

/// An error and what it came from.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _ = write!(text, ": {error}");
        next = error.source();
    }
    text
}

/// The hash that the programs draw a flow's slot and ports from.
pub(crate) fn hash(frame: &Frame, number: u8) -> FlowHash {
    use lb_common::{Be32, flow_hash4, flow_hash6};
    let vip = Be32::from_host(scene::vip4(number).into());
    let (client, to, proto) = match &frame.ip.body {
        Body::Tcp {
            source,
            destination,
            ..
        } => (*source, *destination, 6),
        Body::Udp {
            source,
            destination,
            ..
        } => (*source, *destination, 17),
        _ => panic!("only TCP and UDP have flows"),
    };
    let (client, to) = (Be16::from_host(client), Be16::from_host(to));
    match frame.ip.source {
        std::net::IpAddr::V4(address) => {
            flow_hash4(Be32::from_host(address.into()), client, vip, to, proto)
        }
        std::net::IpAddr::V6(address) => {
            let words = address.octets();
            let word = |at: usize| u32::from_ne_bytes(words[at..at + 4].try_into().unwrap());
            flow_hash6(
                [word(0), word(4), word(8), word(12)],
                client,
                vip,
                to,
                proto,
            )
        }
    }
}

/// The port that full NAT gives the flow of this frame to the VIP number `number`, after so many that were taken.
pub(crate) fn pool_port(frame: &Frame, number: u8, taken: u32) -> u16 {
    let ports = lb_ebpf::packet::Ports {
        first: *scene::PORTS.start(),
        count: u16::try_from(scene::PORTS.len()).unwrap(),
    };
    ports.probe(hash(frame, number), taken).host()
}
