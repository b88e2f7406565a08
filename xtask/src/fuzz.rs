//! The fuzz targets: built with LLVM's coverage by any compiler, run by libFuzzer for a while. What is found lies in
//! `fuzz/crashes/`, where the tests replay it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    setup,
    shell::{cargo, run, say},
    workspace,
};

/// What to fuzz.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// One target; all of them, one after the other, if absent.
    target: Option<String>,
    /// How long to look, for each target.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
}

/// Fuzzes.
///
/// # Errors
/// When a target cannot be built, or something was found; the message has its file.
pub(crate) fn fuzz(fuzz: &Fuzz) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = match &fuzz.target {
        None => targets.iter().collect(),
        Some(name) => match targets.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!(
                "there is no target {name:?}; there are {}",
                targets.join(", ")
            ),
        },
    };
    search(&chosen, fuzz.seconds)
}

/// What `ci` does: a moment with each of the targets that are built without the agent.
///
/// # Errors
/// As [`fuzz`].
pub(crate) fn short() -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = targets.iter().filter(|it| is_light(it)).collect();
    search(&chosen, MOMENT)
}

fn search(targets: &[&String], seconds: u64) -> Result<()> {
    setup::programs()?;
    setup::fuzz_programs()?;
    let host = host()?;
    say("building the fuzz targets (the first time takes a few minutes)");
    build(&host, targets)?;
    let mut found = Vec::new();
    for target in targets {
        say(&format!("{target} for {seconds} s"));
        if look(target, &host, seconds)? {
            found.push(target.as_str());
        }
    }
    if !found.is_empty() {
        bail!(
            "{} failed: the inputs are in fuzz/crashes/; keep them, the tests replay them",
            found.join(", ")
        );
    }
    Ok(())
}

/// The targets, by the names of their files.
fn targets() -> Result<Vec<String>> {
    let folder = workspace().join("fuzz/targets");
    let files =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut targets = Vec::new();
    for file in files {
        let path = file?.path();
        targets.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    targets.sort();
    Ok(targets)
}

fn build(host: &str, targets: &[&String]) -> Result<()> {
    let mut build = cargo();
    // With a target named, the flags are not those of build scripts and macros.
    build
        .args(["build", "--release", "--locked", "--quiet"])
        .arg("--manifest-path")
        .arg(workspace().join("fuzz/Cargo.toml"))
        .arg("--target")
        .arg(host)
        .arg("--target-dir")
        .arg(target_dir())
        .env("RUSTFLAGS", FLAGS.join(" "))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    for target in targets {
        build.args(["--bin", target]);
    }
    if targets.iter().all(|it| is_light(it)) {
        build.arg("--no-default-features");
    }
    run(&mut build)
}

/// The front and the programs need nothing of the agent, which takes by far the longest to build.
fn is_light(target: &str) -> bool {
    ["front_", "packet_"]
        .iter()
        .any(|it| target.starts_with(it))
}

/// Whether something was found.
fn look(target: &str, host: &str, seconds: u64) -> Result<bool> {
    let fuzz = workspace().join("fuzz");
    let crashes = fuzz.join("crashes").join(target);
    // What is new and harmless is of use to the next run, and of none to anybody else.
    let own = target_dir().join("corpus").join(target);
    for folder in [&crashes, &own] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let status = Command::new(target_dir().join(host).join("release").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args(BOUNDS)
        .args([&own, &fuzz.join("corpus").join(target)])
        .current_dir(&fuzz)
        .status()
        .with_context(|| format!("cannot run the fuzz target {target}"))?;
    // Empty folders are not worth keeping.
    let _ = fs::remove_dir(&crashes);
    let _ = fs::remove_dir(fuzz.join("crashes"));
    Ok(!status.success())
}

fn target_dir() -> PathBuf {
    workspace().join("target/fuzz")
}

/// The triple of this machine.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output();
    let output = output.context("cannot ask rustc for this machine's triple")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("rustc does not say this machine's triple")?
        .to_owned())
}

/// Seconds for each target in [`short`]: what is kept is read, and some thousand inputs beyond it.
const MOMENT: u64 = 3;

/// LLVM's own coverage, which a stable compiler passes on: no nightly is needed. Without an address sanitizer, since
/// what is fuzzed has no unsafe code.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// An input that takes longer than ten seconds, or a gigabyte, is a find as well.
const BOUNDS: &[&str] = &[
    "-max_len=16384",
    "-timeout=10",
    "-rss_limit_mb=1024",
    "-print_final_stats=1",
    "-verbosity=0",
];
