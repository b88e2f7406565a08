//! The Debian package: the program, units of systemd, what it prints about itself, the documents, and one conffile.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use super::stamp::{self, Stamp};
use crate::{
    shell::{output, run},
    workspace,
};

/// What goes into the package beside what lies in this source.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) program: &'a Path,
    pub(super) sbom: &'a Path,
    pub(super) licences: &'a Path,
    /// How hard xz tries, from 0 to 9.
    pub(super) effort: u8,
}

/// What dpkg keeps when an administrator has changed it.
pub(super) const CONFFILE: &str = "etc/lb/lb.toml";

const DOCUMENTS: &str = "usr/share/doc/lb-agent";

/// Packs `file`; `root` is a folder for what goes into it.
///
/// # Errors
/// When something cannot be read or written, or the program does not print its pages.
pub(super) fn pack(root: &Path, file: &Path, content: &Content, stamp: &Stamp) -> Result<()> {
    super::source::empty(root)?;
    let tree = Tree(root);
    tree.copy(content.program, "usr/bin/lb-agent")?;
    let program = tree.path("usr/bin/lb-agent");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    pages(&tree, &program)?;
    units(&tree)?;
    tree.write(CONFFILE, include_str!("deb/lb.toml"))?;
    documents(&tree, content)?;
    control(&tree, stamp)?;
    settle(root, stamp)?;
    run(Command::new("dpkg-deb")
        .env(stamp::SECONDS, stamp.seconds.to_string())
        // With one thread, or its number would be seen in the bytes.
        .args([
            "--root-owner-group",
            "--uniform-compression",
            "-Zxz",
            &format!("-z{}", content.effort),
            "--threads-max=1",
            "--build",
        ])
        .args([root, file])
        .stdout(std::process::Stdio::null()))
}

/// The manual and the completions, which the program makes.
fn pages(tree: &Tree, program: &Path) -> Result<()> {
    let manual = tree.path("usr/share/man/man1");
    fs::create_dir_all(&manual)?;
    output(Command::new(program).arg("man").arg(&manual))?;
    for page in fs::read_dir(&manual)? {
        compress(&page?.path())?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/lb-agent"),
        ("fish", "usr/share/fish/vendor_completions.d/lb-agent.fish"),
        ("zsh", "usr/share/zsh/vendor-completions/_lb-agent"),
    ] {
        let words = output(Command::new(program).args(["completions", shell]))?;
        tree.write(place, &words)?;
    }
    Ok(())
}

/// Those of `deploy/`, for a program that dpkg has installed.
fn units(tree: &Tree) -> Result<()> {
    for unit in ["lb-agent.service", "lb-agent.socket"] {
        let text = fs::read_to_string(workspace().join("deploy/systemd").join(unit))
            .with_context(|| format!("cannot read {unit}"))?;
        tree.write(&format!("usr/lib/systemd/system/{unit}"), &installed(&text))?;
    }
    Ok(())
}

