//! The record of what was found, and what has changed since.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use lb_testkit::guest::{Figures, Report};
use serde::{Deserialize, Serialize};

use crate::workspace;

/// What was found, and what the programs were built by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Another one makes other programs of the same source.
    pub(super) compiler: String,
    pub(super) kernels: Vec<Entry>,
}

/// What was found on the kernel of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) suite: String,
    pub(super) report: Report,
}

impl Entry {
    /// Whether both are of one suite, with its control groups mounted alike.
    fn is_of(&self, other: &Self) -> bool {
        self.suite == other.suite && self.report.hierarchy == other.report.hierarchy
    }

    /// The kernel's release line, such as 6.1.
    pub(super) fn line(&self) -> &str {
        let release = self.report.release.as_str();
        let end = release.match_indices(|c: char| !c.is_ascii_digit()).nth(1);
        end.map_or(release, |(at, _)| &release[..at])
    }
}

/// By how much a program may grow before somebody has to say that it is meant.
const ROOM_PERCENT: u32 = 10;

const REMEDY: &str =
    "if that is meant, run `cargo xtask kernels --write` and commit what it writes";

/// From the folder of the workspace on.
pub(super) const PATH: &str = "docs/kernels.json";

fn path() -> PathBuf {
    workspace().join(PATH)
}

/// The record.
///
/// # Errors
/// When it is not there.
pub(super) fn read() -> Result<Record> {
    let text = fs::read_to_string(path())
        .with_context(|| format!("cannot read {PATH}; run `cargo xtask kernels --write`"))?;
    serde_json::from_str(&text).with_context(|| format!("{PATH} is no record"))
}

impl Record {
    /// Keeps it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path(), text).with_context(|| format!("cannot write {PATH}"))
    }

    /// The record with what was `found` now, in the place of what it had on the same kernels. What another compiler made goes.
    pub(super) fn with(mut self, found: &Self) -> Self {
        if self.compiler != found.compiler {
            return found.clone();
        }
        for now in &found.kernels {
            match self.kernels.iter_mut().find(|it| it.is_of(now)) {
                Some(before) => *before = now.clone(),
                None => self.kernels.push(now.clone()),
            }
        }
        self
    }

    /// What of `found` differs from the record in a way that somebody has to look at.
    pub(super) fn compare(&self, found: &Self) -> Vec<String> {
        let (mut faults, mut growth) = (Vec::new(), Vec::new());
        for now in &found.kernels {
            let (suite, hierarchy) = (&now.suite, now.report.hierarchy);
            match self.kernels.iter().find(|it| it.is_of(now)) {
                Some(before) if before.line() == now.line() => {
                    faults.extend(come_or_gone(before, now));
                    growth.extend(grown(before, now));
                }
                // Another verifier counts otherwise, and another compiler of the kernel's makes other code.
                Some(before) => eprintln!(
                    "    {suite} has {} now; the record is of {}, so the figures are not compared",
                    now.report.release, before.report.release
                ),
                None => faults.push(format!(
                    "{PATH} has nothing on {suite}, {hierarchy}; {REMEDY}"
                )),
            }
        }
        if self.compiler != found.compiler && !growth.is_empty() {
            // Compilers move with the system's updates, which nobody is to blame for. Which programs there are is the source's.
            eprintln!(
                "    the record is of programs by {}, and these are by {}, so this is no fault:",
                self.compiler, found.compiler
            );
            for difference in growth.drain(..) {
                eprintln!("    {difference}");
            }
        }
        faults.extend(growth);
        faults
    }
}

/// Where it was found, for people.
fn place(now: &Entry) -> String {
    format!("{}, {}", now.report.release, now.report.hierarchy)
}

/// The programs that only one of the two has.
fn come_or_gone(before: &Entry, now: &Entry) -> Vec<String> {
    let (place, mut faults) = (place(now), Vec::new());
    for (these, those, what) in [
        (&now.report, &before.report, "is not in the record"),
        (&before.report, &now.report, "is in the record alone"),
    ] {
        let missing = these.programs.iter().filter(|it| same(it, those).is_none());
        faults.extend(missing.map(|it| format!("{place}: {} {what}; {REMEDY}", name(it))));
    }
    faults
}

/// The programs that are larger by more than the room.
fn grown(before: &Entry, now: &Entry) -> Vec<String> {
    let (place, mut faults) = (place(now), Vec::new());
    for program in &now.report.programs {
        let Some(recorded) = same(program, &before.report) else {
            continue;
        };
        let counts = [
            ("verified instructions", recorded.verified, program.verified),
            (
                "bytes of machine code",
                Some(recorded.jited_bytes),
                Some(program.jited_bytes),
            ),
        ];
        for (what, before, now) in counts {
            let (Some(before), Some(now)) = (before, now) else {
                continue;
            };
            if u64::from(now) * 100 > u64::from(before) * u64::from(100 + ROOM_PERCENT) {
                faults.push(format!(
                    "{place}: {} has {now} {what} and had {before}, over {ROOM_PERCENT} % more; {REMEDY}",
                    name(program)
                ));
            }
        }
    }
    faults
}

