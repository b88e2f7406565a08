//! Debian packages as tools: fetched, checked and unpacked into the project's ignored tool folder.
//!
//! Nothing is ever installed, no maintainer script runs, and the machine's own package state is neither
//! read nor changed: apt works on folders below the tool folder. The mirror is the one that the machine
//! already uses, read at run time; apt checks the signature of its index and the hash of the package.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// A Debian release that packages are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Debian 11: the last one that ships Consul.
    Bullseye,
    /// Debian 12: its Docker Engine needs only libraries that every Debian has.
    Bookworm,
    /// Debian 13: the first one that ships Compose of today's format, and a VictoriaMetrics that takes OTLP.
    Trixie,
    /// What Debian 13 gets of later releases: the newest kernel.
    TrixieBackports,
    /// Debian 14 as it comes into being.
    Forky,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
            Self::Forky => "forky",
        })
    }
}

/// The Consul binary that tests and the demo run.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn consul(tools: &Path) -> Result<PathBuf> {
    let binary = ensure(tools, Suite::Bullseye, "consul")?.join("usr/bin/consul");
    ensure!(
        binary.is_file(),
        "the package consul holds no {}; remove its folder and run the command again",
        binary.display()
    );
    Ok(binary)
}

/// The folder with the packages of the Docker Engine that tests run, each in a folder of its name: with iptables, by
/// which it keeps its networks apart, and busybox, which test images are made of.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn docker(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &DOCKER)
}

/// Docker Compose, which is both a plugin of the command `docker` and a command of its own.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn compose(tools: &Path) -> Result<PathBuf> {
    let root = ensure(tools, Suite::Trixie, "docker-compose")?;
    let binary = root.join("usr/libexec/docker/cli-plugins/docker-compose");
    ensure!(
        binary.is_file(),
        "the package docker-compose holds no {}; remove its folder and run the command again",
        binary.display()
    );
    Ok(binary)
}

/// The folder with these packages of Bookworm, of each of which something must be there.
fn folder_of(tools: &Path, packages: &[(&str, &str)]) -> Result<PathBuf> {
    let mut folder = PathBuf::new();
    for (package, program) in packages {
        let root = ensure(tools, Suite::Bookworm, package)?;
        ensure!(
            root.join(program).exists(),
            "the package {package} holds no {program}; remove {} and run the command again",
            root.display()
        );
        folder = root
            .parent()
            .context("a package folder has a parent")?
            .to_owned();
    }
    Ok(folder)
}

/// The folder with the packages of what `bench socket`, `bench packet` and `bench front` hold the agent against, each in a folder of its
/// name: HAProxy, nftables and nginx, and strace, which counts their system calls, with the libraries that not every Debian
/// has.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn rivals(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &RIVALS)
}

/// The folder that stands for `/` in the package of valgrind, whose callgrind counts instructions.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn valgrind(tools: &Path) -> Result<PathBuf> {
    let root = ensure(tools, Suite::Bookworm, "valgrind")?;
    ensure!(
        root.join("usr/bin/valgrind").is_file(),
        "the package valgrind holds no usr/bin/valgrind; remove its folder and run the command again"
    );
    Ok(root)
}

/// The folder with the packages of `dig`, which tests ask resolvers with, each in a folder of its name: with the libraries
/// that not every Debian has.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn dig(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &DIG)
}

/// The library by which a program sees another time of day.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn faketime(tools: &Path) -> Result<PathBuf> {
    let libraries = ensure(tools, Suite::Bookworm, "libfaketime")?.join("usr/lib");
    // In a folder of the machine's kind.
    let kinds = fs::read_dir(&libraries).into_iter().flatten().flatten();
    let mut found = kinds.map(|kind| kind.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.find(|library| library.is_file());
    found.with_context(|| {
        format!(
            "the package libfaketime holds no library in {}; remove its folder and run the command again",
            libraries.display()
        )
    })
}

/// The folder with the programs of pebble, an ACME authority for tests.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn pebble(tools: &Path) -> Result<PathBuf> {
    let programs = ensure(tools, Suite::Bookworm, "pebble")?.join("usr/bin");
    for program in ["pebble", "pebble-challtestsrv"] {
        ensure!(
            programs.join(program).is_file(),
            "the package pebble holds no usr/bin/{program}; remove its folder and run the command again"
        );
    }
    Ok(programs)
}

