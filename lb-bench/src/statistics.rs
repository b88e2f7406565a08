//! Medians, percentiles and intervals. Pure.

use serde::Serialize;

/// A median and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// The bootstrap interval of the median: the middle 95 % of the medians of as many samples again, drawn from
    /// the samples themselves. The seed is fixed: equal samples give equal intervals. `None` without samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let median = median(samples)?;
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut medians = Vec::with_capacity(RESAMPLES);
        let mut resample = vec![0.0; samples.len()];
        for _ in 0..RESAMPLES {
            resample.fill_with(|| samples[random.usize(..samples.len())]);
            medians.push(middle(&mut resample));
        }
        medians.sort_unstable_by(f64::total_cmp);
        let cut = RESAMPLES / 40;
        Some(Self {
            median,
            low: medians[cut],
            high: medians[RESAMPLES - 1 - cut],
        })
    }

    /// To as many digits as mean something.
    pub(crate) fn rounded(self) -> Self {
        let round = |ratio: f64| (ratio * 1e4).round() / 1e4;
        Self {
            median: round(self.median),
            low: round(self.low),
            high: round(self.high),
        }
    }

    pub(crate) fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// The median, or `None` without samples.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() {
        return None;
    }
    Some(middle(&mut samples.to_vec()))
}

/// The smallest sample that so many percent of them do not exceed, or `None` without samples.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    let rank = (samples.len() * percent).div_ceil(100).max(1);
    samples.get(rank - 1).copied()
}

/// The median of what is not empty.
fn middle(samples: &mut [f64]) -> f64 {
    let half = samples.len() / 2;
    let odd = samples.len() % 2 == 1;
    let (below, &mut upper, _) = samples.select_nth_unstable_by(half, f64::total_cmp);
    if odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

const RESAMPLES: usize = 2000;
const SEED: u64 = 0x6c62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_half_way_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 50), Some(100.0));
        assert_eq!(percentile(&samples, 99), Some(198.0));
        assert_eq!(percentile(&samples[..1], 99), Some(200.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn one_wild_sample_moves_neither_the_median_nor_the_interval_far() {
        let mut samples: Vec<f64> = (0..100).map(|n| 1.0 + f64::from(n) / 1000.0).collect();
        samples.push(1000.0);
        let interval = Interval::of(&samples).unwrap();
        assert!(interval.low > 1.02 && interval.high < 1.08, "{interval:?}");
    }

    #[test]
    fn more_samples_make_a_narrower_interval_around_the_median() {
        let samples = |count: u32| -> Vec<f64> {
            let mut random = fastrand::Rng::with_seed(1);
            (0..count).map(|_| random.f64()).collect()
        };
        let few = Interval::of(&samples(30)).unwrap();
        let many = Interval::of(&samples(3000)).unwrap();
        assert!(many.width() < few.width() / 3.0, "{few:?} {many:?}");
        assert!(many.low < 0.5 && 0.5 < many.high, "{many:?}");
    }

    #[test]
    fn the_interval_covers_the_true_median_in_about_95_of_100_cases() {
        let covered = (0..200)
            .filter(|&seed| {
                let mut random = fastrand::Rng::with_seed(seed);
                let samples: Vec<f64> = (0..41).map(|_| random.f64()).collect();
                let interval = Interval::of(&samples).unwrap();
                interval.low <= 0.5 && 0.5 <= interval.high
            })
            .count();
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn equal_samples_give_equal_intervals_and_no_sample_gives_none() {
        let samples = [1.0, 5.0, 2.0, 8.0];
        assert_eq!(Interval::of(&samples), Interval::of(&samples));
        assert_eq!(Interval::of(&[]), None);
    }
}
