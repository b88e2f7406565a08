//! What was measured, beside what was wanted: tables for people, and one line of JSON for programs.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::{
    rounds::{Figure, Rounds},
    stage::Proxy,
    workload::Workload,
};
use crate::{
    report::{span, table, verdict},
    statistics::Interval,
};

/// Everything that was measured; of proxies in the order of [`Proxy::ALL`].
pub(super) struct Measured {
    pub(super) workloads: Vec<(Workload, Rounds)>,
    /// System calls for each request of each workload, unless they cannot be counted here.
    pub(super) calls: Option<Vec<[f64; 3]>>,
    /// KB for each idle connection, if that was measured.
    pub(super) idle_kb: [Option<f64>; 3],
}

/// One figure of the last line.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    what: String,
    value: Judged,
}

#[derive(Clone, Debug, PartialEq)]
enum Judged {
    /// The front over a rival, and what the goal is.
    Ratio(Interval, Goal),
    /// A figure of its own, and the most it should be.
    Number(Option<f64>, Option<f64>),
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// Prints the tables and, as the last line, the JSON object.
///
/// # Errors
/// When nothing was measured.
pub(super) fn print(measured: &Measured) -> Result<()> {
    let lines = lines(measured).context("nothing was measured")?;
    println!("{}", proxies(measured));
    let mut judged = table(["the front", "figure", "95 %", "goal", ""]);
    for line in &lines {
        let [figure, span, goal, verdict] = line.value.cells();
        judged.add_row([line.what.clone(), figure, span, goal, verdict]);
    }
    println!("{judged}");
    println!("Each proxy writes an access log.");
    let mut object = Map::new();
    for line in lines {
        object.insert(line.name, line.value.json()?);
    }
    println!("{}", Value::from(object));
    Ok(())
}

/// What each proxy did by itself.
fn proxies(measured: &Measured) -> comfy_table::Table {
    let mut table = table([
        "",
        "",
        "requests/s",
        "CPU µs each",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "system calls each",
    ]);
    for (place, (workload, rounds)) in measured.workloads.iter().enumerate() {
        for proxy in Proxy::ALL {
            let whole = rounds.whole(proxy);
            let calls = measured
                .calls
                .as_ref()
                .map(|all| all[place][proxy as usize]);
            table.add_row([
                workload.name().to_owned(),
                proxy.name().to_owned(),
                format!("{:.0}", whole.figure(Figure::Rate)),
                format!("{:.1}", whole.figure(Figure::Cpu)),
                format!("{:.0}", whole.figure(Figure::P50)),
                format!("{:.0}", whole.figure(Figure::P99)),
                format!("{:.0}", whole.figure(Figure::P999)),
                calls.map_or("not counted".to_owned(), |calls| format!("{calls:.2}")),
            ]);
        }
    }
    table
}

/// All figures. `None` without a single round.
fn lines(measured: &Measured) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    for (place, (workload, rounds)) in measured.workloads.iter().enumerate() {
        let small = *workload == Workload::KeepAlive;
        let goal = |wanted: bool, goal| if wanted { goal } else { Goal::None };
        let rate = match workload {
            // The bytes per second are the same ratio.
            Workload::LargeBody => ("ratio_haproxy", "bytes/s", Goal::AtLeast(1.0)),
            _ => ("rps_ratio_haproxy", "requests/s", Goal::None),
        };
        let cpu = goal(small, Goal::AtMost(1.15));
        let p99 = goal(small, Goal::AtMost(1.0));
        for (name, what, figure, rival, goal) in [
            ("cpu_ratio_haproxy", "CPU", Figure::Cpu, Proxy::Haproxy, cpu),
            (
                "cpu_ratio_nginx",
                "CPU",
                Figure::Cpu,
                Proxy::Nginx,
                Goal::None,
            ),
            ("p99_ratio_haproxy", "p99", Figure::P99, Proxy::Haproxy, p99),
            (rate.0, rate.1, Figure::Rate, Proxy::Haproxy, rate.2),
        ] {
            let ratio = rounds.ratio(figure, rival)?.rounded();
            lines.push(Line {
                name: format!("{}{name}", workload.prefix()),
                what: format!("{}: {what}, over {}", workload.name(), rival.name()),
                value: Judged::Ratio(ratio, goal),
            });
        }
        let calls = |proxy: Proxy| {
            let all = measured.calls.as_ref()?;
            Some(hundredths(all[place][proxy as usize]))
        };
        let most = calls(Proxy::Haproxy)
            .filter(|_| small)
            .map(|calls| calls + 1.0);
        for (proxy, prefix, most) in [
            (Proxy::Front, "", most),
            (Proxy::Haproxy, "haproxy_", None),
            (Proxy::Nginx, "nginx_", None),
        ] {
            lines.push(Line {
                name: format!("{}{prefix}syscalls_per_request", workload.prefix()),
                what: format!("{}: system calls, {}", workload.name(), proxy.name()),
                value: Judged::Number(calls(proxy), most),
            });
        }
    }
    for (proxy, prefix, most) in [
        (Proxy::Front, "", Some(16.0)),
        (Proxy::Haproxy, "haproxy_", None),
        (Proxy::Nginx, "nginx_", None),
    ] {
        lines.push(Line {
            name: format!("{prefix}idle_conn_kb"),
            what: format!("KB for an idle connection, {}", proxy.name()),
            value: Judged::Number(measured.idle_kb[proxy as usize].map(hundredths), most),
        });
    }
    Some(lines)
}

