//! Nanoseconds that the programs take for a packet, by runs that the kernel makes on request.
//!
//! A run does not feed on what the last one left: a program before it makes the packet anew. Each figure is net of an empty
//! program that is run in the same way in the same round, and is the median over the rounds. What is measured is made sure of:
//! each packet has to be counted under the fate that it should have, and the last verdict has to be right.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lb_common::packet::Fate;

use super::{
    Effort,
    card::{Balancer, Card, Instance, ROOM, STRANGER, TUNNEL, VIP, VIP6, ensure_fate, idle},
    feeder::{Feeder, PASS, TX, run},
    frame::{Segment, frame},
};
use crate::{ratios::there_and_back, statistics::median};

/// Medians of nanoseconds, and of ratios of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Costs {
    /// Indexed by [`Subject`]: each net of what it is run with.
    pub(super) net: [f64; SUBJECTS],
    pub(super) established_over_primitives: f64,
    pub(super) new_over_insert: f64,
    pub(super) new_tunnel_over_insert: f64,
}

impl Costs {
    pub(super) fn of(&self, subject: Subject) -> f64 {
        self.net[subject as usize]
    }
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// What a run costs by itself.
    Empty,
    /// One look-up of a VIP in a hash map.
    VipHash,
    /// One hit in the map of flows.
    LruHit,
    /// One look-up of a backend in an array.
    Array,
    /// Three counts for each CPU.
    PercpuAdds,
    /// All of these.
    Primitives,
    /// One insert of a new flow into a map that is full.
    Insert,
    /// What a run costs whose packet is made.
    FedEmpty,
    /// A packet of an established flow, full NAT.
    Established,
    /// The same by IPv6.
    Established6,
    /// The same in a tunnel.
    EstablishedTunnel,
    /// As [`Subject::Established`], of [`FLOWS`] flows in turn.
    ManyFlows,
    /// The first packet of a flow, full NAT.
    New,
    /// The same in a tunnel.
    NewTunnel,
    /// A packet for nobody of ours.
    NonVip,
}

/// How many subjects there are.
pub(super) const SUBJECTS: usize = 15;

/// Live flows where there are many.
pub(super) const FLOWS: u32 = 200_000;

impl Subject {
    pub(super) const ALL: [Self; SUBJECTS] = [
        Self::Empty,
        Self::VipHash,
        Self::LruHit,
        Self::Array,
        Self::PercpuAdds,
        Self::Primitives,
        Self::Insert,
        Self::FedEmpty,
        Self::Established,
        Self::Established6,
        Self::EstablishedTunnel,
        Self::ManyFlows,
        Self::New,
        Self::NewTunnel,
        Self::NonVip,
    ];

    /// What of a run is not the subject's own.
    fn base(self) -> Option<Self> {
        match self {
            Self::Empty => None,
            Self::Established
            | Self::Established6
            | Self::EstablishedTunnel
            | Self::ManyFlows
            | Self::New
            | Self::NewTunnel => Some(Self::FedEmpty),
            _ => Some(Self::Empty),
        }
    }

    /// Whether a run costs so much that fewer suffice, and leaves something behind.
    fn inserts(self) -> bool {
        matches!(self, Self::Insert | Self::New | Self::NewTunnel)
    }
}

/// Measures all subjects.
///
/// # Errors
/// When the kernel refuses, or a program does not do what is to be measured.
pub(super) fn measure(effort: &Effort) -> Result<Costs> {
    Card::new()?.enter(|| {
        let mut bench = Bench::new()?;
        let mut rounds = Vec::new();
        for number in 0..effort.cost_rounds {
            if number % 50 == 0 {
                eprintln!("    own times: round {number} of {}", effort.cost_rounds);
            }
            rounds.push(bench.round(number, effort)?);
        }
        Ok(costs(&rounds))
    })
}

