//! How fast clients are on each way, in turns: as in [`crate::ratios`], ratios of one round count and nothing else.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::network::{KINDS, Lines, Way};
use crate::{
    client::{self, Turns},
    packet::Effort,
    ratios::there_and_back,
    server::Kind,
    statistics::Interval,
};

/// The ratios of one kind of client, by the two ways that are compared, of all rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Ratios(BTreeMap<(Way, Way), Vec<f64>>);

/// Which ways are compared: the first is divided by the second.
pub(super) const PAIRS: [(Way, Way); 6] = [
    (Way::Again, Way::Direct),
    (Way::Tcx, Way::Direct),
    (Way::Xdp, Way::Direct),
    (Way::Nft, Way::Direct),
    (Way::Tcx, Way::Nft),
    (Way::Xdp, Way::Nft),
];

impl Ratios {
    /// Takes the rates of one round.
    fn add(&mut self, rates: &[(Way, f64)]) {
        let sum = |wanted| -> f64 {
            let slices = rates.iter().filter(|(way, _)| *way == wanted);
            slices.map(|(_, rate)| rate).sum()
        };
        for (above, below) in PAIRS {
            let ratio = sum(above) / sum(below);
            self.0.entry((above, below)).or_default().push(ratio);
        }
    }

    /// One way over the other, if both took part.
    pub(super) fn of(&self, pair: (Way, Way)) -> Option<Interval> {
        Interval::of(self.0.get(&pair)?)
    }

    pub(super) fn rounds(&self) -> usize {
        self.0.values().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether every interval says enough.
    fn suffice(&self, wanted: f64) -> bool {
        PAIRS.into_iter().all(|pair| {
            let ratio = self.of(pair);
            ratio.is_some_and(|ratio| ratio.width() <= wanted * ratio.median.max(1.0))
        })
    }
}

/// Goes on until the intervals are narrow enough, or the time is over and there are as many rounds as the effort asks for.
///
/// # Errors
/// When a connection fails.
pub(super) fn measure(lines: &mut Lines, effort: &Effort) -> Result<Vec<(Kind, Ratios)>> {
    let start = Instant::now();
    let mut results = KINDS.map(|kind| (kind, Ratios::default()));
    for kind in KINDS {
        // Caches, page tables and the allocator warm up.
        round(lines, kind, 0, effort.slice)?;
    }
    for number in 0.. {
        let enough = number >= effort.rounds && {
            let late = start.elapsed() >= effort.limit;
            late || number % RECHECK == 0 && results.iter().all(|(_, it)| it.suffice(WIDTH))
        };
        if enough {
            break;
        }
        if number % RECHECK == 0 && number > 0 {
            progress(&results, number);
        }
        for (kind, ratios) in &mut results {
            ratios.add(&round(lines, *kind, number, effort.slice)?);
        }
        // Nobody else takes flows that are over out of the maps.
        lines.collect()?;
    }
    Ok(results.into())
}

/// Two slices of each way: their rates.
fn round(lines: &Lines, kind: Kind, number: usize, slice: Duration) -> Result<Vec<(Way, f64)>> {
    let order = there_and_back(Way::ALL.to_vec(), number);
    let rates = order.into_iter().enumerate().map(|(position, way)| {
        // Both slices of a way, and all ways, meet each server equally often.
        let turn = number + usize::from(position >= Way::ALL.len());
        let rate = lines
            .as_client(way, || rate(way, kind, turn, slice))
            .with_context(|| format!("{} failed ({kind:?})", way.name()))?;
        Ok((way, rate))
    });
    rates.collect()
}

/// One slice. In the namespace of the client.
fn rate(way: Way, kind: Kind, turn: usize, slice: Duration) -> Result<f64> {
    let targets = way.targets(kind);
    let mut targets = Turns::new(&targets, turn);
    let rate = match kind {
        Kind::Short => client::visits(&mut targets, slice),
        Kind::Echo => {
            let mut stream = TcpStream::connect(targets.next())?;
            client::exchange(&mut stream)?;
            client::exchanges(&mut stream, slice)
        }
        _ => {
            let mut stream = TcpStream::connect(targets.next())?;
            client::send_chunk(&mut stream)?;
            client::sending(&mut stream, slice)
        }
    };
    Ok(rate?)
}

fn progress(results: &[(Kind, Ratios)], number: usize) {
    let all = results.iter().filter_map(|(kind, ratios)| {
        let tcx = ratios.of((Way::Tcx, Way::Direct))?;
        let xdp = ratios.of((Way::Xdp, Way::Direct))?;
        Some(format!(
            "{kind:?}: tcx {:.3} [{:.3}, {:.3}], XDP {:.3} [{:.3}, {:.3}]",
            tcx.median, tcx.low, tcx.high, xdp.median, xdp.low, xdp.high
        ))
    });
    let all: Vec<_> = all.collect();
    eprintln!("    {number} rounds: {}", all.join(", "));
}

/// Rounds between two looks at the intervals.
const RECHECK: usize = 25;

/// The width at which an interval says enough.
const WIDTH: f64 = 0.03;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_two_slices_of_each_way_in_one_round() {
        let rate = |way| match way {
            Way::Direct => 100.0,
            Way::Again => 101.0,
            Way::Tcx => 96.0,
            Way::Xdp => 60.0,
            Way::Nft => 80.0,
        };
        let order = there_and_back(Way::ALL.to_vec(), 0);
        let mut ratios = Ratios::default();
        let rates: Vec<_> = order.into_iter().map(|way| (way, rate(way))).collect();
        ratios.add(&rates);
        let median = |above, below| ratios.of((above, below)).unwrap().median;
        assert_eq!(median(Way::Again, Way::Direct), 1.01);
        assert_eq!(median(Way::Tcx, Way::Direct), 0.96);
        assert_eq!(median(Way::Tcx, Way::Nft), 1.2);
        assert_eq!(median(Way::Xdp, Way::Nft), 0.75);
        assert_eq!(ratios.rounds(), 1);
    }

    #[test]
    fn ratios_suffice_when_all_of_them_are_narrow() {
        let mut ratios = Ratios::default();
        let rates = |xdp| Way::ALL.map(|way| (way, if way == Way::Xdp { xdp } else { 100.0 }));
        assert!(!ratios.suffice(0.03), "none");
        ratios.add(&rates(100.0));
        assert!(ratios.suffice(0.03));
        ratios.add(&rates(110.0));
        assert!(!ratios.suffice(0.03), "one is wide");
    }
}
