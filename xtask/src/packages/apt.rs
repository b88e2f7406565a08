//! apt and dpkg-deb at work in folders of their own: a package list, packages, and the files in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Suite, archive::Archive};

/// Downloads the packages that `choose` names into apt's private folder and returns the files.
pub(super) fn fetch(
    apt: &Path,
    archive: &Archive,
    suite: Suite,
    name: &str,
    choose: impl Fn(&Path) -> Result<Vec<String>>,
) -> Result<Vec<PathBuf>> {
    for folder in ["lists/partial", "cache/archives/partial", "debs"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let debs = apt.join("debs");
    let config = apt.join("apt.conf");
    fs::write(apt.join("status"), "")?;
    fs::write(
        apt.join("sources.list"),
        format!(
            "deb [signed-by={}] {} {suite} main\n",
            archive.keyring, archive.uri
        ),
    )?;
    fs::write(&config, apt_conf(apt))?;

    println!("fetching {name}: the package list of Debian {suite}");
    run_apt("apt-get", &config, &debs, &["update", "--error-on=any"])?;
    let packages = choose(&config)?;
    println!(
        "fetching {name}: the package{}",
        if packages.len() == 1 { "" } else { "s" }
    );
    let mut files = Vec::new();
    for package in packages {
        for old in debs_of(&debs, &package)? {
            fs::remove_file(old)?;
        }
        run_apt("apt-get", &config, &debs, &["download", &package])?;
        let file = debs_of(&debs, &package)?.pop();
        files.push(
            file.with_context(|| format!("apt-get left no {package}_*.deb in {}", debs.display()))?,
        );
    }
    Ok(files)
}

/// The names of the packages that a package depends on, without their alternatives.
pub(super) fn dependencies(config: &Path, package: &str) -> Result<Vec<String>> {
    let folder = config.parent().context("a file lies in a folder")?;
    let shown = run_apt(
        "apt-cache",
        config,
        folder,
        &["show", "--no-all-versions", package],
    )?;
    let line = shown.lines().find_map(|it| it.strip_prefix("Depends: "));
    let names = line.into_iter().flat_map(|it| it.split(", "));
    Ok(names
        .filter_map(|it| it.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// Read after the machine's own settings, so that its proxy stays and everything named here changes.
fn apt_conf(apt: &Path) -> String {
    let apt = apt.display();
    format!(
        r#"Dir::Etc::SourceList "{apt}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{apt}";
Dir::State::Lists "{apt}/lists";
Dir::State::Status "{apt}/status";
Dir::Cache "{apt}/cache";
Dir::Cache::Archives "{apt}/cache/archives";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

/// What a program of apt prints.
fn run_apt(program: &str, config: &Path, folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .arg("--config-file")
        .arg(config)
        .arg("--quiet")
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("cannot run {program}, which Debian and its relatives have"))?;
    ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
            .lines()
            .filter(|line| line.starts_with("E:") || line.starts_with("W:"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn debs_of(folder: &Path, package: &str) -> Result<Vec<PathBuf>> {
    let prefix = format!("{package}_");
    let mut debs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            debs.push(entry.path());
        }
    }
    Ok(debs)
}

/// Unpacks beside `root` and renames: `root` exists whole or not at all.
pub(super) fn unpack(debs: &[PathBuf], root: &Path) -> Result<()> {
    let parent = root.parent().context("a package folder has a parent")?;
    let name = root.file_name().context("a package folder has a name")?;
    let half = parent.join(format!(".{}.unpacking", name.to_string_lossy()));
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    fs::create_dir_all(&half)?;
    for deb in debs {
        let status = Command::new("dpkg-deb")
            .arg("--extract")
            .args([deb, &half])
            .status()
            .context("cannot run dpkg-deb")?;
        ensure!(status.success(), "dpkg-deb cannot unpack {}", deb.display());
    }
    fs::rename(&half, root).with_context(|| format!("cannot create {}", root.display()))?;
    for deb in debs {
        fs::remove_file(deb)?;
    }
    println!("unpacked {}", root.display());
    Ok(())
}
