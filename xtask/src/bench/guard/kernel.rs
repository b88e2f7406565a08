//! What this kernel makes of the programs of both trees, and how long they take side by side. The bench loads them.

use anyhow::{Context as _, Result};

use super::{
    judge::{Finding, Said},
    tree::Base,
};
use crate::{
    setup,
    shell::{cargo, run_and_hear, say},
    workspace,
};

/// What the programs are made of.
const PARTS: [&str; 5] = [
    "lb-ebpf",
    "lb-common",
    "lb-ebpf-build",
    "Cargo.toml",
    "Cargo.lock",
];

/// Compares the programs, if they differ.
///
/// # Errors
/// When a tree does not build, or the kernel refuses its programs.
pub(super) fn compare(base: &Base, short: bool) -> Result<Vec<Finding>> {
    let what = "kernel programs";
    if !base.differs(&PARTS)? {
        return Ok(vec![Finding::skipped(what, "they are as in the base")]);
    }
    if let Err(error) = setup::require_root("bench guard") {
        return Ok(vec![Finding::skipped(what, error.to_string())]);
    }
    say("building the kernel programs of both");
    let objects = |tree| lb_ebpf_build::build(tree, &tree.join("target/ebpf"));
    let (before, now) = (objects(&base.tree)?, objects(workspace())?);
    say("loading them");
    let mut bench = cargo();
    bench.args(["run", "--quiet", "--locked", "--package", "lb-bench"]);
    if !short {
        // What takes turns is the kernel's; but who lets it should not be in the way.
        bench.arg("--release");
    }
    bench.args(["--", "guard", "--before"]).arg(before);
    bench.arg("--now").arg(now);
    if short {
        bench.arg("--untimed");
    }
    let last = run_and_hear(&mut bench)?;
    let said: Said =
        serde_json::from_str(&last).context("the bench's last line is no comparison")?;
    Ok(said.findings())
}
