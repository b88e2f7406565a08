//! Whether what was made is right: read and used by the programs that others read and use it with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{SUMS, deb};
use crate::{
    deploy, setup,
    shell::{output, say},
    tools, workspace,
};

/// As somebody does who has fetched the files.
pub(super) fn sums(folder: &Path) -> Result<()> {
    let mut check = Command::new("sha256sum");
    check
        .current_dir(folder)
        .args(["--check", "--strict", "--quiet", SUMS]);
    output(&mut check).map(drop)
}

/// No file tells where it was made, nor does anything that a package holds.
pub(super) fn places(folder: &Path, files: &[String]) -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let kernel = lb_ebpf_build::Toolchain::find(&tools())?;
    let mut places = Vec::new();
    for rustc in [Path::new(&rustc), &kernel.rustc] {
        let renamed = lb_ebpf_build::paths::renamed(workspace(), rustc)?;
        // The name of a folder such as /src is part of many that are not of this machine.
        let told = renamed
            .into_iter()
            .filter(|(place, name)| place.components().count() > 2 && place != Path::new(name));
        places.extend(told.map(|(place, _)| place));
    }
    for file in files {
        let path = folder.join(file);
        nameless(&fs::read(&path)?, file, &places)?;
        if file.ends_with(".deb") {
            packed(&path, file, &places)?;
        }
    }
    Ok(())
}

/// The same of what the package `name` holds: compressed, and some of it twice.
fn packed(package: &Path, name: &str, places: &[PathBuf]) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(package).arg(folder.path());
    output(&mut unpack)?;
    let tree = deb::Tree(folder.path());
    let mut files = Vec::new();
    tree.files(Path::new(""), &mut files)?;
    for place in files {
        let mut file = tree.path(&place);
        if file.extension().is_some_and(|it| it == "gz") {
            output(Command::new("gzip").arg("--decompress").arg(&file))?;
            file.set_extension("");
        }
        let shown = format!("{} in {name}", place.display());
        nameless(&fs::read(&file)?, &shown, places)?;
    }
    Ok(())
}

/// Refuses `bytes`, which are those of `file`, if they name one of these places.
fn nameless(bytes: &[u8], file: &str, places: &[PathBuf]) -> Result<()> {
    if let Some(place) = named(bytes, places) {
        bail!(
            "{file} names {}, so it would be another one elsewhere",
            place.display()
        );
    }
    Ok(())
}

/// The first of these places that these bytes name.
fn named<'a>(bytes: &[u8], places: &'a [PathBuf]) -> Option<&'a PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    places.iter().find(|place| {
        let name = place.as_os_str().as_bytes();
        bytes.windows(name.len()).any(|it| it == name)
    })
}

/// The list is as CycloneDX's own schema demands, and has what the kernel programs are made of.
pub(super) fn sbom(file: &Path) -> Result<()> {
    let script = "import sys\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())\n\
        sys.exit(str(wrong) if wrong else 0)\n";
    output(
        Command::new(setup::cyclonedx()?)
            .args(["-c", script])
            .arg(file),
    )?;
    let list: Value = serde_json::from_slice(&fs::read(file)?)?;
    let components = list["components"]
        .as_array()
        .context("the list has no components")?;
    for (name, scope) in [
        ("aya", "required"),
        ("aya-ebpf", "required"),
        ("aya-ebpf-macros", "excluded"),
        ("core", "required"),
        ("glibc", "required"),
        ("hyper", "required"),
        ("lb-ebpf", "required"),
        ("ring", "required"),
        ("serde_derive", "excluded"),
    ] {
        let found = components.iter().find(|it| it["name"] == name);
        let found = found.with_context(|| format!("the list lacks {name}"))?;
        ensure!(
            found["scope"] == scope,
            "{name} is listed as {}",
            found["scope"]
        );
    }
    // What only tests need is nowhere.
    let stray = components
        .iter()
        .find(|it| it["name"] == "proptest" || it["name"] == "hello");
    ensure!(stray.is_none(), "the list has {stray:?}");
    let bare = components
        .iter()
        .find(|it| it["licenses"].as_array().is_none_or(Vec::is_empty));
    ensure!(
        bare.is_none(),
        "the list does not say what {bare:?} is licensed under"
    );
    Ok(())
}

