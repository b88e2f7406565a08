//! What is taken from Debian's archives: for each tool its packages, and where in them it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{Suite, apt::dependencies, ensure_all};

/// All that the tests run, each with the variable that tells them where it is.
///
/// # Errors
/// When no package source of the machine serves the suite, or a download, check or unpacking fails.
pub(crate) fn for_tests(tools: &Path) -> Result<[(&'static str, PathBuf); 10]> {
    Ok([
        ("LB_CONSUL", consul(tools)?),
        ("LB_DOCKER", docker(tools)?),
        ("LB_RIVALS", rivals(tools)?),
        ("LB_DIG", dig(tools)?),
        ("LB_PEBBLE", pebble(tools)?),
        ("LB_BIRD", bird(tools)?),
        ("LB_PROMETHEUS", prometheus(tools)?),
        ("LB_VICTORIA_METRICS", victoria_metrics(tools)?),
        ("LB_COMPOSE", compose(tools)?),
        ("LB_FAKETIME", faketime(tools)?),
    ])
}

/// The Consul binary that tests and the demo run.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn consul(tools: &Path) -> Result<PathBuf> {
    file(tools, Suite::Bullseye, "consul", "usr/bin/consul")
}

/// Docker Compose, which is both a plugin of the command `docker` and a command of its own.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn compose(tools: &Path) -> Result<PathBuf> {
    let binary = "usr/libexec/docker/cli-plugins/docker-compose";
    file(tools, Suite::Trixie, "docker-compose", binary)
}

/// VictoriaMetrics, which takes metrics by OTLP. Debian's Prometheus is built without that.
fn victoria_metrics(tools: &Path) -> Result<PathBuf> {
    let binary = "usr/bin/victoria-metrics";
    file(tools, Suite::Trixie, "victoria-metrics", binary)
}

/// The library by which a program sees another time of day.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn faketime(tools: &Path) -> Result<PathBuf> {
    let libraries = root(tools, Suite::Bookworm, "libfaketime", &["usr/lib"])?.join("usr/lib");
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
fn pebble(tools: &Path) -> Result<PathBuf> {
    let programs = ["usr/bin/pebble", "usr/bin/pebble-challtestsrv"];
    Ok(root(tools, Suite::Bookworm, "pebble", &programs)?.join("usr/bin"))
}

/// The folder with Prometheus and its promtool, which judge the metrics, the rules and the dashboard. Unpacked as every other
/// one: installing the package would start a server.
fn prometheus(tools: &Path) -> Result<PathBuf> {
    let programs = ["usr/bin/prometheus", "usr/bin/promtool"];
    Ok(root(tools, Suite::Bookworm, "prometheus", &programs)?.join("usr/bin"))
}

/// The folder that stands for `/` in the package of valgrind, whose callgrind counts instructions.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn valgrind(tools: &Path) -> Result<PathBuf> {
    root(tools, Suite::Bookworm, "valgrind", &["usr/bin/valgrind"])
}

/// The folder with the packages of the Docker Engine that tests run, each in a folder of its name: with iptables, by
/// which it keeps its networks apart, and busybox, which test images are made of.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn docker(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &DOCKER)
}

/// The folder with the packages of what `bench socket`, `bench packet` and `bench front` hold the agent against, each in a folder of its
/// name: HAProxy, nftables and nginx, and strace, which counts their system calls, with the libraries that not every Debian
/// has.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn rivals(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &RIVALS)
}

/// The folder with the packages of `dig`, which tests ask resolvers with, each in a folder of its name: with the libraries
/// that not every Debian has.
fn dig(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &DIG)
}

/// The folder with BIRD, a daemon for BGP, each package in a folder of its name: with the libraries that not every Debian
/// has.
fn bird(tools: &Path) -> Result<PathBuf> {
    folder_of(tools, &BIRD)
}

/// The folder that stands for `/` in the packages of QEMU, which boots other kernels.
///
/// # Errors
/// As [`for_tests`].
pub(crate) fn qemu(tools: &Path) -> Result<PathBuf> {
    let packages = |_: &Path| Ok(QEMU.map(str::to_owned).to_vec());
    let root = ensure_all(tools, Suite::Bookworm, "qemu", packages)?;
    holds(&root, "qemu-system-x86", "usr/bin/qemu-system-x86_64")?;
    Ok(root)
}

/// The folder that stands for `/` in the packages of a suite's kernel for clouds, with its modules. It stays the one that
/// the suite had when it was fetched.
///
/// # Errors
/// As [`for_tests`].
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

/// A file of a package.
fn file(tools: &Path, suite: Suite, package: &str, file: &str) -> Result<PathBuf> {
    Ok(root(tools, suite, package, &[file])?.join(file))
}

/// The folder with these packages of Bookworm, of each of which something must be there.
fn folder_of(tools: &Path, packages: &[(&str, &str)]) -> Result<PathBuf> {
    let mut folder = PathBuf::new();
    for (package, part) in packages {
        let root = root(tools, Suite::Bookworm, package, &[part])?;
        let parent = root.parent().context("a package folder has a parent")?;
        parent.clone_into(&mut folder);
    }
    Ok(folder)
}

/// The folder that stands for `/` in a package, in which these parts must be.
fn root(tools: &Path, suite: Suite, package: &str, parts: &[&str]) -> Result<PathBuf> {
    let root = ensure_all(tools, suite, package, |_| Ok(vec![package.to_owned()]))?;
    parts
        .iter()
        .try_for_each(|part| holds(&root, package, part))?;
    Ok(root)
}

fn holds(root: &Path, package: &str, part: &str) -> Result<()> {
    ensure!(
        root.join(part).exists(),
        "the package {package} holds no {part}; remove {} and run the command again",
        root.display()
    );
    Ok(())
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