/// A unit without how it is installed by hand, and with the program's place in packages.
fn installed(unit: &str) -> String {
    let lines = unit
        .lines()
        .filter(|line| !line.starts_with("#   install "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.replace("/usr/local/bin/", "/usr/bin/")
        .replace("systemctl daemon-reload && systemctl ", "systemctl ")
}

fn documents(tree: &Tree, content: &Content) -> Result<()> {
    for (folder, to) in [
        ("docs", "docs"),
        ("docs/images", "docs/images"),
        ("deploy/prometheus", "deploy/prometheus"),
        ("deploy/grafana", "deploy/grafana"),
    ] {
        for entry in fs::read_dir(workspace().join(folder))? {
            let (from, name) = entry.map(|it| (it.path(), it.file_name()))?;
            if from.is_file() {
                tree.copy(
                    &from,
                    &format!("{DOCUMENTS}/{to}/{}", name.to_string_lossy()),
                )?;
            }
        }
    }
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
    ] {
        tree.copy(&workspace().join(name), &format!("{DOCUMENTS}/{name}"))?;
    }
    tree.copy(content.sbom, &format!("{DOCUMENTS}/sbom.cdx.json"))?;
    tree.copy(content.licences, &format!("{DOCUMENTS}/copyright"))?;
    // As links of the documents call it, and as Debian does.
    tree.copy(
        &workspace().join("CHANGELOG.md"),
        &format!("{DOCUMENTS}/CHANGELOG.md"),
    )?;
    tree.copy(
        &workspace().join("CHANGELOG.md"),
        &format!("{DOCUMENTS}/changelog"),
    )?;
    compress(&tree.path(format!("{DOCUMENTS}/changelog")))
}

/// What dpkg reads and runs.
fn control(tree: &Tree, stamp: &Stamp) -> Result<()> {
    let mut files = Vec::new();
    tree.files(Path::new(""), &mut files)?;
    files.sort();
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(tree.0.join(file))?
            .len()
            .next_multiple_of(1024);
    }
    let sums = output(
        Command::new("md5sum")
            .current_dir(tree.0)
            .arg("--")
            .args(&files),
    )?;
    tree.write("DEBIAN/md5sums", &sums)?;
    tree.write("DEBIAN/conffiles", &format!("/{CONFFILE}\n"))?;
    let (version, architecture) = (env!("CARGO_PKG_VERSION"), crate::image::architecture());
    tree.write(
        "DEBIAN/control",
        &format!(
            "Package: lb-agent\n\
             Version: {version}\n\
             Architecture: {architecture}\n\
             Maintainer: the lb-agent authors <lb-agent@localhost>\n\
             Installed-Size: {}\n\
             Section: net\n\
             Priority: optional\n\
             Revision-Of-Source: {}\n\
             Description: balances Docker and Consul services inside connect()\n \
             One agent on each host gives every service of Consul, Docker or a file a\n \
             virtual address and a name. The program is static and depends on nothing;\n \
             it needs Linux 5.19 or newer. Installing it starts nothing.\n",
            bytes / 1024,
            stamp.revision,
        ),
    )?;
    for (name, script) in SCRIPTS {
        let place = format!("DEBIAN/{name}");
        tree.write(&place, script)?;
        fs::set_permissions(tree.path(&place), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What dpkg runs.
pub(super) const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("deb/postinst")),
    ("prerm", include_str!("deb/prerm")),
    ("postrm", include_str!("deb/postrm")),
];

/// Without the time of its making in it.
fn compress(file: &Path) -> Result<()> {
    run(Command::new("gzip").args(["--best", "--no-name"]).arg(file))
}

/// The modes of a package whatever the umask was, and one time for all.
fn settle(path: &Path, stamp: &Stamp) -> Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            settle(&entry?.path(), stamp)?;
        }
    }
    let is_program = found.is_dir() || found.permissions().mode() & 0o100 != 0;
    let mode = if is_program { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    // What is in a folder first, since that changes the folder's time.
    let then = UNIX_EPOCH + Duration::from_secs(stamp.seconds);
    let opened = fs::File::open(path)?;
    let done = opened.set_modified(then);
    done.with_context(|| format!("cannot set the time of {}", path.display()))
}

/// The folder that stands for `/`.
pub(super) struct Tree<'a>(pub(super) &'a Path);

impl Tree<'_> {
    pub(super) fn path(&self, place: impl AsRef<Path>) -> PathBuf {
        self.0.join(place)
    }

    fn make_room(&self, place: &str) -> Result<PathBuf> {
        let path = self.path(place);
        fs::create_dir_all(path.parent().unwrap_or(&path))
            .with_context(|| format!("cannot make the folder of {}", path.display()))?;
        Ok(path)
    }

    fn write(&self, place: &str, text: &str) -> Result<()> {
        let path = self.make_room(place)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn copy(&self, file: &Path, place: &str) -> Result<()> {
        let path = self.make_room(place)?;
        fs::copy(file, &path)
            .map(drop)
            .with_context(|| format!("cannot copy {} to {}", file.display(), path.display()))
    }

    /// All files below `folder`, by their places.
    pub(super) fn files(&self, folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(self.0.join(folder))? {
            let entry = entry?;
            let place = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.files(&place, into)?;
            } else {
                into.push(place);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