/// The image holds this program and nothing else.
pub(super) fn image(file: &Path, program: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let unpack = |file: &Path| {
        output(
            Command::new("tar")
                .arg("--extract")
                .arg("--file")
                .arg(file)
                .arg("--directory")
                .arg(folder.path()),
        )
    };
    unpack(file)?;
    let config: Value = serde_json::from_slice(&fs::read(folder.path().join("config.json"))?)?;
    let labels = &config["config"]["Labels"];
    for label in ["version", "revision", "licenses"] {
        let value = labels[format!("org.opencontainers.image.{label}")].as_str();
        ensure!(
            value.is_some_and(|it| !it.is_empty()),
            "the image has no label {label}"
        );
    }
    let layer = folder.path().join("layer.tar");
    let listed = output(Command::new("tar").arg("--list").arg("--file").arg(&layer))?;
    ensure!(listed == "lb-agent\n", "the image holds {listed}");
    unpack(&layer)?;
    let same = fs::read(folder.path().join("lb-agent"))? == fs::read(program)?;
    ensure!(
        same,
        "the image holds another program than {}",
        program.display()
    );
    Ok(())
}

/// dpkg takes the package and lets it go again, its program and its units are used, and what was changed is kept.
pub(super) fn package(file: &Path) -> Result<()> {
    let deb = |arguments: &[&str]| output(Command::new("dpkg-deb").args(arguments).arg(file));
    let told = deb(&["--info"])?;
    ensure!(
        !told.contains("Depends:"),
        "the package depends on something:\n{told}"
    );
    let contents = deb(&["--contents"])?;
    contents_are_right(&contents)?;

    say("the Debian package: installed in a root of its own, and removed");
    let root = tempfile::tempdir().context("cannot make a folder")?;
    let root = root.path();
    let state = root.join("var/lib/dpkg");
    fs::create_dir_all(state.join("updates"))?;
    fs::create_dir_all(state.join("info"))?;
    for name in ["status", "available"] {
        fs::write(state.join(name), "")?;
    }
    let dpkg = |arguments: &[&str]| {
        // The scripts run here, told to do nothing to this host by the name of the root.
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()))
            // Some hosts leave documents out.
            .args(["--force-script-chrootless", "--path-include=*"])
            .args(arguments);
        output(&mut dpkg)
    };
    dpkg(&[
        "--install",
        file.to_str().context("the package's name is no text")?,
    ])?;
    ensure!(
        dpkg(&["--verify", "lb-agent"])?.is_empty(),
        "dpkg finds files that are not the package's"
    );
    let agent = root.join("usr/bin/lb-agent");
    let version = output(Command::new(&agent).arg("--version"))?;
    ensure!(
        version.contains(env!("CARGO_PKG_VERSION")),
        "the program is of version {version}"
    );
    let conffile = root.join(deb::CONFFILE);
    // The examples are of today's keys.
    let examples = fs::read_to_string(&conffile)?.replace("\n#[", "\n[");
    let examples: String = examples
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|it| it.contains(" = ") && !it.starts_with(' '))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    ensure!(
        examples.contains("\naddress = "),
        "the conffile has no examples"
    );
    let tried = root.join("examples.toml");
    fs::write(&tried, examples)?;
    output(Command::new(&agent).arg("check-config").arg(&tried))?;
    deploy::verify(&root.join("usr/lib/systemd/system"), "usr/bin")?;

    fs::write(&conffile, "# changed\n")?;
    dpkg(&["--remove", "lb-agent"])?;
    ensure!(
        !agent.exists(),
        "the program is there after the package was removed"
    );
    ensure!(
        fs::read_to_string(&conffile)? == "# changed\n",
        "a changed conffile is not kept"
    );
    let written = root.join("var/lib/lb/admin.token");
    fs::create_dir_all(root.join("var/lib/lb"))?;
    fs::write(&written, "")?;
    dpkg(&["--purge", "lb-agent"])?;
    for gone in [&conffile, &written] {
        ensure!(!gone.exists(), "{} is there after a purge", gone.display());
    }
    Ok(())
}

