//! What an init does for the others: mounts, modules, the loopback device, and the end.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use lb_agent::network::{Share, take_pools};
use lb_testkit::{eventually, guest::Hierarchy};
use nix::mount::{MsFlags, mount, umount};
use rtnetlink::{LinkUnspec, new_connection};

use crate::table::{OWN, OWN6, POOL, POOL6};

/// What every host has mounted, in this order.
const USUAL: [(&str, &str); 5] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
];

/// Mounts what every host has.
pub(crate) fn mount_usual() -> Result<()> {
    USUAL
        .iter()
        .try_for_each(|(kind, place)| mount_at(kind, Path::new(place), None))
}

/// A bpffs for pins that are gone with it.
pub(crate) struct Pins(&'static str);

impl Pins {
    pub(crate) fn mount(place: &'static str) -> Result<Self> {
        mount_at("bpf", Path::new(place), None)?;
        Ok(Self(place))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = umount(self.0) {
            eprintln!("lb-guest: cannot unmount {}: {error}", self.0);
        }
    }
}

fn mount_at(kind: &str, place: &Path, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
    mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} at {}", place.display()))
}

/// How the control groups are to be mounted, by the kernel's command line.
pub(crate) fn hierarchy() -> Result<Hierarchy> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let asked = line
        .split_whitespace()
        .find_map(|it| it.strip_prefix(Hierarchy::PARAMETER));
    [Hierarchy::Unified, Hierarchy::Hybrid]
        .into_iter()
        .find(|it| asked == Some(&it.to_string()))
        .with_context(|| format!("the kernel's command line has no {}", Hierarchy::PARAMETER))
}

/// Mounts the control groups and answers the root of version 2. With version 1, this process gets a class of its own there:
/// until Linux 5.15 its sockets then forgot their group of version 2.
pub(crate) fn mount_cgroups(hierarchy: Hierarchy) -> Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if hierarchy == Hierarchy::Unified {
        mount_at("cgroup2", root, None)?;
        return Ok(root.to_owned());
    }
    mount_at("tmpfs", root, None)?;
    let classes = root.join("net_cls");
    mount_at("cgroup", &classes, Some("net_cls"))?;
    let class = classes.join("guest");
    fs::create_dir(&class).context("cannot make a group of version 1")?;
    for (file, value) in [("net_cls.classid", "0x10001"), ("cgroup.procs", "1")] {
        let file = class.join(file);
        fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let unified = root.join("unified");
    mount_at("cgroup2", &unified, None)?;
    Ok(unified)
}

/// Loads what lies in `/modules`, in the order of the names.
pub(crate) fn load_modules() -> Result<()> {
    let mut files = fs::read_dir("/modules")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    for path in files {
        let load = || lb_sys::module::load(File::open(&path)?.as_fd());
        load().with_context(|| format!("cannot load {}", path.display()))?;
    }
    Ok(())
}

/// Brings the loopback device up, and takes the pools for this host as the agent does.
pub(crate) fn prepare_network() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection()?;
        let connection = tokio::spawn(connection);
        let up = LinkUnspec::new_with_index(1).up().build();
        let up = handle.link().set(up).execute().await;
        up.context("cannot bring the loopback device up")?;
        connection.abort();
        let shares = [
            (POOL.into(), IpAddr::from(OWN)),
            (POOL6.into(), IpAddr::from(OWN6)),
        ];
        take_pools(&shares.map(|(pool, own)| Share { pool, own })).await?;
        Ok::<_, anyhow::Error>(())
    })?;
    let bind = |address: IpAddr| std::net::UdpSocket::bind((address, 0));
    let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for address in addresses {
        eventually(Duration::from_secs(5), || bind(address))
            .with_context(|| format!("the loopback device has no {address}"))?;
    }
    Ok(())
}

/// As `uname -r` has it.
pub(crate) fn release() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    match release.trim() {
        "" => bail!("the kernel does not tell its release"),
        release => Ok(release.to_owned()),
    }
}

/// Ends the machine. What was written to a serial line is out by then.
pub(crate) fn end() {
    // Restart at once, which ends a machine that may not restart.
    if let Err(error) = fs::write("/proc/sysrq-trigger", "b") {
        eprintln!("lb-guest: cannot end the machine: {error}");
    }
    // The end of the first process is a panic of the kernel, and ends the machine as well; later than the above.
    thread::sleep(Duration::from_secs(5));
}