/// What is run, and on what.
struct Bench {
    /// Finds what it looks for.
    hits: Feeder,
    /// Its map of flows is full.
    inserts: Feeder,
    feeder: Feeder,
    steady: Balancer,
    fresh: Balancer,
    /// Clients that had their first packet.
    began: u32,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut bench = Self {
            hits: Feeder::load()?,
            inserts: Feeder::load()?,
            feeder: Feeder::load()?,
            steady: Balancer::new(Instance::Steady)?,
            fresh: Balancer::new(Instance::Fresh)?,
            began: 0,
        };
        let looking = [
            "empty",
            "vip_hash",
            "lru_hit",
            "array",
            "percpu_adds",
            "primitives",
        ];
        for (number, name) in looking.into_iter().enumerate() {
            bench.hits.keep_at(name, &idle(number))?;
        }
        bench.inserts.keep_at("insert", &idle(looking.len()))?;
        bench.feeder.keep_at("feed", &idle(looking.len() + 1))?;
        for vip in [VIP, VIP6, TUNNEL] {
            let fate = match vip {
                TUNNEL => Fate::Tunnelled,
                _ => Fate::Full,
            };
            // The first of many flows is the one that is measured alone.
            let flows = if vip == VIP { FLOWS } else { 1 };
            for segment in [Segment::Syn, Segment::Ack] {
                bench.packets(vip, segment, flows, flows, fate)?;
            }
        }
        // Both maps of flows are as after a long time: whoever comes takes the place of another.
        bench.inserts.run("insert", ROOM + ROOM / 4)?;
        for _ in 0..5 {
            // Those in tunnels leave no answers' entries behind.
            bench.begin(TUNNEL, ROOM / 4)?;
        }
        Ok(bench)
    }

    /// One round: nanoseconds of each subject, gross, the mean of two slices.
    fn round(&mut self, number: usize, effort: &Effort) -> Result<[f64; SUBJECTS]> {
        let mut gross = [0.0; SUBJECTS];
        for subject in there_and_back(Subject::ALL.to_vec(), number) {
            let repeat = if subject.inserts() {
                effort.inserts
            } else {
                effort.runs
            };
            let each = self
                .slice(subject, repeat)
                .with_context(|| format!("{subject:?} cannot be measured"))?;
            gross[subject as usize] += each / 2.0;
        }
        Ok(gross)
    }

    fn slice(&mut self, subject: Subject, repeat: u32) -> Result<f64> {
        match subject {
            Subject::Empty => self.hits.run("empty", repeat),
            Subject::VipHash => self.hits.run("vip_hash", repeat),
            Subject::LruHit => self.hits.run("lru_hit", repeat),
            Subject::Array => self.hits.run("array", repeat),
            Subject::PercpuAdds => self.hits.run("percpu_adds", repeat),
            Subject::Primitives => self.hits.run("primitives", repeat),
            Subject::Insert => self.inserts.run("insert", repeat),
            Subject::FedEmpty => {
                let frame = frame(VIP, Segment::Ack);
                let empty = self.hits.program("empty")?.fd()?;
                self.feeder.serve(&frame, 0, 1, empty)?;
                let device = self.steady.device;
                Ok(self.feeder.feed(&frame, Some(device), repeat)?.each)
            }
            Subject::Established => self.packets(VIP, Segment::Ack, 1, repeat, Fate::Full),
            Subject::Established6 => self.packets(VIP6, Segment::Ack, 1, repeat, Fate::Full),
            Subject::EstablishedTunnel => {
                self.packets(TUNNEL, Segment::Ack, 1, repeat, Fate::Tunnelled)
            }
            Subject::ManyFlows => self.packets(VIP, Segment::Ack, FLOWS, repeat, Fate::Full),
            Subject::New => self.begin(VIP, repeat),
            Subject::NewTunnel => self.begin(TUNNEL, repeat),
            Subject::NonVip => {
                let frame = frame(STRANGER, Segment::Ack);
                let before = self.steady.fates()?;
                let device = self.steady.device;
                // Such a packet stays as it is.
                let ran = run(self.steady.xdp()?, &frame, Some(device), repeat)?;
                ensure!(ran.verdict == PASS, "the verdict is {}", ran.verdict);
                ensure_fate(&before, &self.steady.fates()?, None, repeat)?;
                Ok(ran.each)
            }
        }
    }

    /// Packets of so many flows in turn, whose fate has to be this one.
    fn packets(
        &mut self,
        vip: SocketAddr,
        segment: Segment,
        flows: u32,
        repeat: u32,
        fate: Fate,
    ) -> Result<f64> {
        let balancer = &mut self.steady;
        let frame = frame(vip, segment);
        self.feeder.serve(&frame, 0, flows, balancer.eater()?)?;
        fed(&self.feeder, balancer, &frame, repeat, fate)
    }

    /// First packets, each of another client.
    fn begin(&mut self, vip: SocketAddr, repeat: u32) -> Result<f64> {
        let balancer = &mut self.fresh;
        let frame = frame(vip, Segment::Syn);
        self.feeder
            .serve(&frame, self.began, 0, balancer.eater()?)?;
        self.began = self.began.wrapping_add(repeat);
        let fate = match vip {
            TUNNEL => Fate::Tunnelled,
            _ => Fate::Full,
        };
        let each = fed(&self.feeder, balancer, &frame, repeat, fate)?;
        balancer.forget_replies()?;
        Ok(each)
    }
}

