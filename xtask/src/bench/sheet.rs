//! What the figures of a subject are, what is wanted of them, and whether it is so. Pure.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The figures of a subject, in the order of the document.
pub(super) struct Sheet {
    pub(super) ratios: Vec<Ratio>,
    pub(super) tables: Vec<Table>,
    /// Figures that only say again what others do, for programs.
    pub(super) repeated: Vec<&'static str>,
}

/// One rate or cost over another, with an interval.
#[derive(Clone, Debug)]
pub(super) struct Ratio {
    pub(super) key: String,
    /// What is done, as `connect+request+close`.
    pub(super) what: &'static str,
    /// In which way, or what of it is compared, as `tcx` or `CPU`; may be empty.
    pub(super) of: &'static str,
    pub(super) over: Over,
    pub(super) better: Better,
    pub(super) goal: Option<Goal>,
}

/// What ours is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Direct,
    Haproxy,
    Nginx,
    Nftables,
}

impl Over {
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::Haproxy, Self::Nginx, Self::Nftables];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Nftables => "nftables",
        }
    }
}

/// What is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
    /// Not ours: it is there to compare with.
    Neither,
}

/// What is wanted of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// The interval reaches this.
    Reaches(f64),
    /// The whole of it is better.
    Beyond(f64),
}

impl Goal {
    pub(super) fn line(self) -> f64 {
        match self {
            Self::Reaches(line) | Self::Beyond(line) => line,
        }
    }
}

/// A median and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Interval {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Ratio {
    /// The measured one.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn value(&self, figures: &Map<String, Value>) -> Result<Interval> {
        let value = find(figures, &self.key)?;
        Interval::deserialize(value).with_context(|| format!("{} is no interval", self.key))
    }

    /// The column of it in a table.
    pub(super) fn column(&self) -> String {
        let text = format!("{} over {}", self.of, self.over.name());
        text.trim_start().to_owned()
    }

    /// Whether the goal is met, if there is one.
    pub(super) fn is_met(&self, value: Interval) -> Option<bool> {
        let goal = self.goal?;
        Some(match (goal, self.better) {
            (Goal::Reaches(line), Better::Less) => value.low <= line,
            (Goal::Reaches(line), _) => value.high >= line,
            (Goal::Beyond(line), Better::Less) => value.high < line,
            (Goal::Beyond(line), _) => value.low > line,
        })
    }

    /// Whether ours is the worse one, for certain.
    pub(super) fn is_lost(&self, value: Interval) -> bool {
        match self.better {
            Better::More => value.high < 1.0,
            Better::Less => value.low > 1.0,
            Better::Neither => false,
        }
    }
}

/// Figures that stand for themselves.
pub(super) struct Table {
    /// What its figures are of.
    pub(super) name: &'static str,
    /// The first column, then one for each key of a row.
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
}

/// One of them, or the same of several.
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) keys: Vec<String>,
    pub(super) unit: Unit,
    /// The most that the first of them should be.
    pub(super) goal: Option<Most>,
}

/// The most that a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Most {
    Number(f64),
    /// So many times another figure and so many more, and how to say that.
    Of {
        key: &'static str,
        times: f64,
        more: f64,
        said: &'static str,
    },
}

