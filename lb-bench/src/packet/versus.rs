//! Another build's program for cards beside this one's, on the same maps with the same flows, in turns: how long packets take now
//! over then.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, ProgramArray},
    programs::{ProgramFd, Xdp, XdpMode},
};
use lb_common::packet::{Fate, PACKET_VERSION, packet_map, step};
use lb_packet::pin_root;

use super::{
    card::{BPFFS, Balancer, Card, Instance, TUNNEL, VIP, VIP6, constants, idle},
    feeder::Feeder,
    frame::{Segment, frame},
    own::{FLOWS, fed},
};
use crate::{ratios::there_and_back, statistics::Interval};

/// Rounds, of two slices of either build for each kind of packet.
const ROUNDS: usize = 101;
/// Packets of a slice.
const REPEAT: u32 = 20_000;

/// Whose program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Before,
    Now,
}

/// A kind of packet.
#[derive(Clone, Copy)]
struct Kind {
    what: &'static str,
    vip: SocketAddr,
    segment: Segment,
    /// They are of so many flows in turn; 0: each is the first of its own.
    flows: u32,
    fate: Fate,
}

impl Kind {
    const fn of(
        what: &'static str,
        vip: SocketAddr,
        segment: Segment,
        flows: u32,
        fate: Fate,
    ) -> Self {
        Self {
            what,
            vip,
            segment,
            flows,
            fate,
        }
    }
}

const FULL4: &str = "an established flow, full NAT, IPv4";
const KINDS: [Kind; 6] = [
    Kind::of(FULL4, VIP, Segment::Ack, 1, Fate::Full),
    Kind::of("the same, IPv6", VIP6, Segment::Ack, 1, Fate::Full),
    Kind::of(
        "the same, in a tunnel",
        TUNNEL,
        Segment::Ack,
        1,
        Fate::Tunnelled,
    ),
    Kind::of(
        "200,000 flows in turn",
        VIP,
        Segment::Ack,
        FLOWS,
        Fate::Full,
    ),
    Kind::of("a new flow, full NAT", VIP, Segment::Syn, 0, Fate::Full),
    Kind::of(
        "the same new flow, in a tunnel",
        TUNNEL,
        Segment::Syn,
        0,
        Fate::Tunnelled,
    ),
];

/// Times of each kind of packet now over those with the object `before`.
///
/// # Errors
/// When the kernel refuses, the other build has other maps, or one does not do what is to be measured.
pub(crate) fn versus(before: &[u8]) -> Result<Vec<(&'static str, Interval)>> {
    compare(before, ROUNDS, REPEAT)
}

fn compare(before: &[u8], rounds: usize, repeat: u32) -> Result<Vec<(&'static str, Interval)>> {
    Card::new()?.enter(|| {
        let mut feeder = Feeder::load()?;
        feeder.keep_at("feed", &idle(0))?;
        let mut pairs = [
            Pair::new(before, Instance::Steady, &idle(1))?,
            Pair::new(before, Instance::Fresh, &idle(2))?,
        ];
        // The first of many flows is the one that is measured alone.
        for kind in [KINDS[1], KINDS[2], KINDS[3]] {
            for segment in [Segment::Syn, Segment::Ack] {
                let kind = Kind { segment, ..kind };
                pairs[0].slice(&mut feeder, Build::Now, kind, kind.flows)?;
            }
        }
        let mut found = Vec::new();
        for kind in KINDS {
            let what = kind.what;
            let pair = &mut pairs[usize::from(kind.flows == 0)];
            let mut ratios = Vec::new();
            for number in 0..rounds {
                let mut times = [0.0; 2];
                for build in there_and_back(vec![Build::Before, Build::Now], number) {
                    let each = pair.slice(&mut feeder, build, kind, repeat);
                    let each = each.with_context(|| format!("{what}, {build:?}"))?;
                    times[build as usize] += each;
                }
                ratios.push(times[Build::Now as usize] / times[Build::Before as usize]);
            }
            let ratio = Interval::of(&ratios).context("there was no round")?;
            found.push((what, ratio));
        }
        Ok(found)
    })
}

/// This build's programs, and the other one's on the same maps.
struct Pair {
    now: Balancer,
    before: Ebpf,
    /// Clients that had their first packet.
    began: u32,
}

