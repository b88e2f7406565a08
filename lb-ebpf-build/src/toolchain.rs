//! Which compiler and which linker: the two routes.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The pinned nightly of the rustup route: the last ones with LLVM 22, which the linker of that route knows.
pub const NIGHTLY: &str = "nightly-2026-08-05";

/// The compiler of the Debian route (package `rustc-web`).
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler with its library sources, and a linker whose LLVM is at least the compiler's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
    /// The compiler's release and LLVM, for people to read.
    pub version: String,
}

impl Toolchain {
    /// The compiler's version, and that of its LLVM.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}) and {}",
            self.rustc.display(),
            self.version,
            self.linker.display()
        )
    }
}

/// The linker's folder below the tools folder, and how cargo installs it: version and feature flags.
///
/// bpf-linker 0.10 links with the LLVM that rustup's compiler brings along; from 0.11 on it needs a system
/// LLVM, chosen by a feature.
///
/// # Errors
/// For an LLVM that no pinned linker knows.
pub fn linker_for_llvm(llvm: u32, rustup: bool) -> Result<(PathBuf, &'static str, Option<String>)> {
    match (rustup, llvm) {
        (true, 20..=22) => Ok(("bpf-linker-0.10.4".into(), "0.10.4", None)),
        (false, 21..=23) => Ok((
            format!("bpf-linker-0.13.0-llvm-{llvm}").into(),
            "0.13.0",
            Some(format!("llvm-{llvm}")),
        )),
        _ => bail!(
            "the compiler for the kernel programs uses LLVM {llvm}, which no pinned bpf-linker knows; \
             teach lb-ebpf-build/src/toolchain.rs a newer one"
        ),
    }
}

impl Toolchain {
    /// The first route whose parts are all there.
    ///
    /// # Errors
    /// When neither is complete; the message names the command that mends it.
    pub fn find(tools: &Path) -> Result<Self> {
        let mut missing = Vec::new();
        for route in [rustup_compiler, debian_compiler] {
            match route().and_then(|compiler| compiler.with_linker(tools)) {
                Ok(toolchain) => return Ok(toolchain),
                Err(error) => missing.push(format!("{error:#}")),
            }
        }
        bail!(
            "no toolchain for the kernel programs is complete; `cargo xtask setup` installs one ({})",
            missing.join("; ")
        )
    }

    /// The clippy that was built with this compiler.
    ///
    /// # Errors
    /// When there is none, or it is of another version.
    pub fn clippy_driver(&self) -> Result<PathBuf> {
        let driver = self.rustc.with_file_name("clippy-driver");
        let output = Command::new(&driver)
            .arg("--version")
            .output()
            .with_context(|| {
                format!(
                    "cannot run {}; `cargo xtask setup` installs it",
                    driver.display()
                )
            })?;
        if !output.status.success() {
            bail!(
                "{} does not run: {}",
                driver.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(driver)
    }
}

/// A compiler whose library sources are there.
pub struct Compiler {
    /// The binary.
    pub rustc: PathBuf,
    /// Its LLVM's major version.
    pub llvm: u32,
    /// Whether it is rustup's.
    pub rustup: bool,
    version: String,
}

impl Compiler {
    fn with_linker(self, tools: &Path) -> Result<Toolchain> {
        let (folder, _, _) = linker_for_llvm(self.llvm, self.rustup)?;
        let linker = tools.join(folder).join("bin/bpf-linker");
        if !linker.exists() {
            bail!("{} is missing", linker.display());
        }
        Ok(Toolchain {
            rustc: self.rustc,
            linker,
            version: self.version,
        })
    }
}

/// The pinned nightly, if it is installed with its sources.
///
/// # Errors
/// When it is not.
pub fn rustup_compiler() -> Result<Compiler> {
    let output = Command::new("rustup")
        .args(["which", "--toolchain", NIGHTLY, "rustc"])
        // Looking must never install.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .context("rustup is not installed")?;
    if !output.status.success() {
        bail!("rustup has no {NIGHTLY}");
    }
    let path = String::from_utf8(output.stdout).context("rustup answers no path")?;
    compiler(PathBuf::from(path.trim()), true)
}

/// Debian's compiler, if it is installed with its sources.
///
/// # Errors
/// When it is not.
pub fn debian_compiler() -> Result<Compiler> {
    compiler(PathBuf::from(DEBIAN_RUSTC), false)
}

fn compiler(rustc: PathBuf, rustup: bool) -> Result<Compiler> {
    let run = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(&rustc)
            .args(arguments)
            .output()
            .with_context(|| format!("{} is not installed", rustc.display()))?;
        String::from_utf8(output.stdout).context("the compiler answers no text")
    };
    let verbose = run(&["-vV"])?;
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let release = field("release:").context("the compiler states no release")?;
    let llvm_version = field("LLVM version:").context("the compiler states no LLVM version")?;
    let llvm = llvm_version
        .split('.')
        .next()
        .unwrap_or_default()
        .parse()
        .context("the LLVM version is no number")?;
    let version = format!("rustc {release}, LLVM {llvm_version}");
    let sysroot = run(&["--print", "sysroot"])?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !sources.exists() {
        bail!(
            "{} has no library sources ({} is missing)",
            rustc.display(),
            sources.display()
        );
    }
    Ok(Compiler {
        rustc,
        llvm,
        rustup,
        version,
    })
}
