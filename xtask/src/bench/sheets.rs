//! The figures of each subject, by the names that the last line of the bench has for them, with the goals that are set for them.

mod agent;
mod front;
mod packet;
mod socket;

use super::sheet::{
    Better::{self, More},
    Goal, Most, Over, Ratio, Row, Sheet, Table, Unit,
};

/// Everything that has a bench, in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Balanced flows.
    Socket,
    /// The packet path.
    Packet,
    /// From a change to the kernel's map and the front.
    Discovery,
    /// What clients notice of a failure.
    Failover,
    /// What the front costs.
    Front,
    /// What the command line and the page take.
    Seeing,
}

impl Name {
    pub(crate) const ALL: [Self; 6] = [
        Self::Socket,
        Self::Packet,
        Self::Discovery,
        Self::Failover,
        Self::Front,
        Self::Seeing,
    ];

    /// As in commands and names of files.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Packet => "packet",
            Self::Discovery => "discovery",
            Self::Failover => "failover",
            Self::Front => "front",
            Self::Seeing => "seeing",
        }
    }

    pub(super) fn sheet(self) -> Sheet {
        match self {
            Self::Socket => socket::socket(),
            Self::Packet => packet::packet(),
            Self::Discovery => agent::discovery(),
            Self::Failover => agent::failover(),
            Self::Front => front::front(),
            Self::Seeing => agent::seeing(),
        }
    }
}

fn ratio(key: &str, what: &'static str, of: &'static str, over: Over) -> Ratio {
    Ratio {
        key: key.to_owned(),
        what,
        of,
        over,
        better: More,
        goal: None,
    }
}

impl Ratio {
    fn better(self, better: Better) -> Self {
        Self { better, ..self }
    }

    fn goal(self, goal: Goal) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }
}

fn row(what: &'static str, keys: &[&str], unit: Unit) -> Row {
    Row {
        what,
        keys: keys.iter().map(|&it| it.to_owned()).collect(),
        unit,
        goal: None,
    }
}

impl Row {
    fn at_most(self, most: f64) -> Self {
        Self {
            goal: Some(Most::Number(most)),
            ..self
        }
    }

    fn at_most_of(self, key: &'static str, times: f64, more: f64, said: &'static str) -> Self {
        Self {
            goal: Some(Most::Of {
                key,
                times,
                more,
                said,
            }),
            ..self
        }
    }
}

fn measured(name: &'static str, rows: Vec<Row>) -> Table {
    Table {
        name,
        head: vec!["measured"],
        rows,
    }
}

const THROUGHPUT: &str = "throughput";
const RR: &str = "request/response";
const CRR: &str = "connect+request+close";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_figure_has_two_places_and_no_cell_two_figures() {
        for name in Name::ALL {
            let sheet = name.sheet();
            let mut seen = BTreeSet::new();
            for key in sheet.keys() {
                assert!(seen.insert(key.to_owned()), "{name:?}: {key}");
            }
            let mut cells = BTreeSet::new();
            for ratio in &sheet.ratios {
                assert!(cells.insert((ratio.what, ratio.column())), "{}", ratio.key);
            }
            for table in &sheet.tables {
                assert!(
                    table
                        .rows
                        .iter()
                        .all(|row| row.keys.len() == table.head.len()),
                    "{name:?}"
                );
            }
        }
    }

    /// Those that the bench puts together from parts aside, which its own tests name.
    #[test]
    fn every_figure_is_one_of_the_bench() {
        for (name, source) in [
            (
                Name::Socket,
                include_str!("../../../lb-bench/src/report.rs"),
            ),
            (
                Name::Packet,
                include_str!("../../../lb-bench/src/packet/report.rs"),
            ),
            (
                Name::Discovery,
                include_str!("../../../lb-bench/src/discovery.rs"),
            ),
            (
                Name::Failover,
                include_str!("../../../lb-bench/src/failover.rs"),
            ),
            (
                Name::Seeing,
                include_str!("../../../lb-bench/src/seeing.rs"),
            ),
        ] {
            let of_source = source.split_once("struct Figures {").unwrap().1;
            let of_source = of_source.split_once("\n}").unwrap().0;
            let fields = of_source.lines().filter_map(|line| {
                let line = line.trim().trim_start_matches("pub(crate) ");
                let (field, _) = line.split_once(": ")?;
                let is_name = field
                    .bytes()
                    .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_');
                is_name.then_some(field)
            });
            let sheet = name.sheet();
            let shown = sheet.keys().chain(sheet.repeated.iter().copied());
            let shown: BTreeSet<_> = shown.collect();
            assert_eq!(fields.collect::<BTreeSet<_>>(), shown, "{name:?}");
        }
    }
}
