//! Builds the kernel programs with a compiler and a linker that match.
//!
//! `-Z build-std=core` needs library sources of exactly the compiler's version, and the linker's LLVM must
//! be at least the compiler's. Two routes give that, and [`Toolchain::find`] takes the first that is there:
//! a pinned rustup nightly, or Debian's own compiler. `cargo xtask setup` makes one of them be there.
//!
//! aya-build is not used: where rustup is on PATH it always calls rustup's compiler.

pub mod paths;
mod toolchain;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

pub use toolchain::{
    Compiler, DEBIAN_RUSTC, NIGHTLY, Toolchain, debian_compiler, linker_for_llvm, rustup_compiler,
};

/// The target of the programs: little-endian BPF.
const TARGET: &str = "bpfel-unknown-none";

/// Cargo's variables that the inner call must not inherit, but for `CARGO_HOME`: they describe the outer
/// build, and its compiler and flags are the wrong ones here.
fn belongs_to_outer_build(name: &str) -> bool {
    (name.starts_with("CARGO") && name != "CARGO_HOME")
        || name.starts_with("RUSTC")
        || name.starts_with("RUSTDOC")
        || matches!(
            name,
            "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "CLIPPY_ARGS" | "CLIPPY_CONF_DIR"
        )
}

/// The variable that names the folder of tools where it is not in the workspace: for a copy of the sources.
pub const TOOLS: &str = "LB_TOOLS";

/// Where `cargo xtask setup` puts tools.
pub fn tools_dir(workspace: &Path) -> PathBuf {
    std::env::var_os(TOOLS).map_or_else(|| workspace.join(".tools"), PathBuf::from)
}

/// Builds every program of `lb-ebpf` and answers the folder that holds the objects, named like the files
/// in `src/bin`. `target_dir` must not be the outer build's own, whose lock is held.
///
/// # Errors
/// When no toolchain is there, or the build fails; the message names the remedy.
pub fn build(workspace: &Path, target_dir: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::find(&tools_dir(workspace))?;
    let mut command = cargo(workspace, target_dir, &toolchain, "build")?;
    let status = command.arg("--bins").status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the kernel programs do not build ({status}) with {toolchain}");
    }
    Ok(target_dir.join(TARGET).join("ebpf"))
}

/// For a build script: builds the programs and puts the object `name` into `OUT_DIR`, where the crate embeds it.
/// Never by a path into a target folder, which may be stale.
///
/// # Errors
/// As [`build`].
pub fn embed(name: &str) -> Result<()> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .with_context(|| format!("cargo sets {name}"))
    };
    let (krate, out) = (variable("CARGO_MANIFEST_DIR")?, variable("OUT_DIR")?);
    let workspace = krate.parent().context("the crate lies in the workspace")?;
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
    let objects = build(workspace, &workspace.join("target/ebpf"))?;
    std::fs::copy(objects.join(name), out.join(name)).context("cannot copy the object")?;
    Ok(())
}

/// Lints the programs with the clippy that matches their compiler.
///
/// # Errors
/// When no toolchain or no matching clippy is there, or clippy finds something.
pub fn clippy(workspace: &Path, target_dir: &Path) -> Result<()> {
    let toolchain = Toolchain::find(&tools_dir(workspace))?;
    let driver = toolchain.clippy_driver()?;
    let mut command = cargo(workspace, target_dir, &toolchain, "check")?;
    command
        .env("RUSTC_WORKSPACE_WRAPPER", driver)
        .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    let status = command.arg("--bins").status().context("cannot run cargo")?;
    if !status.success() {
        bail!("clippy refuses the kernel programs ({status})");
    }
    Ok(())
}

fn cargo(
    workspace: &Path,
    target_dir: &Path,
    toolchain: &Toolchain,
    verb: &str,
) -> Result<Command> {
    let mut flags = vec![
        OsString::from("-Cdebuginfo=2"),
        // Atomic exchange and fetch-and-add are v3 instructions (kernel 5.12).
        OsString::from("-Ctarget-cpu=v3"),
        // Without BTF, maps defined by BTF do not load.
        OsString::from("-Clink-arg=--btf"),
        // What zeroes a few bytes is stores then, and not a call of a loop over bytes in the way of each packet. The linker's default
        // keeps copies in the order of their bytes, which nothing here depends on.
        OsString::from("-Clink-arg=--disable-expand-memcpy-in-order"),
        [OsString::from("-Clinker="), toolchain.linker.clone().into()]
            .into_iter()
            .collect(),
    ];
    // BTF and debug information name the files of the source.
    flags.extend(paths::flags(&paths::renamed(workspace, &toolchain.rustc)?));
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_build) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(workspace)
        .args([
            verb,
            "--locked",
            "--package",
            "lb-ebpf",
            "--profile",
            "ebpf",
            "--target",
            TARGET,
        ])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .env("RUSTC", &toolchain.rustc)
        // Lets a compiler without the nightly name take `-Z` and unstable features.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags.join(&OsString::from("\u{1f}")),
        );
    Ok(command)
}
