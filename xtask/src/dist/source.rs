//! The source as git has it, with what is changed and not committed: a copy without anything that was built.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{shell::output, tools, workspace};

/// Copies it to `to`, which is emptied before. Where the source is no repository everything that is not built is copied.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn copy(to: &Path) -> Result<()> {
    empty(to)?;
    for file in files()? {
        let (from, to) = (workspace().join(&file), to.join(&file));
        // One that was deleted, and not from the index yet.
        let Ok(found) = fs::symlink_metadata(&from) else {
            continue;
        };
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        let done = if found.is_symlink() {
            fs::read_link(&from).and_then(|leads| symlink(leads, &to))
        } else {
            fs::copy(&from, &to).map(drop)
        };
        done.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    // Building it takes the same tools.
    symlink(tools(), to.join(".tools")).context("cannot show the tools to the copy")
}

/// Makes `folder` anew.
///
/// # Errors
/// When that cannot be done.
pub(super) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// For questions about the source, which may be another user's: who runs this runs its build scripts, too.
pub(super) fn git() -> Command {
    let mut git = Command::new("git");
    let owned = format!("safe.directory={}", workspace().display());
    git.current_dir(workspace()).args(["-c", &owned]);
    git
}

/// The files, by their paths in the workspace.
fn files() -> Result<Vec<PathBuf>> {
    let mut git = git();
    git.args(["ls-files", "-z", "--cached", "--others"]);
    git.arg("--exclude-standard");
    // In a copy that lies in an ignored folder of a repository there is nothing to git.
    if let Ok(listed) = output(&mut git)
        && !listed.is_empty()
    {
        let names = listed.split('\0').filter(|name| !name.is_empty());
        return Ok(names.map(PathBuf::from).collect());
    }
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(workspace().join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "target" || name == ".tools" || name == ".git" {
                continue;
            }
            let of_its_kind = if entry.file_type()?.is_dir() {
                &mut folders
            } else {
                &mut files
            };
            of_its_kind.push(folder.join(&name));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_has_the_source_and_nothing_that_was_built() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("copy");
        fs::create_dir(&to).unwrap();
        fs::write(to.join("left"), "from before").unwrap();
        copy(&to).unwrap();
        for file in [
            "Cargo.lock",
            "xtask/src/dist/source.rs",
            ".cargo/config.toml",
        ] {
            let same =
                fs::read(to.join(file)).unwrap() == fs::read(workspace().join(file)).unwrap();
            assert!(same, "{file}");
        }
        for file in ["left", "target", ".git"] {
            assert!(!to.join(file).exists(), "{file}");
        }
    }
}
