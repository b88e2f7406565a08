//! What is in the agent without being one of its crates, and which programs made it: told by the compilers and by dpkg.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use lb_ebpf_build::Toolchain;
use serde_json::{Value, json};

use crate::shell::output;

/// Of the agent, of the kernel programs, and what made both.
pub(super) struct System {
    pub(super) agent: Vec<Value>,
    pub(super) kernel: Vec<Value>,
    pub(super) tools: Vec<Value>,
}

/// Archives of the C compiler that a static program is linked with.
const ARCHIVES: [&str; 3] = ["libc.a", "libgcc.a", "libgcc_eh.a"];

impl System {
    /// # Errors
    /// When a compiler does not answer, or nobody knows whose a library is.
    pub(super) fn find(kernel: &Toolchain) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let (own, other) = (Compiler::of(rustc.as_ref())?, Compiler::of(&kernel.rustc)?);
        let mut agent = vec![own.library("std")];
        for archive in ARCHIVES {
            let part = debian(archive)?;
            if !agent.contains(&part) {
                agent.push(part);
            }
        }
        let linker = output(Command::new(&kernel.linker).arg("--version"))?;
        let cc = output(Command::new("cc").arg("-dumpfullversion"))?;
        let mut tools = vec![own.tool()];
        if own != other {
            tools.push(other.tool());
        }
        // `bpf-linker 1.2.3`
        let linker = linker
            .split_whitespace()
            .nth(1)
            .context("bpf-linker does not tell its version")?;
        tools.push(json!({ "vendor": "aya-rs", "name": "bpf-linker", "version": linker }));
        tools.push(json!({ "vendor": "GNU", "name": "gcc", "version": cc.trim() }));
        Ok(Self {
            agent,
            kernel: vec![other.library("core")],
            tools,
        })
    }
}

/// A compiler, whose library is linked in.
#[derive(PartialEq, Eq)]
struct Compiler {
    release: String,
    commit: String,
}

impl Compiler {
    fn of(rustc: &Path) -> Result<Self> {
        Self::parse(&output(Command::new(rustc).arg("-vV"))?)
    }

    fn parse(told: &str) -> Result<Self> {
        let field = |name: &str| {
            let found = told
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found
                .map(str::to_owned)
                .with_context(|| format!("rustc does not tell its {name}"))
        };
        Ok(Self {
            release: field("release")?,
            commit: field("commit-hash")?,
        })
    }

    fn tool(&self) -> Value {
        json!({ "vendor": "Rust", "name": "rustc", "version": self.release })
    }

    /// This crate of its library.
    fn library(&self, name: &str) -> Value {
        let (release, commit) = (&self.release, &self.commit);
        json!({
            "type": "library",
            "bom-ref": format!("rust/{name}#{release}"),
            "name": name,
            "version": release,
            "description": "Rust's own library, as it comes with the compiler",
            "scope": "required",
            "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            "purl": format!("pkg:github/rust-lang/rust@{release}#library/{name}"),
            "properties": [{ "name": "lb-agent:commit", "value": commit }],
        })
    }
}

/// The source package of the Debian package that this archive of the C compiler is in.
fn debian(archive: &str) -> Result<Value> {
    let file = output(Command::new("cc").arg(format!("-print-file-name={archive}")))?;
    let file = std::fs::canonicalize(file.trim()).with_context(|| {
        format!("the C compiler has no {archive}; Debian's package libc6-dev holds libc.a")
    })?;
    // Packages may name it by a link of its folder, such as /lib for /usr/lib.
    let short = file
        .strip_prefix("/usr")
        .ok()
        .map(|it| Path::new("/").join(it));
    let search = |file: &Path| output(Command::new("dpkg-query").arg("--search").arg(file));
    let found = search(&file).or_else(|error| short.map_or(Err(error), |short| search(&short)));
    let found = found.with_context(|| format!("no package holds {}", file.display()))?;
    // `libc6-dev:amd64: /usr/lib/…`
    let package = found.split(": ").next().unwrap_or_default();
    let form = "--showformat=${source:Package} ${source:Version}";
    let source = output(Command::new("dpkg-query").args(["--show", form, package]))?;
    let (name, version) = source
        .split_once(' ')
        .context("dpkg-query tells no version")?;
    Ok(library(name, version))
}

fn library(name: &str, version: &str) -> Value {
    // The whole text is in the package; these are what its libraries are under.
    let licence = if name == "glibc" {
        "LGPL-2.1-or-later"
    } else {
        "GPL-3.0-or-later WITH GCC-exception-3.1"
    };
    json!({
        "type": "library",
        "bom-ref": format!("debian/{name}#{version}"),
        "name": name,
        "version": version,
        "description": "Of the C compiler's libraries: linked in, since the program is static",
        "scope": "required",
        "licenses": [{ "expression": licence }],
        "purl": format!("pkg:deb/debian/{name}@{}?arch=source", version.replace('+', "%2B")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compilers_library_is_named_by_its_release_and_commit() {
        let told = "rustc 1.95.0 (59807616e 2026-04-14)\ncommit-hash: 59807616e\nrelease: 1.95.0\n";
        let library = Compiler::parse(told).unwrap().library("std");
        assert_eq!(
            library["purl"],
            "pkg:github/rust-lang/rust@1.95.0#library/std"
        );
        assert_eq!(library["properties"][0]["value"], "59807616e");
        let error = Compiler::parse("release: 1.95.0\n")
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("commit-hash"), "{error}");
    }

    #[test]
    fn the_c_library_that_is_linked_in_is_known_with_debians_version() {
        let libc = debian("libc.a").unwrap();
        assert_eq!(libc["name"], "glibc");
        let version = libc["version"].as_str().unwrap();
        assert!(version.starts_with("2."), "{version}");
        let purl = library("glibc", "2.36-9+deb12u14")["purl"].clone();
        assert_eq!(purl, "pkg:deb/debian/glibc@2.36-9%2Bdeb12u14?arch=source");
        let error = debian("nothing.a").unwrap_err().to_string();
        assert!(error.contains("libc6-dev"), "{error}");
    }
}
