//! Instructions of user space's hot paths, by callgrind. Each is a test whose name begins with `hot_path_`, and takes its path as often
//! as it is told; what the runs cost is the difference of two counts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_testkit::{HOT_PATH, HOT_RUNS};
use serde_json::Value;

use super::{
    judge::{Finding, Unit, Values},
    tree::Base,
};
use crate::{
    packages,
    shell::{cargo, output, say},
    tools, workspace,
};

/// A crate with hot paths.
struct Crate {
    name: &'static str,
    /// What it is made of beside itself.
    parts: &'static [&'static str],
    /// Whether it builds fast enough for every run of the checks.
    is_small: bool,
}

const CRATES: [Crate; 5] = [
    Crate {
        name: "lb-ebpf",
        parts: &["lb-common"],
        is_small: true,
    },
    Crate {
        name: "lb-packet",
        parts: &["lb-common", "lb-sys"],
        is_small: true,
    },
    Crate {
        name: "lb-front",
        parts: &["lb-common", "lb-sys"],
        is_small: true,
    },
    Crate {
        name: "lb-core",
        parts: &["lb-common", "lb-sys", "lb-front", "lb-packet"],
        is_small: true,
    },
    Crate {
        name: "lb-agent",
        parts: &[
            "lb-common",
            "lb-sys",
            "lb-front",
            "lb-packet",
            "lb-core",
            "lb-ebpf",
        ],
        is_small: false,
    },
];

/// What changes everything.
const SHARED: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// Runs that tell about what one takes, above those that every count has.
const FEW: u64 = 10;
const SOME: u64 = 50;

/// Equal tests differ by a thousand instructions or two, since hashes have seeds; against so many that is nothing.
const ENOUGH: u64 = 5_000_000;

/// Compares the crates that differ.
///
/// # Errors
/// When one cannot be built, or a path cannot be counted.
pub(super) fn compare(base: &Base, short: bool) -> Result<Vec<Finding>> {
    let valgrind = packages::valgrind(&tools())?;
    let mut findings = Vec::new();
    for it in &CRATES {
        let paths = [&[it.name], it.parts, &SHARED].concat();
        if !base.differs(&paths)? {
            findings.push(Finding::skipped(it.name, "it is as in the base"));
            continue;
        }
        if short && !it.is_small {
            findings.push(Finding::skipped(it.name, "not in the short form"));
            continue;
        }
        if !base.tree.join(it.name).is_dir() {
            findings.push(Finding::skipped(it.name, "the base has no such crate"));
            continue;
        }
        say(&format!("counting instructions of {}", it.name));
        let before = counts(&base.tree, it, &valgrind)?;
        let now = counts(workspace(), it, &valgrind)?;
        ensure!(
            !now.is_empty(),
            "{} has no test whose name begins with {HOT_PATH}; take it off the list or give it one",
            it.name
        );
        findings.extend(beside(it.name, &before, &now));
    }
    Ok(findings)
}

