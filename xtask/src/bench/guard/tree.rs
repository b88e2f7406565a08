//! The base in a worktree of its own, and what differs from it.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{shell::output, tools};

/// The commit that this tree is compared with.
pub(crate) struct Base {
    /// This tree.
    here: PathBuf,
    /// Where it is checked out.
    pub(crate) tree: PathBuf,
    pub(crate) commit: String,
}

impl Base {
    /// Checks `reference` out below the `target` of the repository `here`.
    ///
    /// # Errors
    /// When it names no commit, or git refuses.
    pub(crate) fn of(here: &Path, reference: &str) -> Result<Self> {
        let commit = format!("{reference}^{{commit}}");
        let commit =
            git(here, &["rev-parse", "--verify", "--quiet", &commit]).with_context(|| {
                format!(
                    "{reference} names no commit of this repository; fetch it, or name another base"
                )
            })?;
        let folder = here.join("target/guard");
        let base = Self {
            here: here.to_owned(),
            tree: folder.join("base"),
            commit,
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        if base.tree.join(".git").exists() {
            // Files that are the same keep their times, so little is built anew.
            git(
                &base.tree,
                &["checkout", "--quiet", "--force", "--detach", &base.commit],
            )?;
        } else {
            // It may have gone with the whole of `target`.
            git(here, &["worktree", "prune"])?;
            let tree = base.tree.to_string_lossy();
            git(
                here,
                &[
                    "worktree",
                    "add",
                    "--quiet",
                    "--force",
                    "--detach",
                    &tree,
                    &base.commit,
                ],
            )?;
        }
        // The same compilers and linkers.
        match symlink(tools(), base.tree.join(".tools")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.context("cannot lend the tools to the base")?,
        }
        Ok(base)
    }

    /// Whether anything in these folders and files differs from the base, committed or not.
    ///
    /// # Errors
    /// When git refuses.
    pub(super) fn differs(&self, paths: &[&str]) -> Result<bool> {
        let changed = ["diff", "--name-only", &self.commit, "--"];
        let changed = git(&self.here, &[&changed[..], paths].concat())?;
        let new = ["ls-files", "--others", "--exclude-standard", "--"];
        let new = git(&self.here, &[&new[..], paths].concat())?;
        Ok(!changed.is_empty() || !new.is_empty())
    }
}

/// What git says.
fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let said = output(Command::new("git").current_dir(folder).args(arguments))?;
    Ok(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one commit of two files.
    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        git(here, &["init", "--quiet"]).unwrap();
        fs::create_dir(here.join("a")).unwrap();
        fs::write(here.join("a/one"), "1").unwrap();
        fs::write(here.join("b"), "2").unwrap();
        fs::write(here.join(".gitignore"), "/target\n").unwrap();
        git(here, &["add", "."]).unwrap();
        let who = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.org",
            "commit",
            "--quiet",
            "-m",
            "it",
        ];
        git(here, &who).unwrap();
        folder
    }

    #[test]
    fn the_base_is_there_as_it_was_and_what_changed_since_is_told() {
        let folder = repository();
        let here = folder.path();
        let base = Base::of(here, "HEAD").unwrap();
        assert!(!base.differs(&["a", "b"]).unwrap());
        fs::write(here.join("a/one"), "changed").unwrap();
        assert!(base.differs(&["a"]).unwrap() && !base.differs(&["b"]).unwrap());
        fs::write(here.join("a/one"), "1").unwrap();
        fs::write(here.join("a/new"), "").unwrap();
        assert!(base.differs(&["a"]).unwrap());
        assert_eq!(fs::read_to_string(base.tree.join("a/one")).unwrap(), "1");
        // Once more, with the tree that is there.
        assert_eq!(Base::of(here, "HEAD").unwrap().commit, base.commit);
        // And after all of `target` went.
        fs::remove_dir_all(here.join("target")).unwrap();
        assert!(Base::of(here, "HEAD").unwrap().tree.join("b").exists());
    }

    #[test]
    fn a_base_that_is_no_commit_is_told_with_the_remedy() {
        let folder = repository();
        let error = Base::of(folder.path(), "nowhere").err().unwrap();
        assert!(error.to_string().contains("fetch it"), "{error}");
    }
}