/// The folder with Prometheus and its promtool, which judge the metrics, the rules and the dashboard. Unpacked as every other
/// one: installing the package would start a server.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn prometheus(tools: &Path) -> Result<PathBuf> {
    let programs = ensure(tools, Suite::Bookworm, "prometheus")?.join("usr/bin");
    for program in ["prometheus", "promtool"] {
        ensure!(
            programs.join(program).is_file(),
            "the package prometheus holds no usr/bin/{program}; remove its folder and run the command again"
        );
    }
    Ok(programs)
}

/// The folder with BIRD, a daemon for BGP, each package in a folder of its name: with the libraries that not every Debian
/// has.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn bird(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &BIRD)
}

/// VictoriaMetrics, which takes metrics by OTLP. Debian's Prometheus is built without that.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn victoria_metrics(tools: &Path) -> Result<PathBuf> {
    let root = ensure(tools, Suite::Trixie, "victoria-metrics")?;
    let binary = root.join("usr/bin/victoria-metrics");
    ensure!(
        binary.is_file(),
        "the package victoria-metrics holds no {}; remove its folder and run the command again",
        binary.display()
    );
    Ok(binary)
}

/// The folder that stands for `/` in the packages of QEMU, which boots other kernels.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn qemu(tools: &Path) -> Result<PathBuf> {
    let root = ensure_all(tools, Suite::Bookworm, "qemu", |_| {
        Ok(QEMU.map(str::to_owned).to_vec())
    })?;
    let binary = root.join("usr/bin/qemu-system-x86_64");
    ensure!(
        binary.is_file(),
        "the package qemu-system-x86 holds no {}; remove its folder and run the command again",
        binary.display()
    );
    Ok(root)
}

/// The folder that stands for `/` in the packages of a suite's kernel for clouds, with its modules. It stays the one that
/// the suite had when it was fetched.
///
/// # Errors
/// As [`ensure()`].
pub(crate) fn kernel(tools: &Path, suite: Suite) -> Result<PathBuf> {
    ensure_all(tools, suite, "kernel", |config| {
        // The first is an empty package that names the newest kernel; later releases split that once more.
        let mut names = vec!["linux-image-cloud-amd64".to_owned()];
        let mut at = 0;
        while let Some(name) = names.get(at) {
            let more: Vec<_> = dependencies(config, name)?
                .into_iter()
                .filter(|it| KERNEL.iter().any(|kind| it.starts_with(kind)) && !names.contains(it))
                .collect();
            names.extend(more);
            at += 1;
        }
        Ok(names)
    })
}

/// How the names of the packages begin that hold parts of a kernel.
const KERNEL: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// QEMU, its firmware, and the libraries that not every Debian has.
const QEMU: [&str; 25] = [
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
    "libaio1",
    "libcapstone4",
    "libdaxctl1",
    "libfdt1",
    "libfuse3-3",
    "libglib2.0-0",
    "libibverbs1",
    "libjpeg62-turbo",
    "libndctl6",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnuma1",
    "libpixman-1-0",
    "libpmem1",
    "libpng16-16",
    "librdmacm1",
    "libsasl2-2",
    "libslirp0",
    "liburing2",
    "libvdeplug2",
    "libkmod2",
];

/// What each package of `dig` is needed for. The other libraries are those of curl as well.
const DIG: [(&str, &str); 11] = [
    ("bind9-dnsutils", "usr/bin/dig"),
    ("bind9-libs", "usr/lib"),
    ("libfstrm0", "usr/lib"),
    ("libicu72", "usr/lib"),
    ("libjemalloc2", "usr/lib"),
    ("libjson-c5", "usr/lib"),
    ("liblmdb0", "usr/lib"),
    ("libmaxminddb0", "usr/lib"),
    ("libprotobuf-c1", "usr/lib"),
    ("libuv1", "usr/lib"),
    ("libxml2", "usr/lib"),
];

/// What each package of BIRD is needed for.
const BIRD: [(&str, &str); 2] = [("bird2", "usr/sbin/bird"), ("libssh-gcrypt-4", "usr/lib")];

