//! Finds or installs what building and testing need: idempotent, never asking, saying what and why.
//!
//! As root on Debian it installs packages; elsewhere it prints the exact commands. What is not a package goes
//! into the ignored tool folder and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use lb_ebpf_build::{
    Compiler, NIGHTLY, Toolchain, debian_compiler, linker_for_llvm, rustup_compiler,
};
use nix::unistd::Uid;

use crate::{
    shell::{cargo, on_path, run, say},
    tools,
};

/// Programs that the tests and the demo run, with the Debian package of each.
const PROGRAMS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
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

/// The version of cargo-deny that the configuration is written for.
const CARGO_DENY: &str = "0.20.2";

/// The version of cargo-mutants that the configuration is written for.
const CARGO_MUTANTS: &str = "27.1.0";

/// The version of cargo-cyclonedx, which lists what the agent is made of.
const CARGO_CYCLONEDX: &str = "0.5.9";

/// The version of CycloneDX's library for Python, which has the schema of such lists.
const CYCLONEDX: &str = "11.12.0";

/// The version of cfn-lint that the template of CloudFormation is checked with.
const CFN_LINT: &str = "1.51.0";

/// The version of axe-playwright-python, which carries axe-core: it finds what keeps people from using a page.
const AXE: &str = "0.1.8";

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

/// cargo-deny in the tool folder; answers its path.
///
/// # Errors
/// As [`everything`].
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = tools().join(format!("cargo-deny-{CARGO_DENY}"));
    let binary = root.join("bin/cargo-deny");
    if !binary.exists() {
        say(
            "building cargo-deny, which checks licences and sources of the dependencies (about 4 minutes on 2 cores)",
        );
        cargo_install("cargo-deny", CARGO_DENY, &root, &[], &[])?;
    }
    Ok(binary)
}

/// cargo-mutants in the tool folder; answers its path.
///
/// # Errors
/// As [`everything`].
pub(crate) fn cargo_mutants() -> Result<PathBuf> {
    let root = tools().join(format!("cargo-mutants-{CARGO_MUTANTS}"));
    let binary = root.join("bin/cargo-mutants");
    if !binary.exists() {
        say(
            "building cargo-mutants, which finds what the tests do not notice (about 3 minutes on 2 cores)",
        );
        cargo_install("cargo-mutants", CARGO_MUTANTS, &root, &[], &[])?;
    }
    Ok(binary)
}

/// cargo-cyclonedx in the tool folder; answers its path.
///
/// # Errors
/// As [`everything`].
pub(crate) fn cargo_cyclonedx() -> Result<PathBuf> {
    let root = tools().join(format!("cargo-cyclonedx-{CARGO_CYCLONEDX}"));
    let binary = root.join("bin/cargo-cyclonedx");
    if !binary.exists() {
        say(
            "building cargo-cyclonedx, which lists what the agent is made of (about 3 minutes on 2 cores)",
        );
        cargo_install("cargo-cyclonedx", CARGO_CYCLONEDX, &root, &[], &[])?;
    }
    Ok(binary)
}

/// The Python of an environment in the tool folder that has CycloneDX's library, with its schema.
///
/// # Errors
/// As [`everything`].
pub(crate) fn cyclonedx() -> Result<PathBuf> {
    let root = tools().join(format!("cyclonedx-{CYCLONEDX}"));
    // The last file of an installation that is whole.
    let whole = root.join("whole");
    if !whole.exists() {
        say(
            "fetching the schema of CycloneDX, which the list of what the agent is made of is checked with",
        );
        let package = format!("cyclonedx-python-lib[json-validation]=={CYCLONEDX}");
        python(&root, &[&package])?;
        fs::write(&whole, "")?;
    }
    Ok(root.join("bin/python3"))
}

/// cfn-lint in the tool folder, with a Python environment of its own; answers its path.
///
/// # Errors
/// As [`everything`].
pub(crate) fn cfn_lint() -> Result<PathBuf> {
    let root = tools().join(format!("cfn-lint-{CFN_LINT}"));
    let binary = root.join("bin/cfn-lint");
    if !binary.exists() {
        say("fetching cfn-lint, which checks the template of CloudFormation");
        python(&root, &[&format!("cfn-lint=={CFN_LINT}")])?;
    }
    Ok(binary)
}

/// The script of axe-core, in a Python environment of the tool folder; answers its path.
///
/// # Errors
/// As [`everything`].
pub(crate) fn axe() -> Result<PathBuf> {
    let root = tools().join(format!("axe-{AXE}"));
    if let Some(script) = axe_script(&root) {
        return Ok(script);
    }
    say("fetching axe-core, with which the tests look for what keeps people from using the page");
    // Playwright, which the package is for, is not used.
    let package = format!("axe-playwright-python=={AXE}");
    python(&root, &["--no-deps", &package])?;
    axe_script(&root).context("the package axe-playwright-python has no axe.min.js")
}

/// The folder of an environment's packages has the version of Python in its name.
fn axe_script(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root.join("lib")).ok()?.flatten();
    let mut scripts = versions.map(|version| {
        let packages = version.path().join("site-packages");
        packages.join("axe_playwright_python/axe.min.js")
    });
    scripts.find(|script| script.exists())
}

/// A Python environment at `root`, with the packages that these arguments of `pip install` name.
fn python(root: &Path, packages: &[&str]) -> Result<()> {
    fs::create_dir_all(tools())?;
    // The programs in an environment name their folder, so it cannot be renamed: the last one that is made counts.
    let make = || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(root))
    };
    if make().is_err() {
        let why = "a tool of the checks is a Python package";
        install_packages(&["python3", "python3-venv"], why)?;
        make()?;
    }
    let install = ["install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(root.join("bin/pip"))
        .args(install)
        .args(packages))
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

fn cargo_install(
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
