//! Finds or installs what building and testing need: idempotent, never asking, saying what and why.
//!
//! As root on Debian it installs packages; elsewhere it prints the exact commands. What is not a package goes
//! into the ignored tool folder and nowhere else.

mod cargo_tools;
mod python_tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use lb_ebpf_build::{
    Compiler, NIGHTLY, Toolchain, debian_compiler, linker_for_llvm, rustup_compiler,
};
use nix::unistd::Uid;

use self::cargo_tools::cargo_install;
pub(crate) use self::{
    cargo_tools::{cargo_cyclonedx, cargo_deny, cargo_mutants},
    python_tools::{axe, cfn_lint, cyclonedx},
};
use crate::{
    shell::{on_path, run, say},
    tools,
};

/// Programs that the tests and the demo run, with the Debian package of each.
const PROGRAMS: [(&str, &str); 11] = [
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("dpkg", "dpkg"),
    ("gpgv", "gpgv"),
    ("xz", "xz-utils"),
    ("systemd-analyze", "systemd"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// Programs that packages are made with; the others are everywhere.
const DIST_PROGRAMS: [(&str, &str); 4] = [
    ("dpkg-deb", "dpkg"),
    ("git", "git"),
    ("gzip", "gzip"),
    ("tar", "tar"),
];

/// Without a font the browser of the tests paints boxes.
const FONT: (&str, &str) = ("/usr/share/fonts/truetype/dejavu", "fonts-dejavu-core");

/// Everything, for the one who wants it at once.
///
/// # Errors
/// When a part can be neither found nor installed; the message has the commands that would.
pub(crate) fn everything() -> Result<()> {
    programs()?;
    test_programs()?;
    cargo_deny()?;
    cargo_cyclonedx()?;
    cyclonedx()?;
    cfn_lint()?;
    axe()?;
    crate::packages::for_tests(&tools())?;
    crate::kernels::fetch()?;
    say("everything is there: `cargo xtask demo` and `cargo xtask test` can run");
    Ok(())
}

/// The compiler and the linker of the kernel programs.
///
/// # Errors
/// As [`everything`].
pub(crate) fn programs() -> Result<()> {
    if Toolchain::find(&tools()).is_ok() {
        return Ok(());
    }
    let compiler = match rustup_compiler().or_else(|_| debian_compiler()) {
        Ok(compiler) => compiler,
        Err(_) => install_compiler()?,
    };
    install_linker(&compiler)?;
    let toolchain = Toolchain::find(&tools())?;
    say(&format!("the kernel programs are built by {toolchain}"));
    Ok(())
}

/// The programs that the tests and the demo run.
///
/// # Errors
/// As [`everything`].
pub(crate) fn test_programs() -> Result<()> {
    let mut missing = missing(&PROGRAMS);
    let (font, package) = FONT;
    if is_debian() && !Path::new(font).exists() {
        missing.push(package);
    }
    if missing.is_empty() {
        Ok(())
    } else {
        install_packages(&missing, "the tests and the demo run their programs")
    }
}

/// The programs that `dist` makes packages with.
///
/// # Errors
/// As [`everything`].
pub(crate) fn dist_programs() -> Result<()> {
    let missing = missing(&DIST_PROGRAMS);
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing, "packages are made with them")
}

/// The packages of those programs that are not there.
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|(program, _)| !on_path(program));
    missing.map(|&(_, package)| package).collect()
}

/// What building the fuzz targets takes beside the rest: libFuzzer is C++.
///
/// # Errors
/// As [`everything`].
pub(crate) fn fuzz_programs() -> Result<()> {
    if on_path("c++") {
        return Ok(());
    }
    install_packages(
        &["g++"],
        "it compiles libFuzzer, which runs the fuzz targets",
    )
}

/// Refuses with the line that would work when the caller is not root.
///
/// # Errors
/// When the caller is not root.
pub(crate) fn require_root(command: &str) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    bail!(
        "this needs root: it loads kernel programs and makes network namespaces; \
         run: sudo --preserve-env=PATH,HOME cargo xtask {command}"
    )
}

fn install_compiler() -> Result<Compiler> {
    if is_debian() && Uid::effective().is_root() {
        let why = "they compile the kernel programs, with library sources that match exactly";
        install_packages(&["rustc-web", "rust-web-src", "rust-web-clippy"], why)?;
        return debian_compiler();
    }
    if on_path("rustup") {
        say(&format!(
            "installing {NIGHTLY} with its sources: it compiles the kernel programs"
        ));
        let components = ["--component", "rust-src", "--component", "clippy"];
        let mut install = Command::new("rustup");
        install
            .args(["toolchain", "install", NIGHTLY, "--profile", "minimal"])
            .args(components);
        if run(&mut install).is_ok() {
            return rustup_compiler();
        }
    }
    bail!(
        "the kernel programs need a compiler whose library sources are installed; either\n  \
         rustup toolchain install {NIGHTLY} --profile minimal --component rust-src --component clippy\n\
         or, on Debian 12,\n  \
         sudo apt-get install rustc-web rust-web-src rust-web-clippy\n\
         and run this command again"
    )
}

fn install_linker(compiler: &Compiler) -> Result<()> {
    let (folder, version, feature) = linker_for_llvm(compiler.llvm, compiler.rustup)?;
    let root = tools().join(folder);
    let Some(feature) = feature else {
        say(&format!(
            "building bpf-linker {version}, which links the kernel programs (about 5 minutes on 2 cores)"
        ));
        return cargo_install("bpf-linker", version, &root, &[], &[]);
    };
    let llvm = compiler.llvm;
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if !prefix.join("bin/llvm-config").exists() {
        let (headers, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
        let packages = [
            headers.as_str(),
            polly.as_str(),
            "libzstd-dev",
            "zlib1g-dev",
            "gcc",
            "g++",
        ];
        install_packages(&packages, "bpf-linker links with the LLVM of the compiler")?;
    }
    say(&format!(
        "building bpf-linker {version}, which links the kernel programs (about 4 minutes on 2 cores)"
    ));
    let features = ["--no-default-features", "--features", &feature];
    cargo_install(
        "bpf-linker",
        version,
        &root,
        &features,
        &[("LLVM_PREFIX", &prefix)],
    )
}

fn install_packages(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    if !is_debian() {
        bail!(
            "these programs are missing: {list} (names of Debian's packages; {why}); install them and run this again"
        );
    }
    if !Uid::effective().is_root() {
        bail!(
            "packages are missing ({why}); run: sudo apt-get install --no-install-recommends {list}"
        );
    }
    say(&format!("installing {list}: {why}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-y"])
            .args(arguments);
        run(&mut command)
    };
    apt(&["update"])?;
    apt(&[&["install", "--no-install-recommends"], packages].concat())
}

fn is_debian() -> bool {
    on_path("apt-get") && fs::exists("/etc/debian_version").unwrap_or(false)
}
