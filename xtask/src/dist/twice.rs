//! Whether the same source gives the same bytes: it is built once more, where nothing is as it was the first time.

use std::{fs, io::Read as _, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{REVISION, Stamp, source, stamp};
use crate::{
    shell::{cargo, run, say},
    workspace,
};

/// Makes all `files` of `folder` again, from a copy of the source in a folder with another name and with another folder for
/// cargo, other rights for new files, another language and another time zone.
///
/// # Errors
/// When it cannot be built, or a file is another one. Then what was made is left to be looked at.
pub(super) fn again(folder: &Path, files: &[String], stamp: &Stamp) -> Result<()> {
    say("building everything again, in another folder");
    let place = workspace().join("target/dist-again");
    let copy = place.join("a source with another name");
    source::copy(&copy)?;
    let mut build = Command::new("sh");
    build
        .args(["-c", "umask 077 && exec \"$@\"", "sh"])
        .arg(cargo().get_program())
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "xtask",
            "--",
            "dist",
        ])
        .current_dir(&copy)
        .env("CARGO_HOME", cargo_home(&place)?)
        .env(stamp::SECONDS, stamp.seconds.to_string())
        .env(REVISION, &stamp.revision)
        .env_remove("CARGO_TARGET_DIR")
        .env("LC_ALL", "C")
        .env("LANG", "C")
        .env("TZ", "Pacific/Kiritimati");
    run(&mut build)?;
    let other = copy.join("target/dist");
    let mut faults = Vec::new();
    for file in files {
        if let Some(at) = difference(&folder.join(file), &other.join(file))? {
            faults.push(format!("{file}, from byte {at} on"));
        }
    }
    if faults.is_empty() {
        say("every byte is the same");
        return fs::remove_dir_all(&place)
            .with_context(|| format!("cannot remove {}", place.display()));
    }
    bail!(
        "the same source gives other bytes in another folder: {}. What was made there is in {}; \
         `diffoscope`, of Debian's package of that name, tells what is different",
        faults.join("; "),
        other.display()
    )
}

/// A folder for cargo with another name: it has the sources that ours has.
fn cargo_home(place: &Path) -> Result<std::path::PathBuf> {
    let ours = lb_ebpf_build::paths::cargo_home()?;
    let home = place.join("cargo folder");
    source::empty(&home)?;
    for name in ["registry", "config.toml"] {
        if ours.join(name).exists() {
            symlink(ours.join(name), home.join(name))?;
        }
    }
    Ok(home)
}

/// Where two files begin to differ.
fn difference(one: &Path, two: &Path) -> Result<Option<u64>> {
    let open = |file: &Path| {
        let opened =
            fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::Ok(std::io::BufReader::new(opened).bytes())
    };
    let (mut one, mut two) = (open(one)?, open(two)?);
    for at in 0.. {
        match (one.next().transpose()?, two.next().transpose()?) {
            (None, None) => break,
            (one, two) if one == two => {}
            _ => return Ok(Some(at)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_told_and_so_is_an_end_that_came_sooner() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let one = file("one", "0123456789");
        assert_eq!(difference(&one, &file("same", "0123456789")).unwrap(), None);
        assert_eq!(
            difference(&one, &file("other", "0123x56789")).unwrap(),
            Some(4)
        );
        assert_eq!(difference(&one, &file("short", "0123")).unwrap(), Some(4));
        let error = difference(&one, &folder.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
