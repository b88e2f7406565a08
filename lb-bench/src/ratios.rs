//! How fast the balanced way is against the direct one, and against what else could balance.
//!
//! Single figures of these machines spread by half. So the variants take turns for a moment each, in an order that
//! cancels drift, and only ratios within one such round count. One variant is the direct way once more: what its
//! ratio is off from 1 is the noise that is left.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    Effort,
    client::{self, Asker, Turns},
    rivals::Rival,
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
    /// As [`Comparison::RequestResponse`], with many more services in the maps.
    RequestResponseAmongMany,
    /// As [`Comparison::ConnectRequestClose`], each connection to another one of many services.
    ConnectRequestCloseAmongMany,
    /// As [`Comparison::Bystander`], with many more services in the maps.
    BystanderAmongMany,
}

impl Comparison {
    /// What is compared among few services.
    pub(crate) const AMONG_FEW: [Self; 8] = [
        Self::Throughput,
        Self::RequestResponse,
        Self::ConnectRequestClose,
        Self::Bystander,
        Self::ConnectRequestCloseOnLoopback,
        Self::Datagrams,
        Self::UnconnectedDatagrams,
        Self::Ipv6,
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
            Self::RequestResponseAmongMany => "request/response, 10,000 services",
            Self::ConnectRequestCloseAmongMany => "connect+request+close, 10,000 services",
            Self::BystanderAmongMany => "bystander, 10,000 services",
        }
    }

    /// Through whom the same is done in the same rounds.
    pub(crate) fn rivals(self) -> &'static [Rival] {
        match self {
            Self::Throughput | Self::RequestResponse | Self::ConnectRequestClose | Self::Ipv6 => {
                &Rival::ALL
            }
            // HAProxy has no UDP.
            Self::Datagrams | Self::UnconnectedDatagrams => &[Rival::Nft],
            _ => &[],
        }
    }

    /// The width at which the interval says enough. No hook runs while data flows, which the count of runs shows
    /// better than any interval: throughput would need ten times the rounds for the same width.
    fn wanted_width(self) -> f64 {
        match self {
            Self::Throughput => 0.06,
            _ => 0.03,
        }
    }

    /// Rounds, of those that the effort asks for, after which the interval may say enough. All could not have as many
    /// in ten minutes.
    fn least(self, rounds: usize) -> usize {
        match self {
            Self::ConnectRequestCloseOnLoopback
            | Self::Datagrams
            | Self::UnconnectedDatagrams
            | Self::Ipv6
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
            (_, Variant::Rival(rival)) => (Place::Bare, vec![rival.address(network, kind)]),
            _ => (Place::Hooked, direct(Place::Hooked)),
        }
    }

    /// One slice: its rate.
    fn rate(self, targets: &mut Turns<'_>, slice: Duration) -> io::Result<f64> {
        match self.kind() {
            Kind::Short => client::visits(targets, slice),
            Kind::Echo => {
                let mut stream = TcpStream::connect(targets.next())?;
                client::exchange(&mut stream)?;
                client::exchanges(&mut stream, slice)
            }
            Kind::Sink => {
                let mut stream = TcpStream::connect(targets.next())?;
                client::send_chunk(&mut stream)?;
                client::sending(&mut stream, slice)
            }
            Kind::Datagram => {
                let socket = client::datagram_socket()?;
                let server = targets.next();
                let asker = if self == Self::Datagrams {
                    socket.connect(server)?;
                    Asker::Connected
                } else {
                    Asker::Unconnected(server)
                };
                asker.ask(&socket)?;
                asker.asking(&socket, slice)
            }
        }
    }
}

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// Direct; for bystanders, without hooks.
    Base,
    /// Through the VIP; for bystanders, with hooks.
    Tried,
    /// What the base is, once more.
    Control,
    /// Through somebody else.
    Rival(Rival),
}

fn order(rivals: &[Rival], round: usize) -> Vec<Variant> {
    let mut variants = vec![Variant::Base, Variant::Tried, Variant::Control];
    variants.extend(rivals.iter().copied().map(Variant::Rival));
    there_and_back(variants, round)
}

/// The variants and then the same backwards: a steady drift is the same for all. Each round has an order of its own,
/// the same in every run, because what ran before still shows: over all rounds everybody comes after everybody else.
pub(crate) fn there_and_back<T: Copy>(mut variants: Vec<T>, round: usize) -> Vec<T> {
    fastrand::Rng::with_seed(round as u64).shuffle(&mut variants);
    let back: Vec<_> = variants.iter().rev().copied().collect();
    variants.extend(back);
    variants
}

/// The ratios of the rounds of one comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    tried: Vec<f64>,
    control: Vec<f64>,
    /// The tried way over each rival.
    over: BTreeMap<Rival, Vec<f64>>,
    /// Whether more of them are not needed.
    settled: bool,
}

impl Rounds {
    /// Takes the rates of one round.
    fn add(&mut self, rates: &[(Variant, f64)]) {
        let sum = |wanted: Variant| -> f64 {
            let slices = rates.iter().filter(|(variant, _)| *variant == wanted);
            slices.map(|(_, rate)| rate).sum()
        };
        let (base, tried) = (sum(Variant::Base), sum(Variant::Tried));
        self.tried.push(tried / base);
        self.control.push(sum(Variant::Control) / base);
        for rival in Rival::ALL {
            if rates
                .iter()
                .any(|(variant, _)| *variant == Variant::Rival(rival))
            {
                let over = tried / sum(Variant::Rival(rival));
                self.over.entry(rival).or_default().push(over);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tried.len()
    }

    /// The tried way over the base.
    pub(crate) fn ratio(&self) -> Option<Interval> {
        Interval::of(&self.tried)
    }

    /// The tried way over a rival that took part.
    pub(crate) fn over(&self, rival: Rival) -> Option<Interval> {
        Interval::of(self.over.get(&rival)?)
    }

    /// The base over itself.
    pub(crate) fn control(&self) -> Option<Interval> {
        Interval::of(&self.control)
    }

    fn suffice(&self, comparison: Comparison, least: usize) -> bool {
        let narrow = |ratio: Option<Interval>, wanted: f64| {
            ratio.is_some_and(|ratio| ratio.width() <= wanted * ratio.median.max(1.0))
        };
        let wanted = comparison.wanted_width();
        self.len() >= comparison.least(least)
            && narrow(self.ratio(), wanted)
            && (comparison.rivals().iter()).all(|&rival| narrow(self.over(rival), 2.0 * wanted))
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
                rounds.add(&round(world, *comparison, number, effort)?);
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
) -> Result<Vec<(Variant, f64)>> {
    let order = order(comparison.rivals(), number);
    let half = order.len() / 2;
    let slices = order.into_iter().enumerate().map(|(position, variant)| {
        // Both slices of a variant, and all variants, meet each backend equally often.
        let turn = number + usize::from(position >= half);
        let rate = slice(world, comparison, variant, turn, effort)
            .with_context(|| format!("{} failed ({variant:?})", comparison.name()))?;
        Ok((variant, rate))
    });
    slices.collect()
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
    let mut run = || comparison.rate(&mut targets, effort.slice);
    let rate = match variant {
        Variant::Rival(rival) => world.as_client_of(rival, run)?,
        _ => run(),
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
mod tests;