impl Pair {
    fn new(object: &[u8], instance: Instance, idle: &str) -> Result<Self> {
        let now = Balancer::new(instance)?;
        let pins = pin_root(&Path::new(BPFFS).join(instance.device()));
        let pins = pins.join(format!("v{PACKET_VERSION}"));
        let mut before = beside(object, &pins, instance)?;
        // The kernel changes its own code at each test run of a program that no device has.
        let program: &mut Xdp = before
            .program_mut(CARD)
            .context("the base has no program for cards")?
            .try_into()?;
        program.attach(idle, XdpMode::Skb)?;
        Ok(Self {
            now,
            before,
            began: 0,
        })
    }

    /// Nanoseconds of each of these packets.
    fn slice(&mut self, feeder: &mut Feeder, build: Build, kind: Kind, repeat: u32) -> Result<f64> {
        let Kind { flows, fate, .. } = kind;
        let frame = frame(kind.vip, kind.segment);
        let eater: &ProgramFd = match build {
            Build::Now => self.now.eater()?,
            Build::Before => {
                let program = self.before.program(CARD);
                let program: &Xdp = program
                    .context("the base has no program for cards")?
                    .try_into()?;
                program.fd()?
            }
        };
        let first = if flows == 0 { self.began } else { 0 };
        feeder.serve(&frame, first, flows, eater)?;
        let each = fed(feeder, &mut self.now, &frame, repeat, fate)?;
        if flows == 0 {
            self.began = self.began.wrapping_add(repeat);
            self.now.forget_replies()?;
        }
        Ok(each)
    }
}

const CARD: &str = "xdp_card";

/// Loads the programs of another build for cards, with the maps that are pinned in this folder.
fn beside(object: &[u8], pins: &Path, instance: Instance) -> Result<Ebpf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(pins).with_context(|| format!("cannot read {}", pins.display()))? {
        let name = entry?.file_name().into_string();
        let name = name.ok().context("a pin has no plain name")?;
        // Each build goes on with programs of its own.
        if name != packet_map::STEPS {
            names.push(name);
        }
    }
    let constants = constants(instance);
    let load = |folder: &Path| -> Result<Ebpf> {
        let mut loader = EbpfLoader::new();
        for (name, value) in &constants {
            loader.override_global(name, value, false);
        }
        for name in &names {
            loader.map_pin_path(name, folder.join(name));
        }
        loader
            .load(object)
            .context("the base's object does not load")
    };
    // aya opens a pin without a look at it. So this build's are compared with what the base would have made.
    let own = pins.join("base");
    fs::create_dir(&own).with_context(|| format!("cannot make {}", own.display()))?;
    drop(load(&own)?);
    for name in &names {
        if !own.join(name).exists() {
            continue;
        }
        let [theirs, ours] = [own.join(name), pins.join(name)].map(MapInfo::from_pin);
        let (theirs, ours) = (theirs?, ours?);
        let form = |it: &MapInfo| {
            Ok::<_, aya::maps::MapError>((it.map_type()?, it.key_size(), it.value_size()))
        };
        ensure!(
            form(&theirs)? == form(&ours)?,
            "the map {name} has another form than in the base"
        );
    }
    fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
    let mut ebpf = load(pins)?;
    for name in [&[CARD][..], &step::PROGRAMS].concat() {
        let Some(program) = ebpf.program_mut(name) else {
            continue;
        };
        let program: &mut Xdp = program.try_into()?;
        program
            .load()
            .with_context(|| format!("cannot load the base's {name}"))?;
    }
    for (at, name) in (0..).zip(step::PROGRAMS) {
        let Some(program) = ebpf.program(name) else {
            continue;
        };
        let program: &Xdp = program.try_into()?;
        let program = program.fd()?.try_clone()?;
        let Some(steps) = ebpf.map_mut(packet_map::STEPS) else {
            continue;
        };
        ProgramArray::try_from(steps)?.set(at, &program, 0)?;
    }
    Ok(ebpf)
}

#[cfg(test)]
mod tests {
    use super::*;

    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/packet"));

    #[test]
    fn a_build_beside_itself_serves_the_same_flows() {
        let found = compare(OBJECT, 3, 1000).unwrap();
        assert_eq!(found.len(), KINDS.len());
        for (what, ratio) in found {
            assert!(
                ratio.low > 0.0 && ratio.low <= ratio.high,
                "{what}: {ratio:?}"
            );
        }
    }
}
