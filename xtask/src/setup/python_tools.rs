//! Tools that are Python packages, each in an environment of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::install_packages;
use crate::{
    shell::{run, say},
    tools,
};

/// The version of CycloneDX's library for Python, which has the schema of such lists.
const CYCLONEDX: &str = "11.12.0";

/// The version of cfn-lint that the template of CloudFormation is checked with.
const CFN_LINT: &str = "1.51.0";

/// The version of axe-playwright-python, which carries axe-core: it finds what keeps people from using a page.
const AXE: &str = "0.1.8";

/// The Python of an environment in the tool folder that has CycloneDX's library, with its schema.
///
/// # Errors
/// When it can neither be found nor be installed.
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
/// When it can neither be found nor be installed.
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
/// When it can neither be found nor be installed.
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
