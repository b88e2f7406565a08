//! What the tests do not notice: cargo-mutants changes the pure cores in one place after another, and each time a test has
//! to fail. What is looked at, what is not and why is in `.cargo/mutants.toml`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::de::IgnoredAny;

use crate::{setup, shell::say, tools, workspace};

/// The crates with cores that know no IO. Each is mutated and tested by itself: together their features would unify.
const CRATES: [&str; 5] = ["lb-ebpf", "lb-common", "lb-packet", "lb-core", "lb-agent"];

/// What to change.
#[derive(Args, Default)]
pub(crate) struct Mutants {
    /// One crate; all that have cores, one after the other, if absent.
    #[arg(value_parser = CRATES)]
    package: Option<String>,
    /// Only these files, such as lb-packet/src/plan.rs, whether or not they are cores; may be repeated.
    #[arg(long, value_name = "GLOB")]
    file: Vec<String>,
    /// Only lines that differ from this commit.
    #[arg(long, value_name = "COMMIT")]
    since: Option<String>,
    /// One part of so many, counted from 0, such as 0/8.
    #[arg(long, value_name = "PART")]
    shard: Option<String>,
    /// Only tests with this in their names, such as vip::, which is sooner done; `--again` without it then asks the others.
    #[arg(long, value_name = "NAME")]
    tests: Option<String>,
    /// Only what no earlier run saw caught.
    #[arg(long)]
    again: bool,
    /// Say what would be changed, and change nothing.
    #[arg(long)]
    list: bool,
}

/// Changes the cores and runs their tests.
///
/// # Errors
/// When a change goes unnoticed, or the tests fail without one; the message has the file that says more. And when there was
/// nothing to change although all that was named should have been.
pub(crate) fn mutants(options: &Mutants) -> Result<()> {
    setup::programs()?;
    let binary = setup::cargo_mutants()?;
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let differing = options.since.as_deref().map(differing).transpose()?;
    let configuration = configuration(&options.file)?;
    let (mut changes, mut failed) = (0, Vec::new());
    for krate in CRATES {
        if options.package.as_deref().is_some_and(|it| it != krate) {
            continue;
        }
        say(&format!("what the tests of {krate} do not notice"));
        let output = folder.join(krate);
        let mut command = Command::new(&binary);
        command
            .current_dir(workspace())
            .args(["mutants", "--jobs", "1", "--no-shuffle", "--package", krate])
            .arg("--output")
            .arg(&output)
            // Dependencies are built once, and not for each copy of the sources.
            .env("CARGO_TARGET_DIR", folder.join("build"))
            // What chance found against one change is no test that the next one has to pass.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            // Nobody reads which the least case is that fails.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env(lb_ebpf_build::TOOLS, tools());
        if let Some(configuration) = &configuration {
            command.arg("--config").arg(configuration);
        }
        if let Some(differing) = &differing {
            command.arg("--in-diff").arg(differing);
        }
        if let Some(shard) = &options.shard {
            command.args(["--shard", shard]);
        }
        if options.again {
            command.arg("--iterate");
        }
        if options.list {
            command.arg("--list");
        }
        if let Some(tests) = &options.tests {
            command.arg("--").arg(tests);
        }
        let status = command.status();
        let status = status.with_context(|| format!("cannot run {}", binary.display()))?;
        let said = output.join("mutants.out");
        match status.code() {
            Some(0) => {}
            // A loop without end is noticed by whoever waits for the tests.
            Some(TOO_LONG) if is_empty(&said.join("missed.txt"))? => say(&format!(
                "some changes made the tests take too long, which is noticed; {} names them",
                said.join("timeout.txt").display()
            )),
            _ => {
                failed.push(format!("{krate}: {status}; see {}", said.display()));
                continue;
            }
        }
        if !options.may_be_nothing() {
            changes += planned(&said)?;
        }
    }
    if !failed.is_empty() {
        bail!(
            "{}\n`missed.txt` there names what no test notices: write the test, or say in .cargo/mutants.toml why there is none",
            failed.join("\n")
        );
    }
    if changes == 0 && !options.may_be_nothing() {
        bail!(
            "nothing was changed, so nothing is known: no file of these crates that has code is named by {}",
            options.whose()
        );
    }
    Ok(())
}

impl Mutants {
    /// Whether nothing to change is an answer: no line differs, all was caught before, or it is only a list.
    fn may_be_nothing(&self) -> bool {
        self.again || self.list || self.since.is_some()
    }

    /// What says which files are changed, for people.
    fn whose(&self) -> String {
        if self.file.is_empty() {
            return CONFIGURATION.to_owned();
        }
        format!("--file {}", self.file.join(" --file "))
    }
}

/// How many changes cargo-mutants planned, of which it writes a list before it begins.
fn planned(said: &Path) -> Result<usize> {
    let file = said.join("mutants.json");
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let list: Vec<IgnoredAny> = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no list of changes", file.display()))?;
    Ok(list.len())
}

/// What `ci` does: a part of what the kernel and the agent share.
///
/// # Errors
/// As [`mutants`].
pub(crate) fn short() -> Result<()> {
    mutants(&Mutants {
        package: Some("lb-common".to_owned()),
        shard: Some("0/12".to_owned()),
        ..Mutants::default()
    })
}

