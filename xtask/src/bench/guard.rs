//! `cargo xtask bench guard`: whether this tree is slower than a base, by what can be counted on a busy machine: instructions of
//! user space's hot paths, what the verifier goes through and the kernel's compiler makes of each program, and times of
//! programs that take turns in one run.

mod callgrind;
mod judge;
mod kernel;
mod tree;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::judge::Finding;
pub(crate) use self::tree::Base;
use crate::{setup, shell::say, workspace};

/// Arguments of `cargo xtask bench guard`.
#[derive(Args)]
pub(crate) struct Guard {
    /// The commit to compare with; `LB_BASE` says it as well.
    #[arg(long, value_name = "REF", env = BASE)]
    base: Option<String>,
    /// Only what is cheap, for every run of the checks: instructions without those of the agent's own crate, and the kernel's figures
    /// without times.
    #[arg(long)]
    short: bool,
}

/// The variable that names the base.
const BASE: &str = "LB_BASE";

/// Why nothing can be compared, and the remedy.
const UNKNOWN: &str = "no base is known: name a commit with --base or LB_BASE";

/// Compares, and prints what was found.
///
/// # Errors
/// When no base is known, something is slower by more than the limits, or a tree cannot be built.
pub(crate) fn run(guard: &Guard) -> Result<()> {
    // A variable that is empty names none.
    let base = guard.base.as_deref().filter(|it| !it.is_empty());
    let base = base.with_context(|| format!("{UNKNOWN}, such as --base main"))?;
    compare(base, guard.short)
}

/// The short form, with the base that the environment names. Without one it says that nothing was compared: whoever asks for
/// all checks has not asked for this one.
///
/// # Errors
/// As [`run`].
pub(crate) fn short() -> Result<()> {
    let base = std::env::var(BASE).ok().filter(|it| !it.is_empty());
    if base.is_none() {
        say(&format!(
            "NOT CHECKED: whether anything is slower: {UNKNOWN}"
        ));
        return Ok(());
    }
    run(&Guard { base, short: true })
}

fn compare(base: &str, short: bool) -> Result<()> {
    setup::programs()?;
    let base = Base::of(workspace(), base)?;
    say(&format!("comparing this tree with {}", base.commit));
    let mut findings = shown(callgrind::compare(&base, short)?);
    findings.extend(shown(kernel::compare(&base, short)?));
    conclude(&findings)
}

/// Prints what was found, as soon as it is.
fn shown(findings: Vec<Finding>) -> Vec<Finding> {
    for finding in &findings {
        println!("{finding}");
    }
    findings
}

/// What is slower is the error.
fn conclude(findings: &[Finding]) -> Result<()> {
    let slower = findings.iter().filter(|it| it.is_slower());
    let slower: Vec<_> = slower.map(Finding::to_string).collect();
    if slower.is_empty() {
        say("nothing is slower than the limits allow");
        return Ok(());
    }
    bail!(
        "slower than the base by more than the limits:\n  {}\nmake it cheaper, or say in the commit why it has to be",
        slower.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_that_is_asked_for_without_a_base_fails_with_the_remedy() {
        for base in [None, Some(String::new())] {
            let error = run(&Guard { base, short: true }).unwrap_err().to_string();
            assert!(error.contains("--base main"), "{error}");
        }
    }
}