/// What each package of the rivals is needed for.
const RIVALS: [(&str, &str); 11] = [
    ("haproxy", "usr/sbin/haproxy"),
    ("liblua5.3-0", "usr/lib"),
    ("libopentracing-c-wrapper0", "usr/lib"),
    ("libopentracing1", "usr/lib"),
    ("nginx", "usr/sbin/nginx"),
    ("strace", "usr/bin/strace"),
    ("libunwind8", "usr/lib"),
    ("nftables", "usr/sbin/nft"),
    ("libnftables1", "usr/lib"),
    ("libnftnl11", "usr/lib"),
    ("libmnl0", "usr/lib"),
];

/// The packages of the engine, with what is needed of each. What else they depend on is on every Debian.
const DOCKER: [(&str, &str); 9] = [
    ("docker.io", "usr/sbin/dockerd"),
    ("containerd", "usr/bin/containerd"),
    ("runc", "usr/sbin/runc"),
    ("libdevmapper1.02.1", "lib"),
    ("iptables", "usr/sbin/xtables-nft-multi"),
    ("libxtables12", "usr/lib"),
    ("libnftnl11", "usr/lib"),
    ("libmnl0", "usr/lib"),
    ("busybox-static", "bin/busybox"),
];

/// Unpacks `package` of `suite` below `tools`, unless it is there already, and returns the folder that
/// stands for `/` in it. The packages it depends on are not fetched.
///
/// # Errors
/// When no package source of the machine serves the suite, or a download, check or unpacking fails.
pub(crate) fn ensure(tools: &Path, suite: Suite, package: &str) -> Result<PathBuf> {
    ensure_all(tools, suite, package, |_| Ok(vec![package.to_owned()]))
}

/// The same for several packages, which share a folder of this name. Apt's configuration tells `choose` which ones.
fn ensure_all(
    tools: &Path,
    suite: Suite,
    name: &str,
    choose: impl Fn(&Path) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let tools = std::path::absolute(tools)?;
    let root = tools.join(format!("debian-{suite}")).join(name);
    if root.is_dir() {
        return Ok(root);
    }
    let apt = tools.join(format!("apt-{suite}"));
    fs::create_dir_all(&apt).with_context(|| format!("cannot create {}", apt.display()))?;
    // Two commands at once must not share apt's folders; the lock goes with the process.
    let lock = fs::File::create(apt.join("lock"))?;
    lock.lock()?;
    if root.is_dir() {
        return Ok(root);
    }

    let mut refusals = Vec::new();
    let mut archives = archives_of_this_machine(Path::new("/etc/apt"))?;
    // Third-party sources never hold another Debian release; asking Debian's own first avoids the detour.
    archives.sort_by_key(|archive| !archive.keyring.contains("debian-archive"));
    for archive in &archives {
        match fetch(&apt, archive, suite, name, &choose) {
            Ok(debs) => {
                unpack(&debs, &root)?;
                return Ok(root);
            }
            Err(refusal) => refusals.push(format!("{refusal:#}")),
        }
    }
    bail!(
        "cannot fetch the package {name} of Debian {suite}: {}. It is taken from the mirror that \
         /etc/apt/sources.list or /etc/apt/sources.list.d names for this machine's own Debian; see that \
         the mirror can be reached and serves {suite}",
        if refusals.is_empty() {
            "the machine has no Debian package source".to_owned()
        } else {
            refusals.join("; ")
        }
    )
}

/// One archive that the machine trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Archive {
    uri: String,
    /// Path of the keyring its index must be signed with.
    keyring: String,
}

/// Where Debian keeps its keys; holds those of older releases too.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archives that `etc`/sources.list and `etc`/sources.list.d name, each once.
fn archives_of_this_machine(etc: &Path) -> Result<Vec<Archive>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        let mut parts: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let mut archives = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => one_line_archives,
            Some("sources") => deb822_archives,
            _ => continue,
        };
        // sources.list is often absent.
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for archive in parse(&text) {
            if !archives.contains(&archive) {
                archives.push(archive);
            }
        }
    }
    Ok(archives)
}

