//! The format of `docker save`: one layer, its configuration, and a list of both. By `tar` and `sha256sum`, which every
//! Debian has.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Writes the image `name`, made at the time `created`, with the files below `root` to `file`, and answers how many bytes those have.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn pack(
    root: &Path,
    file: &Path,
    name: &str,
    config: &Value,
    created: &str,
) -> Result<u64> {
    let parts = file.with_extension("parts");
    if parts.exists() {
        fs::remove_dir_all(&parts).with_context(|| format!("cannot empty {}", parts.display()))?;
    }
    fs::create_dir_all(&parts).with_context(|| format!("cannot make {}", parts.display()))?;
    let layer = parts.join("layer.tar");
    tar(root, &layer)?;
    let image = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer)?)] },
        "history": [{ "created": created, "created_by": "cargo xtask image" }],
    });
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    for (place, value) in [("config.json", image), ("manifest.json", manifest)] {
        let place = parts.join(place);
        fs::write(&place, value.to_string())
            .with_context(|| format!("cannot write {}", place.display()))?;
    }
    tar(&parts, file)?;
    let bytes = fs::metadata(&layer)?.len();
    fs::remove_dir_all(&parts).with_context(|| format!("cannot remove {}", parts.display()))?;
    Ok(bytes)
}

/// Packs what is below `folder`: the same files give the same bytes.
fn tar(folder: &Path, file: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--mtime=@0"])
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=u+rwX,go+rX,go-w", "--file"])
        .arg(file)
        .arg("--directory")
        .arg(folder);
    // Without the folder itself: its name would be `.`, which some engines do not expect.
    let mut names = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    let status = tar.args(names).status().context("cannot run tar")?;
    ensure!(status.success(), "tar cannot write {}", file.display());
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg(file)
        .output()
        .context("cannot run sha256sum, of Debian's package coreutils")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let sum = said.split_whitespace().next().unwrap_or_default();
    ensure!(
        output.status.success() && sum.len() == 64,
        "sha256sum cannot read {}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(sum.to_owned())
}

/// As container engines call it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(tar: &Path) -> String {
        let output = Command::new("tar")
            .arg("--list")
            .arg("--verbose")
            .arg("--file")
            .arg(tar)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn the_same_files_give_the_same_image_whoever_has_them_and_whenever() {
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str, seconds: u64| {
            let root = folder.path().join(name);
            fs::create_dir_all(root.join("bin")).unwrap();
            let program = root.join("bin/app");
            fs::write(&program, "app").unwrap();
            let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options()
                .append(true)
                .open(&program)
                .unwrap()
                .set_modified(then)
                .unwrap();
            let file = folder.path().join(format!("{name}.tar"));
            pack(
                &root,
                &file,
                "app:latest",
                &json!({ "Cmd": ["/bin/app"] }),
                "2001-09-09T01:46:40Z",
            )
            .unwrap();
            file
        };
        let (one, two) = (image("one", 1), image("two", 100_000_000));
        assert_eq!(fs::read(&one).unwrap(), fs::read(two).unwrap());
        let listed = entries(&one);
        for part in ["config.json", "layer.tar", "manifest.json"] {
            assert!(listed.contains(part), "{listed}");
        }
        assert!(listed.contains("0/0"), "{listed}");
    }
}