/// Whether `dpkg-deb --contents` lists what an administrator looks for, everything as root's.
fn contents_are_right(contents: &str) -> Result<()> {
    for (mode, place) in [
        ("-rwxr-xr-x", "./usr/bin/lb-agent"),
        ("-rw-r--r--", "./etc/lb/lb.toml"),
        ("-rw-r--r--", "./usr/lib/systemd/system/lb-agent.service"),
        ("-rw-r--r--", "./usr/lib/systemd/system/lb-agent.socket"),
        ("-rw-r--r--", "./usr/share/man/man1/lb-agent.1.gz"),
        ("-rw-r--r--", "./usr/share/man/man1/lb-agent-run.1.gz"),
        (
            "-rw-r--r--",
            "./usr/share/bash-completion/completions/lb-agent",
        ),
        (
            "-rw-r--r--",
            "./usr/share/fish/vendor_completions.d/lb-agent.fish",
        ),
        ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_lb-agent"),
        ("-rw-r--r--", "./usr/share/doc/lb-agent/copyright"),
        ("-rw-r--r--", "./usr/share/doc/lb-agent/changelog.gz"),
        ("-rw-r--r--", "./usr/share/doc/lb-agent/sbom.cdx.json"),
        ("-rw-r--r--", "./usr/share/doc/lb-agent/docs/operations.md"),
        (
            "-rw-r--r--",
            "./usr/share/doc/lb-agent/deploy/prometheus/lb-agent.rules.yml",
        ),
    ] {
        let line = contents
            .lines()
            .find(|line| line.split_whitespace().last() == Some(place));
        let line = line.with_context(|| format!("the package lacks {place}"))?;
        ensure!(line.starts_with(mode), "{place} has other rights: {line}");
    }
    let other = contents
        .lines()
        .find(|line| line.split_whitespace().nth(1) != Some("root/root"));
    ensure!(other.is_none(), "something is not root's: {other:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_names_a_folder_of_this_machine_is_told() {
        let places = ["/home/me/.cargo", "/home/me/lb"].map(PathBuf::from);
        assert_eq!(named(b"\0/home/me/lb/x.rs\0", &places), Some(&places[1]));
        assert_eq!(named(b"\0/cargo/x.rs\0", &places), None);
        assert_eq!(named(b"", &places), None);
    }

    #[test]
    fn what_a_package_holds_is_looked_at_however_often_it_is_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let [root, package] = ["root", "it.deb"].map(|it| folder.path().join(it));
        fs::create_dir_all(root.join("DEBIAN")).unwrap();
        let control = "Package: it\nVersion: 1\nArchitecture: all\nMaintainer: me <me@localhost>\nDescription: it\n";
        fs::write(root.join("DEBIAN/control"), control).unwrap();
        let text = "made in /home/me/lb/x.rs\n";
        let judged = |compress: bool| {
            fs::write(root.join("page"), text).unwrap();
            if compress {
                output(Command::new("gzip").arg("--force").arg(root.join("page"))).unwrap();
            }
            let mut pack = Command::new("dpkg-deb");
            pack.args(["-Zxz", "--build"]).args([&root, &package]);
            output(&mut pack).unwrap();
            assert!(
                named(
                    &fs::read(&package).unwrap(),
                    &[PathBuf::from("/home/me/lb")]
                )
                .is_none()
            );
            ["/home/me/lb", "/home/you/lb"]
                .map(|it| packed(&package, "it.deb", &[PathBuf::from(it)]))
        };
        for (compress, file) in [(false, "page in it.deb"), (true, "page.gz in it.deb")] {
            let [wrong, right] = judged(compress);
            right.unwrap();
            let error = wrong.unwrap_err().to_string();
            assert!(
                error.starts_with(file) && error.contains("/home/me/lb"),
                "{error}"
            );
        }
        // What dpkg itself reads counts as well.
        let [wrong, _] = ["me <me@localhost>", "nobody"]
            .map(|it| packed(&package, "it.deb", &[PathBuf::from(it)]));
        let error = wrong.unwrap_err().to_string();
        assert!(error.contains("DEBIAN/control in it.deb"), "{error}");
    }

    #[test]
    fn sums_that_are_wrong_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "as it was").unwrap();
        let made = output(
            Command::new("sha256sum")
                .current_dir(folder.path())
                .arg("file"),
        )
        .unwrap();
        fs::write(folder.path().join(SUMS), made).unwrap();
        sums(folder.path()).unwrap();
        fs::write(folder.path().join("file"), "changed").unwrap();
        let error = sums(folder.path()).unwrap_err().to_string();
        assert!(error.contains("did NOT match"), "{error}");
    }

    #[test]
    fn a_package_without_a_program_is_refused() {
        let error = contents_are_right("drwxr-xr-x root/root 0 2001-09-09 01:46 ./\n").unwrap_err();
        assert!(error.to_string().contains("./usr/bin/lb-agent"), "{error}");
    }
}
