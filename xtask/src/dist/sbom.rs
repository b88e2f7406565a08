//! The list of what the agent is made of, in CycloneDX's format: crates by `cargo-cyclonedx`, and what cargo does not know.
//!
//! That tool describes one crate with what the whole workspace asks of its dependencies, and knows nothing of the kernel
//! programs within the agent. So it is asked for both, and `cargo tree` says what of that is really built.

mod merge;
mod system;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use lb_ebpf_build::Toolchain;
use merge::{Part, merge};
use serde_json::Value;
use system::System;
use url::Url;

use super::{
    source,
    stamp::{self, Stamp},
};
use crate::{
    setup,
    shell::{cargo, output, run, say},
    tools,
};

/// What the kernel programs are built for.
const KERNEL: &str = "bpfel-unknown-none";

/// Makes the list for what was built of this source; `work` is a folder for what that takes.
///
/// # Errors
/// When the tool or cargo fails, or a library that is linked in cannot be told.
pub(super) fn make(work: &Path, stamp: &Stamp) -> Result<Value> {
    let tool = setup::cargo_cyclonedx()?;
    say("what the agent is made of");
    // The tool writes beside every Cargo.toml.
    let copy = work.join("source");
    source::copy(&copy)?;
    let agent = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let part = |package: &str, target: &str| -> Result<Part> {
        run(Command::new(&tool)
            .current_dir(&copy)
            .env(stamp::SECONDS, stamp.seconds.to_string())
            .args([
                "cyclonedx",
                "-qq",
                "--format",
                "json",
                "--spec-version",
                "1.5",
            ])
            .args(["--target", target, "--override-filename", target]))?;
        let file = copy.join(package).join(format!("{target}.json"));
        let text = fs::read_to_string(&file)
            .with_context(|| format!("cargo-cyclonedx wrote no {}", file.display()))?;
        Ok(Part {
            document: without_place(&text, &copy)?,
            linked: crates(package, target, "normal,no-proc-macro")?,
            built: crates(package, target, "normal,build")?,
        })
    };
    let kernel = Toolchain::find(&tools())?;
    let system = System::find(&kernel)?;
    merge(
        &part("lb-agent", &agent)?,
        &part("lb-ebpf", KERNEL)?,
        &system,
        &stamp.revision,
    )
}

/// The tool's list with the name that programs give the folder of the source, and not with that of this machine.
fn without_place(text: &str, copy: &Path) -> Result<Value> {
    let place = copy.to_str().context("the folder's name is no text")?;
    let Ok(url) = Url::from_directory_path(copy) else {
        bail!("{place} is no absolute path");
    };
    let text = text.replace(&format!("path+{url}"), "path+file:///lb/");
    ensure!(
        !text.contains(place),
        "cargo-cyclonedx names {place} where that was not expected"
    );
    serde_json::from_str(&text).context("cargo-cyclonedx does not write JSON")
}

/// A crate's name and version.
type Crate = (String, String);

/// What of a package's dependencies along these edges is built for the target.
fn crates(package: &str, target: &str, edges: &str) -> Result<BTreeSet<Crate>> {
    let mut tree = cargo();
    tree.args([
        "tree", "--quiet", "--locked", "--prefix", "none", "--format", "{p}",
    ])
    .args(["--package", package, "--target", target, "--edges", edges]);
    let printed = output(&mut tree)?;
    // `name v1.2.3`, and perhaps where it is and what kind.
    let name = |line: &str| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_owned(), version.to_owned()))
    };
    let lines = printed.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| name(line).with_context(|| format!("cargo tree prints no crate: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_of_the_kernel_programs_is_told_by_cargo() {
        let linked = crates("lb-ebpf", KERNEL, "normal,no-proc-macro").unwrap();
        let names: Vec<_> = linked.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"aya-ebpf"), "{names:?}");
        assert!(names.contains(&"lb-common"), "{names:?}");
        // A macro is built, and in no program.
        assert!(!names.contains(&"aya-ebpf-macros"), "{names:?}");
        let built = crates("lb-ebpf", KERNEL, "normal,build").unwrap();
        assert!(
            built.iter().any(|(name, _)| name == "aya-ebpf-macros"),
            "{built:?}"
        );
        assert!(built.is_superset(&linked));
    }

    #[test]
    fn the_list_does_not_name_a_folder_of_this_machine() {
        let text = r#"{ "bom-ref": "path+file:///here/there/lb-common#0.1.0" }"#;
        let list = without_place(text, Path::new("/here/there")).unwrap();
        assert_eq!(list["bom-ref"], "path+file:///lb/lb-common#0.1.0");
        // Spaces are written otherwise in it.
        let text = r#"{ "bom-ref": "path+file:///over%20here/lb-common#0.1.0" }"#;
        let list = without_place(text, Path::new("/over here")).unwrap();
        assert_eq!(list["bom-ref"], "path+file:///lb/lb-common#0.1.0");
        let error = without_place(r#"["/here/there"]"#, Path::new("/here/there")).unwrap_err();
        assert!(error.to_string().contains("/here/there"), "{error}");
    }
}
