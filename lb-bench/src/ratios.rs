//! How fast the balanced way is against the direct one.
//!
//! Single figures of these machines spread by half. So the variants take turns for a moment each, in an order that
//! cancels drift, and only ratios within one such round count. One variant is the direct way once more: what its
//! ratio is off from 1 is the noise that is left.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    Effort,
    client::{self, Asker, Turns},
    rivals,
    server::{Kind, Network, Place, backends},
    statistics::Interval,
    world::{FILLERS, World, filler, vip},
};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Bytes per second on one connection.
    Throughput,
    /// Requests per second on one connection.
    RequestResponse,
    /// Connections with one request each per second.
    ConnectRequestClose,
    /// The same to an address outside the pool: with the hooks, against without.
    Bystander,
    /// As [`Comparison::ConnectRequestClose`], within one namespace: the most that can be seen of the hooks.
    ConnectRequestCloseOnLoopback,
    /// Requests per second of a connected UDP socket.
    Datagrams,
    /// The same of one that is not connected.
    UnconnectedDatagrams,
    /// As [`Comparison::ConnectRequestClose`], to an IPv6 VIP with IPv6 backends.
    Ipv6,
    /// As [`Comparison::ConnectRequestClose`], against the same through HAProxy in TCP mode.
    OverHaproxy,
    /// As [`Comparison::ConnectRequestClose`], against the same through a rule of nftables.
    OverNft,
    /// As [`Comparison::RequestResponse`], with many more services in the maps.
    RequestResponseAmongMany,
    /// As [`Comparison::ConnectRequestClose`], each connection to another one of many services.
    ConnectRequestCloseAmongMany,
    /// As [`Comparison::Bystander`], with many more services in the maps.
    BystanderAmongMany,
}

impl Comparison {
    /// What is compared among few services.
    pub(crate) const AMONG_FEW: [Self; 10] = [
        Self::Throughput,
        Self::RequestResponse,
        Self::ConnectRequestClose,
        Self::Bystander,
        Self::ConnectRequestCloseOnLoopback,
        Self::Datagrams,
        Self::UnconnectedDatagrams,
        Self::Ipv6,
        Self::OverHaproxy,
        Self::OverNft,
    ];

    /// And among [`FILLERS`] more.
    pub(crate) const AMONG_MANY: [Self; 3] = [
        Self::RequestResponseAmongMany,
        Self::ConnectRequestCloseAmongMany,
        Self::BystanderAmongMany,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::RequestResponse => "request/response",
            Self::ConnectRequestClose => "connect+request+close",
            Self::Bystander => "bystander",
            Self::ConnectRequestCloseOnLoopback => "connect+request+close on loopback",
            Self::Datagrams => "UDP, connected",
            Self::UnconnectedDatagrams => "UDP, unconnected",
            Self::Ipv6 => "connect+request+close, IPv6",
            Self::OverHaproxy => "connect+request+close over HAProxy's",
            Self::OverNft => "connect+request+close over nftables'",
            Self::RequestResponseAmongMany => "request/response, 10,000 services",
            Self::ConnectRequestCloseAmongMany => "connect+request+close, 10,000 services",
            Self::BystanderAmongMany => "bystander, 10,000 services",
        }
    }

    /// The width at which the interval says enough. No hook runs while data flows, which the count of runs shows
    /// better than any interval: throughput would need ten times the rounds for the same width. And what is far from
    /// 1 need not be known as well.
    fn wanted_width(self) -> f64 {
        match self {
            Self::Throughput => 0.06,
            Self::OverHaproxy | Self::OverNft => 0.1,
            _ => 0.03,
        }
    }

    /// Rounds, of those that the effort asks for, after which the interval may say enough. All could not have as many
    /// in ten minutes.
    fn least(self, rounds: usize) -> usize {
        match self {
            Self::Datagrams
            | Self::UnconnectedDatagrams
            | Self::Ipv6
            | Self::OverHaproxy
            | Self::OverNft
            | Self::BystanderAmongMany => rounds.div_ceil(2),
            _ => rounds,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Throughput => Kind::Sink,
            Self::RequestResponse | Self::RequestResponseAmongMany => Kind::Echo,
            Self::Datagrams | Self::UnconnectedDatagrams => Kind::Datagram,
            _ => Kind::Short,
        }
    }

    fn network(self) -> Network {
        match self {
            Self::ConnectRequestCloseOnLoopback => Network::Loopback,
            Self::Ipv6 => Network::Bridge6,
            _ => Network::Bridge,
        }
    }

    /// Where the client of a variant stands, and whom it turns to.
    fn way(self, variant: Variant) -> (Place, Vec<SocketAddr>) {
        let (network, kind) = (self.network(), self.kind());
        let direct = |place| backends(network, kind, place).to_vec();
        let balanced = || vec![vip(network, kind, Place::Hooked)];
        match (self, variant) {
            (Self::Bystander | Self::BystanderAmongMany, Variant::Tried) => {
                (Place::Hooked, direct(Place::Hooked))
            }
            (Self::Bystander | Self::BystanderAmongMany, _) => (Place::Bare, direct(Place::Bare)),
            (Self::ConnectRequestCloseAmongMany, Variant::Tried) => {
                (Place::Hooked, (0..FILLERS).map(filler).collect())
            }
            (_, Variant::Tried) => (Place::Hooked, balanced()),
            // Whoever has a rival needs no hooks.
            (Self::OverHaproxy, _) => (Place::Bare, vec![rivals::HAPROXY.into()]),
            (Self::OverNft, _) => (Place::Bare, vec![rivals::NFT.into()]),
            _ => (Place::Hooked, direct(Place::Hooked)),
        }
    }
}

