//! Tools of cargo, built once for each version.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    shell::{cargo, run, say},
    tools,
};

/// The version of cargo-deny that the configuration is written for.
const CARGO_DENY: &str = "0.20.2";

/// The version of cargo-mutants that the configuration is written for.
const CARGO_MUTANTS: &str = "27.1.0";

/// The version of cargo-cyclonedx, which lists what the agent is made of.
const CARGO_CYCLONEDX: &str = "0.5.9";

/// cargo-deny in the tool folder; answers its path.
///
/// # Errors
/// When it can neither be found nor be installed.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let does = "checks licences and sources of the dependencies (about 4 minutes on 2 cores)";
    tool("cargo-deny", CARGO_DENY, does)
}

/// cargo-mutants in the tool folder; answers its path.
///
/// # Errors
/// When it can neither be found nor be installed.
pub(crate) fn cargo_mutants() -> Result<PathBuf> {
    let does = "finds what the tests do not notice (about 3 minutes on 2 cores)";
    tool("cargo-mutants", CARGO_MUTANTS, does)
}

/// cargo-cyclonedx in the tool folder; answers its path.
///
/// # Errors
/// When it can neither be found nor be installed.
pub(crate) fn cargo_cyclonedx() -> Result<PathBuf> {
    let does = "lists what the agent is made of (about 3 minutes on 2 cores)";
    tool("cargo-cyclonedx", CARGO_CYCLONEDX, does)
}

/// A tool of cargo in the tool folder, built if it is not there; answers its path.
fn tool(name: &str, version: &str, does: &str) -> Result<PathBuf> {
    let root = tools().join(format!("{name}-{version}"));
    let binary = root.join("bin").join(name);
    if !binary.exists() {
        say(&format!("building {name}, which {does}"));
        cargo_install(name, version, &root, &[], &[])?;
    }
    Ok(binary)
}

pub(super) fn cargo_install(
    name: &str,
    version: &str,
    root: &Path,
    features: &[&str],
    env: &[(&str, &Path)],
) -> Result<()> {
    fs::create_dir_all(tools())?;
    // Two commands at once must not build into one folder; the lock goes with the process.
    let lock = fs::File::create(tools().join("lock"))?;
    lock.lock()?;
    if root.exists() {
        return Ok(());
    }
    // Half an installation is none: the folder gets its name when it is whole.
    let mut unfinished = root.to_owned().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    let mut command = cargo();
    command
        .args(["install", name, "--version", version, "--locked"])
        .args(features);
    command
        .arg("--root")
        .arg(&unfinished)
        .arg("--target-dir")
        .arg(unfinished.join("target"));
    run(command.envs(env.iter().copied()))?;
    fs::remove_dir_all(unfinished.join("target"))
        .context("cannot remove the build folder of a tool")?;
    fs::rename(&unfinished, root).with_context(|| format!("cannot name {}", root.display()))
}
