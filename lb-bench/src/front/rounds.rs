//! What was measured of one workload: rounds, in each of which every proxy had two slices. Ratios are of one round.

use super::{load::Slice, stage::Proxy};
use crate::statistics::Interval;

/// What one proxy did in one round.
#[derive(Debug, Default)]
pub(super) struct Turn {
    elapsed_s: f64,
    cpu_s: f64,
    /// In nanoseconds.
    latencies: Vec<u32>,
}

impl Turn {
    /// Adds a slice, for which the proxy used so much of its core.
    pub(super) fn add(&mut self, slice: Slice, cpu_s: f64) {
        self.elapsed_s += slice.elapsed.as_secs_f64();
        self.cpu_s += cpu_s;
        self.latencies.extend(slice.latencies);
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody waits for 2^52 requests")]
    fn requests(&self) -> f64 {
        self.latencies.len() as f64
    }

    pub(super) fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Cpu => self.cpu_s * 1e6 / self.requests(),
            Figure::Rate => self.requests() / self.elapsed_s,
            Figure::P50 => self.permille(500),
            Figure::P99 => self.permille(990),
            Figure::P999 => self.permille(999),
        }
    }

    /// The latency that so many of a thousand do not exceed, in microseconds.
    fn permille(&self, permille: usize) -> f64 {
        let mut latencies = self.latencies.clone();
        let rank = (latencies.len() * permille).div_ceil(1000).max(1);
        if latencies.len() < rank {
            return f64::NAN;
        }
        let (_, &mut latency, _) = latencies.select_nth_unstable(rank - 1);
        f64::from(latency) / 1e3
    }
}

/// What of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// Of the proxy for each request, in microseconds.
    Cpu,
    /// Requests per second.
    Rate,
    /// Latency in microseconds.
    P50,
    P99,
    P999,
}

/// All rounds of a workload.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// In the order of [`Proxy::ALL`].
    rounds: Vec<[Turn; 3]>,
}

impl Rounds {
    pub(super) fn add(&mut self, round: [Turn; 3]) {
        self.rounds.push(round);
    }

    /// The front over a rival.
    pub(super) fn ratio(&self, figure: Figure, rival: Proxy) -> Option<Interval> {
        let of = |round: &[Turn; 3], proxy: Proxy| round[proxy as usize].figure(figure);
        let rounds = self.rounds.iter();
        let ratios: Vec<_> = rounds
            .map(|round| of(round, Proxy::Front) / of(round, rival))
            .collect();
        Interval::of(&ratios)
    }

    /// All rounds of a proxy as one.
    pub(super) fn whole(&self, proxy: Proxy) -> Turn {
        let mut whole = Turn::default();
        for round in &self.rounds {
            let turn = &round[proxy as usize];
            whole.elapsed_s += turn.elapsed_s;
            whole.cpu_s += turn.cpu_s;
            whole.latencies.extend(&turn.latencies);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turn(requests: u32, elapsed_ms: u64, cpu_s: f64) -> Turn {
        let mut turn = Turn::default();
        let slice = Slice {
            elapsed: Duration::from_millis(elapsed_ms),
            latencies: (1..=requests).rev().map(|number| number * 1000).collect(),
        };
        turn.add(slice, cpu_s);
        turn
    }

    #[test]
    fn figures_are_of_all_slices_of_a_turn() {
        let mut turn = turn(600, 500, 0.01);
        turn.add(
            Slice {
                elapsed: Duration::from_millis(500),
                latencies: (601..=1000).map(|number| number * 1000).collect(),
            },
            0.01,
        );
        assert_eq!(turn.figure(Figure::Rate), 1000.0);
        assert!((turn.figure(Figure::Cpu) - 20.0).abs() < 1e-9);
        assert_eq!(turn.figure(Figure::P50), 500.0);
        assert_eq!(turn.figure(Figure::P99), 990.0);
        assert_eq!(turn.figure(Figure::P999), 999.0);
    }

    #[test]
    fn a_ratio_is_of_one_round_and_over_one_rival() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.ratio(Figure::Rate, Proxy::Nginx), None);
        // The second round is slow for all.
        rounds.add([
            turn(100, 10, 0.004),
            turn(200, 10, 0.004),
            turn(50, 10, 0.004),
        ]);
        rounds.add([turn(10, 10, 0.004), turn(20, 10, 0.004), turn(5, 10, 0.004)]);
        let ratio = |figure, rival| rounds.ratio(figure, rival).unwrap();
        let rate = ratio(Figure::Rate, Proxy::Haproxy);
        assert_eq!((rate.low, rate.median, rate.high), (0.5, 0.5, 0.5));
        assert_eq!(ratio(Figure::Cpu, Proxy::Nginx).median, 0.5);
        assert_eq!(rounds.whole(Proxy::Haproxy).figure(Figure::Rate), 11_000.0);
    }
}
