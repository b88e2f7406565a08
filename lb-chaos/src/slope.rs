//! Whether a series of samples grows. Pure.
//!
//! The slope is that of Theil and Sen: the median of the slopes between all pairs. A few wild samples do not move it, which a fit
//! by least squares would follow.

/// One sample: the time in seconds, and what was seen then.
pub type Sample = (f64, f64);

/// The most samples of which all pairs are looked at; of more, every so many is taken.
const MOST: usize = 600;

/// How much of a series is left out at its beginning, as a part of its time: caches fill, and pools reach their size.
const WARM_UP: f64 = 0.3;

/// What a series does after its beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// How much it grows in a second.
    pub slope: f64,
    /// The median of the samples.
    pub median: f64,
    /// How long it was watched, in seconds.
    pub seconds: f64,
    /// How many samples there are.
    pub samples: usize,
}

impl Trend {
    /// That of `samples` in the order of time, without what is left out; `None` of fewer than two moments.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let (first, last) = (samples.first()?.0, samples.last()?.0);
        let begin = first + (last - first) * WARM_UP;
        let steady: Vec<Sample> = samples.iter().copied().filter(|it| it.0 >= begin).collect();
        let step = steady.len().div_ceil(MOST).max(1);
        let steady: Vec<Sample> = steady.into_iter().step_by(step).collect();
        let mut slopes = Vec::new();
        for (index, (time, value)) in steady.iter().enumerate() {
            for (later, other) in &steady[index + 1..] {
                if later > time {
                    slopes.push((other - value) / (later - time));
                }
            }
        }
        let mut values: Vec<f64> = steady.iter().map(|it| it.1).collect();
        Some(Self {
            slope: median(&mut slopes)?,
            median: median(&mut values)?,
            seconds: last - begin,
            samples: steady.len(),
        })
    }

    /// How much it has grown while it was watched.
    pub fn growth(&self) -> f64 {
        self.slope * self.seconds
    }

    /// Whether it has grown by no more than this part of it, or by no more than so much.
    pub fn is_flat(&self, part: f64, least: f64) -> bool {
        self.growth() <= (self.median * part).max(least)
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    match values.len() % 2 {
        1 => Some(upper),
        _ => Some(f64::midpoint(values[middle - 1], upper)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(value: impl Fn(u32) -> f64) -> Vec<Sample> {
        (0..100).map(|n| (f64::from(n), value(n))).collect()
    }

    #[test]
    fn what_stays_is_flat_and_what_leaks_is_not() {
        let flat = Trend::of(&series(|n| 50.0 + f64::from(n % 7))).unwrap();
        assert!(flat.is_flat(0.03, 1.0), "{flat:?}");
        let leaks = Trend::of(&series(|n| 50.0 + f64::from(n) / 10.0)).unwrap();
        assert!((leaks.slope - 0.1).abs() < 1e-9, "{leaks:?}");
        assert!(!leaks.is_flat(0.03, 1.0), "{leaks:?}");
    }

    #[test]
    fn a_warm_up_and_a_peak_are_no_leak() {
        let warm = series(|n| if n < 25 { f64::from(n) } else { 25.0 });
        assert!(Trend::of(&warm).unwrap().is_flat(0.0, 0.0));
        let peak = series(|n| if (60..65).contains(&n) { 1e6 } else { 25.0 });
        assert!(Trend::of(&peak).unwrap().is_flat(0.0, 0.0));
    }

    #[test]
    fn what_shrinks_is_flat() {
        let trend = Trend::of(&series(|n| 50.0 - f64::from(n) / 10.0)).unwrap();
        assert!(trend.is_flat(0.0, 0.0), "{trend:?}");
    }

    #[test]
    fn one_sample_has_no_trend() {
        assert_eq!(Trend::of(&[]), None);
        assert_eq!(Trend::of(&[(1.0, 2.0)]), None);
    }

    proptest! {
        /// Of a line with noise of a fifth of the samples the slope is that of the line.
        #[test]
        fn wild_samples_do_not_move_the_slope(
            slope in -10.0..10.0_f64,
            start in 0.0..1e6_f64,
            wild in proptest::collection::vec(-1e9..1e9_f64, 10),
        ) {
            let mut samples = series(|n| start + slope * f64::from(n));
            // Every seventh of those that count.
            for (index, wild) in wild.iter().enumerate() {
                samples[30 + index * 7].1 = *wild;
            }
            let trend = Trend::of(&samples).unwrap();
            prop_assert!((trend.slope - slope).abs() < 1.0 + slope.abs() / 2.0, "{trend:?}");
        }

        /// Without noise it is exact, wherever it starts and however often it is looked at.
        #[test]
        fn a_line_has_its_slope(slope in -10.0..10.0_f64, start in -1e3..1e3_f64, count in 10_u32..2_000) {
            let samples: Vec<_> = (0..count)
                .map(|n| (f64::from(n), start + slope * f64::from(n)))
                .collect();
            let trend = Trend::of(&samples).unwrap();
            prop_assert!((trend.slope - slope).abs() < 1e-6, "{trend:?}");
        }
    }
}