/// Feeds packets to `balancer` and makes sure of what became of them.
///
/// # Errors
/// When the kernel refuses, or something else became of one.
pub(super) fn fed(
    feeder: &Feeder,
    balancer: &mut Balancer,
    frame: &[u8],
    repeat: u32,
    fate: Fate,
) -> Result<f64> {
    let before = balancer.fates()?;
    let ran = feeder.feed(frame, Some(balancer.device), repeat)?;
    ensure_fate(&before, &balancer.fates()?, Some(fate), repeat)?;
    ensure!(ran.verdict == TX, "the verdict is {}", ran.verdict);
    Ok(ran.each)
}

/// The medians over the rounds, of what is net within each. Pure.
fn costs(rounds: &[[f64; SUBJECTS]]) -> Costs {
    let net = |round: &[f64; SUBJECTS], subject: Subject| {
        let base = subject.base().map_or(0.0, |base| round[base as usize]);
        round[subject as usize] - base
    };
    let over_rounds = |figure: &dyn Fn(&[f64; SUBJECTS]) -> f64| {
        median(&rounds.iter().map(figure).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let ratio = |above, below| over_rounds(&|round| net(round, above) / net(round, below));
    Costs {
        net: Subject::ALL.map(|subject| over_rounds(&|round| net(round, subject))),
        established_over_primitives: ratio(Subject::Established, Subject::Primitives),
        new_over_insert: ratio(Subject::New, Subject::Insert),
        new_tunnel_over_insert: ratio(Subject::NewTunnel, Subject::Insert),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_net_of_the_empty_program_that_is_run_in_the_same_way() {
        let mut round = [0.0; SUBJECTS];
        for (subject, gross) in [
            (Subject::Empty, 10.0),
            (Subject::FedEmpty, 30.0),
            (Subject::Primitives, 60.0),
            (Subject::Established, 95.0),
            (Subject::Insert, 510.0),
            (Subject::New, 630.0),
            (Subject::NonVip, 25.0),
        ] {
            round[subject as usize] = gross;
        }
        let costs = costs(&[round, round, [1e9; SUBJECTS]]);
        assert_eq!(costs.of(Subject::Empty), 10.0);
        assert_eq!(costs.of(Subject::FedEmpty), 20.0);
        assert_eq!(costs.of(Subject::Primitives), 50.0);
        assert_eq!(costs.of(Subject::Established), 65.0);
        assert_eq!(costs.of(Subject::NonVip), 15.0);
        assert_eq!(costs.established_over_primitives, 1.3);
        assert_eq!(costs.new_over_insert, 1.2);
    }

    #[test]
    fn subjects_are_listed_in_the_order_of_their_integers() {
        for (index, subject) in Subject::ALL.into_iter().enumerate() {
            assert_eq!(subject as usize, index);
        }
    }
}