/// Both side by side. Pure.
fn beside(name: &str, before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<Finding> {
    let mut paths: Vec<_> = before.keys().chain(now.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let finding = |path: &String| Finding {
        what: format!("{name}: {path}"),
        values: Values::Count {
            unit: Unit::Instructions,
            before: before.get(path).copied(),
            now: now.get(path).copied(),
        },
    };
    paths.into_iter().map(finding).collect()
}

/// Instructions of a thousand runs of each path of a crate of `tree`, by its name.
fn counts(tree: &Path, it: &Crate, valgrind: &Path) -> Result<BTreeMap<String, u64>> {
    let tests = build(tree, it.name)?;
    let listed = output(Command::new(&tests).arg("--list"))?;
    let mut counts = BTreeMap::new();
    for path in listed.lines().filter_map(hot_path) {
        let count = |runs| count(valgrind, &tests, path, runs);
        let few = count(FEW)?;
        let about = count(FEW + SOME)?.saturating_sub(few) / SOME;
        let more = enough(about);
        let thousand = count(FEW + more)?.saturating_sub(few) * 1000 / more;
        ensure!(
            thousand > 0,
            "{path} takes no instruction: is what it makes used?"
        );
        counts.insert(path.to_owned(), thousand);
    }
    Ok(counts)
}

/// How many runs are enough of what takes about so many instructions. Pure.
fn enough(about: u64) -> u64 {
    (ENOUGH / about.max(1)).clamp(SOME, 100_000)
}

/// The test that a line of the list names, if it is one of a hot path.
fn hot_path(line: &str) -> Option<&str> {
    let path = line.strip_suffix(": test")?;
    let name = path.rsplit("::").next()?;
    name.starts_with(HOT_PATH).then_some(path)
}

/// Builds the tests of a crate as its users would build it. Each tree has a folder of its own: cargo takes crates for the same that
/// lie at the same place of their workspaces.
fn build(tree: &Path, name: &str) -> Result<PathBuf> {
    let target = tree.join("target/guard-build");
    let mut command = cargo();
    command
        .current_dir(tree)
        .args([
            "test",
            "--quiet",
            "--locked",
            "--release",
            "--lib",
            "--no-run",
        ])
        .args(["--message-format", "json", "--package", name])
        .env("CARGO_TARGET_DIR", target)
        // Optimised, but soon.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    let messages = output(command.stderr(Stdio::inherit()))?;
    executable(&messages)
        .with_context(|| format!("cargo names no tests of {name} in {}", tree.display()))
}

/// The program that cargo's messages name last.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().rev();
    let mut messages = messages.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.find_map(|it| it["executable"].as_str().map(PathBuf::from))
}

/// Instructions of a whole test that takes its path so often.
fn count(valgrind: &Path, tests: &Path, path: &str, runs: u64) -> Result<u64> {
    let mut command = Command::new(valgrind.join("usr/bin/valgrind"));
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(tests)
        // In the first thread, so that nobody else's turns count.
        .args(["--exact", path, "--test-threads=1"])
        .env("VALGRIND_LIB", valgrind.join("usr/libexec/valgrind"))
        .env(HOT_RUNS, runs.to_string());
    let output = command.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let shown = String::from_utf8_lossy(&output.stdout);
        bail!("{path} fails under callgrind:\n{shown}{said}");
    }
    collected(&said).with_context(|| format!("callgrind does not say what {path} takes:\n{said}"))
}

/// The count in what callgrind says at its end.
fn collected(said: &str) -> Option<u64> {
    let mut counts = said
        .lines()
        .filter_map(|line| line.split_once("Collected : "));
    counts.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_hot_paths_are_taken() {
        assert_eq!(
            hot_path("dns::hot::hot_path_of_it: test"),
            Some("dns::hot::hot_path_of_it")
        );
        assert_eq!(hot_path("hot_path_of_it: test"), Some("hot_path_of_it"));
        for line in [
            "dns::a_hot_path_of_it: test",
            "hot_path_of_it: benchmark",
            "3 tests, 0 benchmarks",
        ] {
            assert_eq!(hot_path(line), None, "{line}");
        }
    }

    #[test]
    fn what_takes_little_is_run_more_often() {
        assert_eq!(enough(100), 50_000);
        assert_eq!(enough(0), 100_000);
        assert_eq!(enough(10_000_000), SOME);
    }

    #[test]
    fn the_count_is_that_of_callgrinds_last_words() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("==7== Events : Ir\n"), None);
    }

    #[test]
    fn the_tests_are_the_last_program_that_cargo_names() {
        let messages = "{\"executable\":null}\n{\"executable\":\"/a\"}\nno json\n{\"executable\":\"/b\"}\n{\"success\":true}\n";
        assert_eq!(executable(messages), Some("/b".into()));
        assert_eq!(executable("{}\n"), None);
    }

    #[test]
    fn paths_of_either_tree_are_compared_by_name() {
        let counts = |all: &[(&str, u64)]| {
            all.iter()
                .map(|&(name, count)| (name.to_owned(), count))
                .collect()
        };
        let found = beside(
            "it",
            &counts(&[("a", 100), ("b", 1)]),
            &counts(&[("a", 104), ("c", 2)]),
        );
        let said: Vec<_> = found.iter().map(Finding::to_string).collect();
        assert_eq!(
            said,
            [
                "it: a: 104 instructions of 1,000 runs, 100 before: +4.00 % (at most +3 %)",
                "it: b: gone, 1 instructions of 1,000 runs before",
                "it: c: 2 instructions of 1,000 runs, new",
            ]
        );
        assert!(found[0].is_slower() && !found[1].is_slower() && !found[2].is_slower());
    }
}