/// Against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// Direct; for bystanders, without hooks; or through a rival.
    Base,
    /// Through the VIP; for bystanders, with hooks.
    Tried,
    /// What the base is, once more.
    Control,
}

/// The variants and then the same backwards: a steady drift is the same for all. Who comes first changes from round
/// to round, because what ran before still shows.
fn order(round: usize) -> [Variant; 6] {
    let mut variants = [Variant::Base, Variant::Tried, Variant::Control];
    variants.rotate_left(round % 3);
    let [first, second, third] = variants;
    [first, second, third, third, second, first]
}

/// The ratios of the rounds of one comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    tried: Vec<f64>,
    control: Vec<f64>,
    /// Whether more of them are not needed.
    settled: bool,
}

impl Rounds {
    /// Takes the rates of one round.
    fn add(&mut self, rates: [(Variant, f64); 6]) {
        let sum = |wanted: Variant| -> f64 {
            let slices = rates.iter().filter(|(variant, _)| *variant == wanted);
            slices.map(|(_, rate)| rate).sum()
        };
        let base = sum(Variant::Base);
        self.tried.push(sum(Variant::Tried) / base);
        self.control.push(sum(Variant::Control) / base);
    }

    pub(crate) fn len(&self) -> usize {
        self.tried.len()
    }

    /// The tried way over the base.
    pub(crate) fn ratio(&self) -> Option<Interval> {
        Interval::of(&self.tried)
    }

    /// The base over itself.
    pub(crate) fn control(&self) -> Option<Interval> {
        Interval::of(&self.control)
    }

    fn suffice(&self, comparison: Comparison, least: usize) -> bool {
        self.len() >= comparison.least(least)
            && self
                .ratio()
                .is_some_and(|ratio| ratio.width() <= comparison.wanted_width())
    }
}

/// Goes on until every interval is narrow enough, or `limit` is over and each has the rounds it needs. Comparisons that
/// need more rounds take turns, so that a noisy minute hits none of them alone.
///
/// # Errors
/// When a connection fails.
pub(crate) fn measure(
    world: &mut World,
    effort: &Effort,
    comparisons: &[Comparison],
    limit: Duration,
) -> Result<Vec<(Comparison, Rounds)>> {
    let start = Instant::now();
    let mut results: Vec<_> = comparisons
        .iter()
        .map(|&comparison| (comparison, Rounds::default()))
        .collect();
    for &comparison in comparisons {
        // Caches, page tables and the allocator warm up.
        round(world, comparison, 0, effort)?;
    }
    for number in 0.. {
        let late = start.elapsed() >= limit;
        if number % RECHECK == 0 && number > 0 {
            progress(&results, number);
        }
        // Intervals cost something to compute too.
        let judging = number % RECHECK == 0 || late;
        for (comparison, rounds) in &mut results {
            if judging && rounds.len() >= comparison.least(effort.rounds) {
                rounds.settled |= late || rounds.suffice(*comparison, effort.rounds);
            }
            if !rounds.settled {
                rounds.add(round(world, *comparison, number, effort)?);
            }
        }
        if results.iter().all(|(_, rounds)| rounds.settled) {
            break;
        }
    }
    Ok(results)
}

