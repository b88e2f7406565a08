//! The modules of a kernel that the programs need, each after those that it needs itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _};

/// What the agent and the programs use that distributions build as modules. The guest has nobody who would load them when
/// they are asked for.
const NEEDED: [&str; 5] = ["tcp_diag", "udp_diag", "veth", "sch_ingress", "cls_bpf"];

/// One module, uncompressed.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// The needed modules below `folder`, in an order in which they can be loaded. One that is not there may be part of the
/// kernel itself: what is missing shows when it is used.
///
/// # Errors
/// When one cannot be read.
pub(super) fn needed(folder: &Path) -> Result<Vec<Module>> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    let mut found = Vec::new();
    for name in NEEDED {
        add(name, &files, &mut found)?;
    }
    ensure!(
        !found.is_empty(),
        "{} holds none of the modules {}",
        folder.display(),
        NEEDED.join(", ")
    );
    Ok(found)
}

fn add(name: &str, files: &[(String, PathBuf)], found: &mut Vec<Module>) -> Result<()> {
    if found.iter().any(|it| it.name == name) {
        return Ok(());
    }
    let Some((_, file)) = files.iter().find(|(it, _)| it == name) else {
        return Ok(());
    };
    let content = read(file)?;
    for other in needs(&content).with_context(|| format!("{} is no module", file.display()))? {
        add(&other, files, found)?;
    }
    found.push(Module {
        name: name.to_owned(),
        content,
    });
    Ok(())
}

/// All modules below `folder`, by name. What stands for a blank differs between a module's name and its file's.
fn find(folder: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.push((name.0.replace('-', "_"), entry.path()));
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let shown = file.display();
    if file.extension().is_none_or(|it| it == "ko") {
        return fs::read(file).with_context(|| format!("cannot read {shown}"));
    }
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .context("cannot run xz, of Debian's package xz-utils")?;
    ensure!(
        output.status.success(),
        "xz cannot read {shown}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// What a module says that it needs.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file
        .section_by_name(".modinfo")
        .context("it has no section .modinfo")?;
    let said = String::from_utf8_lossy(section.data()?).into_owned();
    let line = said.split('\0').find_map(|it| it.strip_prefix("depends="));
    let names = line.into_iter().flat_map(|it| it.split(','));
    Ok(names
        .filter(|it| !it.is_empty())
        .map(|it| it.replace('-', "_"))
        .collect())
}