/// `deb [signed-by=KEYRING] URI SUITE COMPONENT…` (sources.list(5)).
fn one_line_archives(text: &str) -> Vec<Archive> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match line.strip_prefix('[') {
                Some(bracketed) => bracketed.split_once(']')?,
                None => ("", line),
            };
            let mut words = rest.split_whitespace();
            let (uri, suite) = (words.next()?, words.next()?);
            let keyring = options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="));
            archive(uri, suite, words, keyring)
        })
        .collect()
}

/// Stanzas of `Key: value` lines, in which a line that begins with a space continues the one above.
fn deb822_archives(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in text.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            let at = stanza.iter().position(|line| {
                line.split_once(':')
                    .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
            })?;
            let mut value = stanza[at].split_once(':')?.1.to_owned();
            for more in stanza[at + 1..]
                .iter()
                .take_while(|l| l.starts_with([' ', '\t']))
            {
                value.push(' ');
                value.push_str(more.trim());
            }
            Some(value)
        };
        let binary =
            field("Types").is_some_and(|types| types.split_whitespace().any(|t| t == "deb"));
        let off = field("Enabled").is_some_and(|on| on.trim().eq_ignore_ascii_case("no"));
        if !binary || off {
            continue;
        }
        let (Some(uris), Some(suites)) = (field("URIs"), field("Suites")) else {
            continue;
        };
        let components = field("Components").unwrap_or_default();
        let keyring = field("Signed-By");
        for uri in uris.split_whitespace() {
            archives.extend(suites.split_whitespace().find_map(|suite| {
                archive(
                    uri,
                    suite,
                    components.split_whitespace(),
                    keyring.as_deref(),
                )
            }));
        }
    }
    archives
}

/// The archive at `uri` if it can be one that holds whole Debian releases.
fn archive<'a>(
    uri: &str,
    suite: &str,
    mut components: impl Iterator<Item = &'a str>,
    keyring: Option<&str>,
) -> Option<Archive> {
    let whole = components.any(|component| component == "main")
        && !suite.ends_with('/')
        && !suite.contains("-security")
        && !suite.contains("/updates")
        && !uri.starts_with("cdrom:");
    // A key may also stand in the file itself, or be named by fingerprint; Debian's own is in its keyring.
    let keyring = keyring
        .map(str::trim)
        .filter(|path| path.starts_with('/') && !path.contains(char::is_whitespace))
        .unwrap_or(DEBIAN_KEYRING);
    whole.then(|| Archive {
        uri: uri.to_owned(),
        keyring: keyring.to_owned(),
    })
}

/// Downloads the packages that `choose` names into apt's private folder and returns the files.
fn fetch(
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
fn dependencies(config: &Path, package: &str) -> Result<Vec<String>> {
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
fn unpack(debs: &[PathBuf], root: &Path) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(uri: &str) -> Archive {
        Archive {
            uri: uri.to_owned(),
            keyring: DEBIAN_KEYRING.to_owned(),
        }
    }

    #[test]
    fn a_one_line_source_names_archive_and_keyring() {
        let text = "# deb http://off.example/ bookworm main\n\
                    deb http://a.example/debian bookworm main contrib\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://b.example/d stable main\n\
                    deb http://a.example/sec bookworm-security main\n\
                    deb http://flat.example ./\n";
        let other = Archive {
            uri: "http://b.example/d".to_owned(),
            keyring: "/k.gpg".to_owned(),
        };
        assert_eq!(
            one_line_archives(text),
            [debian("http://a.example/debian"), other]
        );
    }

    #[test]
    fn a_deb822_source_names_each_uri_once_and_skips_what_is_off() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: http://a.example/debian\n http://b.example/debian\n\
                    # another\nSuites: bookworm bookworm-updates\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n\n\
                    Types: deb\nURIs: http://off.example\nSuites: x\nComponents: main\nEnabled: no\n\n\
                    Types: deb\nURIs: http://sec.example\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(
            deb822_archives(text),
            [
                debian("http://a.example/debian"),
                debian("http://b.example/debian")
            ]
        );
    }

    #[test]
    fn a_machine_without_sources_has_no_archive() {
        let empty = Path::new("/nonexistent-etc-apt");
        assert_eq!(archives_of_this_machine(empty).unwrap(), []);
    }
}