/// Two slices of each variant: their rates.
fn round(
    world: &mut World,
    comparison: Comparison,
    number: usize,
    effort: &Effort,
) -> Result<[(Variant, f64); 6]> {
    let mut rates = order(number).map(|variant| (variant, 0.0));
    for (position, (variant, rate)) in rates.iter_mut().enumerate() {
        // Both slices of a variant, and all variants, meet each backend equally often.
        let turn = number + usize::from(position >= 3);
        *rate = slice(world, comparison, *variant, turn, effort)
            .with_context(|| format!("{} failed ({variant:?})", comparison.name()))?;
    }
    Ok(rates)
}

fn slice(
    world: &mut World,
    comparison: Comparison,
    variant: Variant,
    turn: usize,
    effort: &Effort,
) -> Result<f64> {
    let (place, targets) = comparison.way(variant);
    world.move_to(place)?;
    // Of many services each slice meets others.
    let mut targets = Turns::new(&targets, turn * STRIDE);
    let rate = match comparison.kind() {
        Kind::Short => client::visits(&mut targets, effort.slice),
        Kind::Echo => {
            let mut stream = TcpStream::connect(targets.next())?;
            client::exchange(&mut stream)?;
            client::exchanges(&mut stream, effort.slice)
        }
        Kind::Sink => {
            let mut stream = TcpStream::connect(targets.next())?;
            client::send_chunk(&mut stream)?;
            client::sending(&mut stream, effort.slice)
        }
        Kind::Datagram => {
            let socket = client::datagram_socket()?;
            let server = targets.next();
            let asker = if comparison == Comparison::Datagrams {
                socket.connect(server)?;
                Asker::Connected
            } else {
                Asker::Unconnected(server)
            };
            asker.ask(&socket)?;
            asker.asking(&socket, effort.slice)
        }
    };
    Ok(rate?)
}

fn progress(results: &[(Comparison, Rounds)], number: usize) {
    let all = results.iter().filter_map(|(comparison, rounds)| {
        let ratio = rounds.ratio()?;
        let (name, median, low, high) = (comparison.name(), ratio.median, ratio.low, ratio.high);
        Some(format!("{name} {median:.3} [{low:.3}, {high:.3}]"))
    });
    eprintln!(
        "    {number} rounds: {}",
        all.collect::<Vec<_>>().join(", ")
    );
}

/// Rounds between two looks at the intervals.
const RECHECK: usize = 25;

/// So many turns lie between the beginnings of two slices. Odd: both of two backends come first equally often.
const STRIDE: usize = 997;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_two_slices_of_each_variant_in_one_round() {
        let mut rounds = Rounds::default();
        let rate = |variant| match variant {
            Variant::Base => 100.0,
            Variant::Tried => 95.0,
            Variant::Control => 101.0,
        };
        rounds.add(order(0).map(|variant| (variant, rate(variant))));
        assert_eq!(rounds.tried, [0.95]);
        assert_eq!(rounds.control, [1.01]);
    }

    #[test]
    fn a_steady_drift_changes_no_ratio_whoever_comes_first() {
        for round in 0..3 {
            let mut rates = order(round).map(|variant| (variant, 0.0));
            for ((_, rate), drifted) in rates.iter_mut().zip([10.0, 11.0, 12.0, 13.0, 14.0, 15.0]) {
                *rate = drifted;
            }
            let mut rounds = Rounds::default();
            rounds.add(rates);
            assert_eq!((rounds.tried[0], rounds.control[0]), (1.0, 1.0));
        }
    }

    #[test]
    fn every_variant_comes_first_equally_often() {
        let first = [0, 1, 2].map(|round| order(round)[0]);
        assert_eq!(first, [Variant::Base, Variant::Tried, Variant::Control]);
    }

    #[test]
    fn rounds_suffice_when_they_are_many_and_the_interval_is_narrow() {
        let rounds = |ratios: &[f64]| Rounds {
            tried: ratios.to_vec(),
            control: vec![],
            settled: false,
        };
        let suffice = |rounds: Rounds| rounds.suffice(Comparison::ConnectRequestClose, 3);
        assert!(suffice(rounds(&[0.98, 0.981, 0.979])));
        assert!(!suffice(rounds(&[0.98, 0.981])), "too few");
        assert!(!suffice(rounds(&[0.9, 0.98, 1.1])), "too wide");
    }
}