impl Row {
    /// The most that it should be; unknown without a goal, or while what that depends on is.
    ///
    /// # Errors
    /// When a figure is not there.
    pub(super) fn most(&self, figures: &Map<String, Value>) -> Result<Option<f64>> {
        Ok(match self.goal {
            None => None,
            Some(Most::Number(most)) => Some(most),
            Some(Most::Of {
                key, times, more, ..
            }) => number(figures, key)?.map(|it| it * times + more),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Nanoseconds,
    Milliseconds,
    Seconds,
    Megabytes,
    Kilobytes,
    /// A share of one.
    Percent,
    /// How many.
    Count,
    /// How many on average.
    Mean,
    /// One of them over another.
    Ratio,
}

impl Unit {
    /// With as many digits as mean something.
    pub(super) fn show(self, value: f64) -> String {
        let few = |value: f64| match value.abs() {
            100.0.. => format!("{value:.0}"),
            10.0..100.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        match self {
            Self::Nanoseconds if value.abs() >= 1000.0 => {
                format!("{} ns", thousands(&format!("{value:.0}")))
            }
            Self::Nanoseconds => format!("{value:.1} ns"),
            Self::Milliseconds => format!("{} ms", thousands(&few(value))),
            Self::Seconds => format!("{} s", few(value)),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::Kilobytes => format!("{value:.2} KB"),
            Self::Percent => format!("{:.2} %", value * 100.0),
            Self::Count => thousands(&format!("{value:.0}")),
            Self::Mean | Self::Ratio => format!("{value:.2}"),
        }
    }
}

fn thousands(number: &str) -> String {
    let (whole, rest) = number
        .split_once('.')
        .map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    rest.map_or(text.clone(), |rest| format!("{text}.{rest}"))
}

/// A figure, or `None` where the bench could not measure it.
///
/// # Errors
/// When it is not there.
pub(super) fn number(figures: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    let value = find(figures, key)?;
    if value.is_null() {
        return Ok(None);
    }
    value
        .as_f64()
        .map(Some)
        .with_context(|| format!("{key} is no number"))
}

fn find<'f>(figures: &'f Map<String, Value>, key: &str) -> Result<&'f Value> {
    let value = figures.get(key);
    value.with_context(|| format!("the record has no figure {key}; measure the subject again"))
}

impl Sheet {
    /// All keys that the document shows.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let rows = self.tables.iter().flat_map(|it| &it.rows);
        let ratios = self.ratios.iter().map(|it| &*it.key);
        ratios.chain(rows.flat_map(|it| it.keys.iter().map(|it| &**it)))
    }

    /// Makes sure that a record has what the document shows, and nothing else.
    ///
    /// # Errors
    /// When it is otherwise.
    pub(super) fn check(&self, figures: &Map<String, Value>) -> Result<()> {
        for key in self.keys() {
            find(figures, key)?;
        }
        for key in figures.keys() {
            let mut known = self.keys().chain(self.repeated.iter().copied());
            if !known.any(|it| it == key) {
                bail!("no table has a place for the figure {key}; give it one in sheets.rs");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(better: Better, goal: Option<Goal>) -> Ratio {
        Ratio {
            key: "it".to_owned(),
            what: "it",
            of: "",
            over: Over::Nginx,
            better,
            goal,
        }
    }

    #[test]
    fn an_interval_meets_a_goal_that_it_reaches_on_the_side_that_is_good() {
        let value = Interval {
            median: 1.2,
            low: 1.1,
            high: 1.3,
        };
        for (better, goal, met) in [
            (Better::More, Goal::Reaches(1.3), true),
            (Better::More, Goal::Reaches(1.31), false),
            (Better::Less, Goal::Reaches(1.1), true),
            (Better::Less, Goal::Reaches(1.0), false),
            (Better::More, Goal::Beyond(1.0), true),
            (Better::More, Goal::Beyond(1.1), false),
            (Better::Less, Goal::Beyond(1.31), true),
            (Better::Less, Goal::Beyond(1.3), false),
        ] {
            let ratio = ratio(better, Some(goal));
            assert_eq!(ratio.is_met(value), Some(met), "{better:?} {goal:?}");
        }
        assert_eq!(ratio(Better::More, None).is_met(value), None);
    }

    #[test]
    fn what_may_be_even_is_not_lost_and_what_is_not_ours_never() {
        let interval = |low, high| Interval {
            median: 1.0,
            low,
            high,
        };
        let lost = |better, low, high| ratio(better, None).is_lost(interval(low, high));
        assert!(lost(Better::More, 0.9, 0.99) && !lost(Better::More, 0.9, 1.0));
        assert!(lost(Better::Less, 1.01, 1.1) && !lost(Better::Less, 1.0, 1.1));
        assert!(!lost(Better::Neither, 0.5, 0.6) && !lost(Better::Neither, 1.5, 1.6));
    }

    #[test]
    fn numbers_have_as_many_digits_as_mean_something() {
        assert_eq!(Unit::Nanoseconds.show(64.54), "64.5 ns");
        assert_eq!(Unit::Nanoseconds.show(2635.0), "2,635 ns");
        assert_eq!(Unit::Milliseconds.show(1884.2), "1,884 ms");
        assert_eq!(Unit::Milliseconds.show(1.222), "1.22 ms");
        assert_eq!(Unit::Percent.show(0.0064), "0.64 %");
        assert_eq!(Unit::Count.show(38_113.0), "38,113");
        assert_eq!(Unit::Count.show(113.0), "113");
        assert_eq!(Unit::Count.show(-113.0), "-113");
    }

    #[test]
    fn a_figure_that_is_missing_or_has_no_place_is_named() {
        let sheet = Sheet {
            ratios: vec![ratio(Better::More, None)],
            tables: Vec::new(),
            repeated: vec!["again"],
        };
        let check = |text: &str| {
            let error = sheet.check(&serde_json::from_str(text).unwrap()).err();
            error.map(|it| it.to_string()).unwrap_or_default()
        };
        assert_eq!(check(r#"{"it":null,"again":1}"#), "");
        assert!(check("{}").contains("no figure it"));
        assert!(check(r#"{"it":1,"that":2}"#).contains("figure that"));
    }

    #[test]
    fn what_could_not_be_measured_is_unknown_and_so_is_a_goal_that_depends_on_it() {
        let row = Row {
            what: "it",
            keys: vec!["it".to_owned()],
            unit: Unit::Mean,
            goal: Some(Most::Of {
                key: "other",
                times: 2.0,
                more: 1.0,
                said: "",
            }),
        };
        let most = |text: &str| row.most(&serde_json::from_str(text).unwrap());
        assert_eq!(most(r#"{"other":3}"#).unwrap(), Some(7.0));
        assert_eq!(most(r#"{"other":null}"#).unwrap(), None);
        assert!(most(r#"{"other":"x"}"#).is_err());
        assert!(most("{}").is_err());
    }
}