fn same<'r>(program: &Figures, report: &'r Report) -> Option<&'r Figures> {
    let mut programs = report.programs.iter();
    programs.find(|it| it.object == program.object && it.program == program.program)
}

fn name(program: &Figures) -> String {
    format!("{} of the object {}", program.program, program.object)
}

#[cfg(test)]
mod tests {
    use lb_testkit::guest::Hierarchy;

    use super::*;

    fn entry(release: &str, programs: &[(&str, u32, u32)]) -> Entry {
        let programs = programs.iter().map(|&(program, verified, bytes)| Figures {
            object: "socket".to_owned(),
            program: program.to_owned(),
            verified: Some(verified),
            translated_bytes: 8,
            jited_bytes: bytes,
            attached: None,
        });
        Entry {
            suite: "bookworm".to_owned(),
            report: Report {
                release: release.to_owned(),
                hierarchy: Hierarchy::Unified,
                programs: programs.collect(),
                checks: Vec::new(),
            },
        }
    }

    fn record(compiler: &str, kernels: &[Entry]) -> Record {
        Record {
            compiler: compiler.to_owned(),
            kernels: kernels.to_vec(),
        }
    }

    fn compare(before: &[Entry], now: &[Entry]) -> Vec<String> {
        record("one", before).compare(&record("one", now))
    }

    #[test]
    fn a_tenth_more_is_allowed_and_what_is_more_is_told_with_the_remedy() {
        let before = [entry("6.1.0-1", &[("connect4", 100, 1000)])];
        let faults = |verified, bytes| {
            compare(
                &before,
                &[entry("6.1.0-2", &[("connect4", verified, bytes)])],
            )
        };
        assert_eq!(faults(110, 1100), [""; 0]);
        assert_eq!(faults(1, 1), [""; 0]);
        for (fault, what) in [
            (faults(111, 1), "111 verified"),
            (faults(1, 1101), "1101 bytes"),
        ] {
            let [fault] = &*fault else {
                panic!("{fault:?}")
            };
            for word in [
                what,
                "connect4 of the object socket",
                "cargo xtask kernels --write",
            ] {
                assert!(fault.contains(word), "{fault}");
            }
        }
    }

    #[test]
    fn programs_that_come_and_go_are_told_and_so_is_a_kernel_without_a_record() {
        let before = [entry("6.1.0-1", &[("connect4", 1, 1), ("bind4", 1, 1)])];
        let now = entry("6.1.0-1", &[("connect4", 1, 1), ("bind6", 1, 1)]);
        let faults = compare(&before, std::slice::from_ref(&now));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert_eq!(compare(&[], &[now]).len(), 1);
    }

    #[test]
    fn programs_that_come_and_go_are_told_whoever_made_them() {
        let before = record("one", &[entry("6.1.0-1", &[("connect4", 1, 1)])]);
        let now = entry("6.1.0-1", &[("connect4", 9, 9), ("bind6", 1, 1)]);
        let told = |now: &[Entry]| before.compare(&record("another", now));
        let faults = told(std::slice::from_ref(&now));
        let [fault] = &*faults else {
            panic!("{faults:?}")
        };
        assert!(
            fault.contains("bind6 of the object socket is not in"),
            "{fault}"
        );
        let gone = told(&[entry("6.1.0-1", &[])]);
        assert!(gone[0].contains("is in the record alone"), "{gone:?}");
        let mut other = now;
        other.suite = "trixie".to_owned();
        let unknown = told(&[other]);
        assert!(unknown[0].contains("has nothing on trixie"), "{unknown:?}");
    }

    #[test]
    fn figures_of_another_release_line_are_not_compared() {
        let before = [entry("7.3.4+deb13-cloud-amd64", &[("connect4", 1, 1)])];
        let now = [entry("7.10.1+deb13-cloud-amd64", &[("connect4", 9, 9)])];
        assert_eq!((before[0].line(), now[0].line()), ("7.3", "7.10"));
        assert_eq!(compare(&before, &now), [""; 0]);
    }

    #[test]
    fn what_another_compiler_made_is_no_fault_and_is_not_kept_beside_the_new() {
        let before = record("one", &[entry("6.1.0-1", &[("connect4", 1, 1)])]);
        let mut other = entry("6.12.1", &[("connect4", 9, 9)]);
        other.suite = "trixie".to_owned();
        let again = entry("6.1.0-1", &[("connect4", 9, 9)]);
        let now = record("another", std::slice::from_ref(&again));
        assert_eq!(before.compare(&now), [""; 0]);
        assert_eq!(before.clone().with(&now), now);
        let now = record("one", &[other.clone(), again.clone()]);
        assert_eq!(before.with(&now).kernels, [again, other]);
    }
}