fn hundredths(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

impl Judged {
    /// Figure, interval, goal, and whether it is met: an interval need only reach it.
    fn cells(&self) -> [String; 4] {
        match *self {
            Self::Ratio(ratio, goal) => {
                let (goal, met) = match goal {
                    Goal::AtMost(most) => (format!("at most {most}"), Some(ratio.low <= most)),
                    Goal::AtLeast(least) => {
                        (format!("at least {least}"), Some(ratio.high >= least))
                    }
                    Goal::None => (String::new(), None),
                };
                let median = format!("{:.3}", ratio.median);
                [median, span(ratio), goal, verdict(met).to_owned()]
            }
            Self::Number(figure, most) => {
                let shown =
                    figure.map_or("not measured".to_owned(), |figure| format!("{figure:.2}"));
                let goal = most.map_or(String::new(), |most| format!("at most {most:.2}"));
                let met = figure.zip(most).map(|(figure, most)| figure <= most);
                [shown, String::new(), goal, verdict(met).to_owned()]
            }
        }
    }

    fn json(&self) -> Result<Value> {
        let value = match self {
            Self::Ratio(ratio, _) => serde_json::to_value(ratio),
            Self::Number(figure, _) => serde_json::to_value(figure),
        };
        value.context("cannot write the figures")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(judged: &Judged) -> String {
        let [.., verdict] = judged.cells();
        verdict
    }

    #[test]
    fn an_interval_meets_a_goal_that_it_reaches() {
        let ratio = Interval {
            median: 1.2,
            low: 1.1,
            high: 1.3,
        };
        for (goal, met) in [
            (Goal::AtMost(1.15), "met"),
            (Goal::AtMost(1.0), "MISSED"),
            (Goal::AtLeast(1.3), "met"),
            (Goal::AtLeast(1.4), "MISSED"),
            (Goal::None, ""),
        ] {
            assert_eq!(verdict_of(&Judged::Ratio(ratio, goal)), met, "{goal:?}");
        }
    }

    #[test]
    fn what_could_not_be_counted_is_neither_good_nor_bad() {
        let number = |figure, most| verdict_of(&Judged::Number(figure, most));
        assert_eq!(number(Some(5.0), Some(5.0)), "met");
        assert_eq!(number(Some(5.01), Some(5.0)), "MISSED");
        assert_eq!(number(None, Some(5.0)), "");
        assert_eq!(Judged::Number(None, None).json().unwrap(), Value::Null);
    }
}
