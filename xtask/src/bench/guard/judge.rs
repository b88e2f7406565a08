//! What is compared, and when it is a slow-down. Pure.

use std::fmt;

use serde::Deserialize;

use crate::bench::sheet::Interval;

/// Instructions of user space are exact but for what a compiler moves about.
const INSTRUCTIONS_PERCENT: u64 = 3;
/// As in the comparison of kernels.
const KERNEL_PERCENT: u64 = 10;
/// The whole interval of a time has to be above this.
const TIME_RATIO: f64 = 1.05;

/// Something that was compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) values: Values,
}

/// Before and now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Counts, where there are some.
    Count {
        unit: Unit,
        before: Option<u64>,
        now: Option<u64>,
    },
    /// How long it takes now over before.
    Time(Interval),
    /// It was left out.
    Skipped(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Instructions,
    Verified,
    Bytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions of 1,000 runs",
            Self::Verified => "verified instructions",
            Self::Bytes => "bytes of machine code",
        }
    }

    fn room_percent(self) -> u64 {
        match self {
            Self::Instructions => INSTRUCTIONS_PERCENT,
            Self::Verified | Self::Bytes => KERNEL_PERCENT,
        }
    }
}

impl Finding {
    pub(super) fn skipped(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            values: Values::Skipped(why.into()),
        }
    }

    /// Whether it is slower than the limits allow. What has no other to be compared with is not.
    pub(super) fn is_slower(&self) -> bool {
        match self.values {
            Values::Count {
                unit,
                before: Some(before),
                now: Some(now),
            } => now * 100 > before * (100 + unit.room_percent()),
            Values::Time(ratio) => ratio.low > TIME_RATIO,
            Values::Count { .. } | Values::Skipped(_) => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match &self.values {
            Values::Count { unit, before, now } => match (before, now) {
                (Some(before), Some(now)) => {
                    let room = unit.room_percent();
                    write!(f, "{now} {}, {before} before", unit.name())?;
                    if *before > 0 {
                        let change = (*now as f64 / *before as f64 - 1.0) * 100.0;
                        write!(f, ": {change:+.2} % (at most +{room} %)")?;
                    }
                    Ok(())
                }
                (None, Some(now)) => write!(f, "{now} {}, new", unit.name()),
                (Some(before), None) => write!(f, "gone, {before} {} before", unit.name()),
                (None, None) => write!(f, "unknown"),
            },
            Values::Time(Interval { median, low, high }) => write!(
                f,
                "{median:.3} [{low:.3}, {high:.3}] of the base's time (not wholly above {TIME_RATIO})"
            ),
            Values::Skipped(why) => write!(f, "NOT CHECKED: {why}"),
        }
    }
}

/// What the bench says of kernel programs.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    programs: Vec<Program>,
    times: Vec<Time>,
    /// Why there are no times, if there are none.
    not_timed: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Program {
    object: String,
    program: String,
    before: Option<Weight>,
    now: Option<Weight>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Weight {
    verified: Option<u32>,
    jited_bytes: u32,
}

#[derive(Debug, Deserialize)]
struct Time {
    what: String,
    ratio: Interval,
}

impl Said {
    pub(super) fn findings(self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for it in self.programs {
            let of = |unit, count: &dyn Fn(Weight) -> Option<u32>| Finding {
                what: format!("{}: {}", it.object, it.program),
                values: Values::Count {
                    unit,
                    before: it.before.and_then(count).map(u64::from),
                    now: it.now.and_then(count).map(u64::from),
                },
            };
            findings.push(of(Unit::Verified, &|it| it.verified));
            findings.push(of(Unit::Bytes, &|it| Some(it.jited_bytes)));
        }
        findings.extend(self.times.into_iter().map(|it| Finding {
            what: it.what,
            values: Values::Time(it.ratio),
        }));
        let skipped = |why| Finding::skipped("times of packets", why);
        findings.extend(self.not_timed.map(skipped));
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(unit: Unit, before: Option<u64>, now: Option<u64>) -> Finding {
        Finding {
            what: "it".to_owned(),
            values: Values::Count { unit, before, now },
        }
    }

    #[test]
    fn a_count_may_grow_by_its_room_and_no_more() {
        let slower = |unit, now| count(unit, Some(1000), Some(now)).is_slower();
        assert!(!slower(Unit::Instructions, 1030) && slower(Unit::Instructions, 1031));
        assert!(!slower(Unit::Verified, 1100) && slower(Unit::Verified, 1101));
        assert!(!slower(Unit::Bytes, 1100) && slower(Unit::Bytes, 1101));
        assert!(!slower(Unit::Instructions, 1));
    }

    #[test]
    fn what_is_new_or_gone_or_left_out_is_told_and_not_slower() {
        for (finding, said) in [
            (
                count(Unit::Verified, None, Some(7)),
                "7 verified instructions, new",
            ),
            (
                count(Unit::Bytes, Some(7), None),
                "gone, 7 bytes of machine code before",
            ),
            (count(Unit::Bytes, None, None), "unknown"),
            (Finding::skipped("it", "no root"), "NOT CHECKED: no root"),
        ] {
            assert!(!finding.is_slower());
            assert_eq!(finding.to_string(), format!("it: {said}"));
        }
    }

    #[test]
    fn a_time_is_slower_when_its_whole_interval_is() {
        let time = |low| Finding {
            what: "it".to_owned(),
            values: Values::Time(Interval {
                median: 1.2,
                low,
                high: 1.3,
            }),
        };
        assert!(!time(1.05).is_slower());
        assert!(time(1.06).is_slower());
    }

    #[test]
    fn what_the_bench_says_is_one_finding_for_each_figure() {
        let text = r#"{"programs":[{"object":"packet","program":"xdp_card","before":{"verified":100,"jited_bytes":10},
            "now":{"verified":111,"jited_bytes":11}},{"object":"socket","program":"bind4","before":null,
            "now":{"verified":null,"jited_bytes":5}}],
            "times":[{"what":"a packet","ratio":{"median":1.0,"low":0.9,"high":1.1}}],"not_timed":null}"#;
        let said: Said = serde_json::from_str(text).unwrap();
        let findings = said.findings();
        let slower = findings.iter().filter(|it| it.is_slower());
        let slower: Vec<_> = slower.map(Finding::to_string).collect();
        assert_eq!(
            slower,
            ["packet: xdp_card: 111 verified instructions, 100 before: +11.00 % (at most +10 %)"]
        );
        assert_eq!(findings.len(), 5);
    }
}
