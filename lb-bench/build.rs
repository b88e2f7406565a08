//! Builds the programs that the bench holds against the agent's, and puts the object beside its own build
//! output, where it is embedded: never by a path into a target folder, which may be stale.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let crate_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    let workspace = crate_dir
        .parent()
        .context("the crate lies in the workspace")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    for input in [
        "lb-ebpf",
        "lb-common",
        "lb-ebpf-build",
        "Cargo.lock",
        "Cargo.toml",
    ] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    // One nested target folder for all profiles of the outer build; its lock is not the outer one's.
    let objects = lb_ebpf_build::build(workspace, &workspace.join("target/ebpf"))?;
    fs::copy(objects.join("bench"), out.join("bench")).context("cannot copy the object")?;
    Ok(())
}