/// The file that takes the place of the configuration where only `files` are to be changed: what cargo-mutants is told of
/// files on its command line comes on top of those that its configuration has.
fn configuration(files: &[String]) -> Result<Option<PathBuf>> {
    if files.is_empty() {
        return Ok(None);
    }
    let usual = workspace().join(CONFIGURATION);
    let usual =
        fs::read_to_string(&usual).with_context(|| format!("cannot read {}", usual.display()))?;
    let file = folder().join("mutants.toml");
    let text = examining(&usual, files)
        .with_context(|| format!("{CONFIGURATION} has no list that begins with {LIST:?}"))?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Some(file))
}

/// A configuration that has `files` in the place of those that it examines; `None` if it has no such list.
fn examining(configuration: &str, files: &[String]) -> Option<String> {
    let (before, list) = configuration.split_once(LIST)?;
    let (_, after) = list.split_once("\n]\n")?;
    let files = files.iter().map(|glob| format!("{glob:?}"));
    let files: Vec<String> = files.collect();
    Some(format!("{before}{LIST}{}]\n{after}", files.join(", ")))
}

fn is_empty(file: &Path) -> Result<bool> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().is_empty())
}

/// How cargo-mutants ends when tests took too long (<https://mutants.rs/exit-codes.html>).
const TOO_LONG: i32 = 3;
/// What is looked at and what is not, and why.
const CONFIGURATION: &str = ".cargo/mutants.toml";
/// Before the files in it.
const LIST: &str = "examine_globs = [";

/// The file with what differs from `commit`.
fn differing(commit: &str) -> Result<PathBuf> {
    let file = folder().join("differing");
    let output = Command::new("git")
        .current_dir(workspace())
        .args(["diff", "--no-color", commit])
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!(
            "git does not know what differs from {commit}: {}",
            why.trim()
        );
    }
    fs::write(&file, output.stdout).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn folder() -> PathBuf {
    workspace().join("target/mutants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_named_take_the_place_of_the_cores_and_nothing_else_changes() {
        let usual = fs::read_to_string(workspace().join(CONFIGURATION)).unwrap();
        let files = ["lb-core/src/plan.rs", "lb-core/src/plan/*.rs"].map(str::to_owned);
        let narrowed = examining(&usual, &files).unwrap();
        let of_files = "examine_globs = [\"lb-core/src/plan.rs\", \"lb-core/src/plan/*.rs\"]\n";
        assert!(narrowed.contains(of_files), "{narrowed}");
        assert!(!narrowed.contains("lb-packet/src"), "{narrowed}");
        let [before, after] = ["# What `cargo xtask mutants`", "\nexclude_globs = ["];
        assert!(narrowed.starts_with(before) && narrowed.contains(after));
        let rest = |text: &str| text.split_once("\nexclude_globs").map(|it| it.1.to_owned());
        assert_eq!(rest(&narrowed), rest(&usual));
        assert_eq!(examining("exclude_globs = []\n", &files), None);
    }

    #[test]
    fn the_changes_are_counted_of_which_cargo_mutants_writes_a_list() {
        let folder = tempfile::tempdir().unwrap();
        assert!(planned(folder.path()).is_err());
        let one = r#"{"name": "lb-core/src/plan.rs:1:2: replace f with ()", "package": "lb-core", "span": {}}"#;
        for (list, count) in [("[]", 0), (&*format!("[\n  {one},\n  {one}\n]"), 2)] {
            fs::write(folder.path().join("mutants.json"), list).unwrap();
            assert_eq!(planned(folder.path()).unwrap(), count);
        }
    }

    #[test]
    fn nothing_to_change_is_an_answer_only_where_less_than_all_was_asked_for() {
        let named = Mutants {
            file: vec!["lb-core/src/paln.rs".to_owned()],
            ..Mutants::default()
        };
        assert!(!named.may_be_nothing());
        assert_eq!(named.whose(), "--file lb-core/src/paln.rs");
        let since = Mutants {
            since: Some("HEAD".to_owned()),
            ..Mutants::default()
        };
        assert!(since.may_be_nothing());
    }

    #[test]
    fn every_name_of_files_in_the_configuration_is_of_some() {
        let configuration = fs::read_to_string(workspace().join(CONFIGURATION)).unwrap();
        let mut names = 0;
        for list in [LIST, "exclude_globs = ["] {
            let (_, list) = configuration.split_once(list).unwrap();
            let (list, _) = list.split_once("\n]\n").unwrap();
            let lines = list.lines().map(str::trim);
            for name in lines.filter_map(|line| line.strip_prefix('"')?.strip_suffix("\",")) {
                // Of crates only: what was built takes long to walk through.
                let name = name.replacen("**/", "lb-*/**/", usize::from(name.starts_with("**/")));
                let mut find = Command::new("bash");
                find.current_dir(workspace())
                    .args(["-O", "globstar", "-O", "failglob", "-c"])
                    .arg(format!("ls -d -- {name}"));
                let found = find.output().unwrap();
                let said = String::from_utf8_lossy(&found.stderr);
                assert!(found.status.success(), "{name}: {said}");
                names += 1;
            }
        }
        assert!(names > 10, "{names}");
    }
}
