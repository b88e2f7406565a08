//! What must hold before the agent touches anything: each failure is one message with the remedy.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use lb_agent::sockets;
use nix::{
    mount::{MsFlags, mount},
    sys::{
        statfs::{CGROUP2_SUPER_MAGIC, FsType, statfs},
        utsname::uname,
    },
};
use socket2::{Domain, Socket, Type};

/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPFFS: FsType = FsType(0xcafe_4a11);

/// The oldest kernel that lets a connect hook choose the error (`bpf_set_retval`, 5.18) and knows the subflows of Multipath TCP
/// (`bpf_skc_to_mptcp_sock`, commit 3bc253c2e652).
const OLDEST_KERNEL: (u32, u32) = (5, 19);

/// Refuses a kernel that is too old.
pub(crate) fn kernel() -> Result<()> {
    let name = uname().context("cannot ask for the kernel's version")?;
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST_KERNEL
    {
        let (major, minor) = OLDEST_KERNEL;
        bail!(
            "Linux {release} is too old: the socket hooks need {major}.{minor} or newer; boot a newer kernel"
        );
    }
    Ok(())
}

/// Whether `folder` is a bpffs.
pub(crate) fn is_bpffs(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.filesystem_type() == BPFFS)
}

/// Makes sure that `folder` is a bpffs; mounts one where there is none.
pub(crate) fn bpffs(folder: &Path) -> Result<()> {
    let shown = folder.display();
    let kind = statfs(folder)
        .with_context(|| format!("cannot use {shown} for pins; correct --bpffs"))?
        .filesystem_type();
    if kind == BPFFS {
        return Ok(());
    }
    // A mount hides what lies below it.
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("{shown} cannot hold a bpffs; correct --bpffs"))?;
    if entries.next().is_some() {
        bail!("{shown} is no bpffs but a directory with files in it; correct --bpffs");
    }
    mount(Some("bpf"), folder, Some("bpf"), MsFlags::empty(), None::<&str>).with_context(|| {
        format!("{shown} is no bpffs and mounting one failed; run: mount -t bpf bpf {shown}, or correct --bpffs")
    })?;
    tracing::info!(folder = %shown, "mounted a bpffs");
    Ok(())
}

/// Makes sure that `folder` is a directory of the cgroup v2 tree.
pub(crate) fn cgroup(folder: &Path) -> Result<()> {
    let shown = folder.display();
    let kind = statfs(folder)
        .with_context(|| format!("cannot use the cgroup {shown}; correct --cgroup"))?;
    if kind.filesystem_type() != CGROUP2_SUPER_MAGIC || !folder.is_dir() {
        bail!("{shown} is no directory of the cgroup v2 tree; correct --cgroup");
    }
    Ok(())
}

/// The right to write to a place and what belongs to it, held until dropped.
pub(crate) struct Lock {
    _held: OwnedFd,
}

/// Locks `folder` for this agent; it is made if it is missing.
///
/// # Errors
/// When another agent holds it.
pub(crate) fn lock_state(folder: &Path) -> Result<Lock> {
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| {
        format!("cannot create the state directory {shown}; correct --state-dir")
    })?;
    let path = folder.join("agent.lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}; correct --state-dir", path.display()))?;
    if !locked(&file, &path)? {
        let mut holder = String::new();
        // Only for the message.
        let _ = file.read_to_string(&mut holder);
        let holder = if holder.trim().is_empty() {
            "unknown"
        } else {
            holder.trim()
        };
        bail!("another agent (process {holder}) works with {shown}; {ALONE}");
    }
    // For the message above; the lock itself is the kernel's and goes with the process.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .context("cannot write the lock file")?;
    writeln!(file, "{}", std::process::id()).context("cannot write the lock file")?;
    Ok(Lock { _held: file.into() })
}

/// Locks the folder of the pins for this agent: two writers would each undo what the other did.
///
/// # Errors
/// When another agent holds it.
pub(crate) fn lock_pins(folder: &Path) -> Result<Lock> {
    let shown = folder.display();
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {shown} for pins; correct --bpffs"))?;
    let file =
        File::open(folder).with_context(|| format!("cannot open {shown}; correct --bpffs"))?;
    if !locked(&file, folder)? {
        bail!("another agent works with the pins in {shown}; {ALONE}");
    }
    Ok(Lock { _held: file.into() })
}

/// Locks this network namespace for this agent: of two, each would take away the other's routes and addresses. The lock
/// is a port of a socket that nobody reads: it is known in this namespace alone, goes with the process that has it, and is
/// one of those that only root may take, so nobody else can keep an agent from starting.
///
/// # Errors
/// When another agent holds it, or this one may not take it.
pub(crate) fn lock_network() -> Result<Lock> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None);
    let bound = socket.and_then(|socket| {
        // Also while the loopback device is down.
        socket.set_freebind_v4(true)?;
        socket.bind(&NETWORK_LOCK.into())?;
        Ok(socket)
    });
    match bound {
        Ok(socket) => Ok(Lock {
            _held: socket.into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = network_holder().map_or("unknown".to_owned(), |id| id.to_string());
            bail!(
                "another agent (process {holder}) works in this network namespace, where it has UDP port {NETWORK_LOCK}; {ALONE}"
            )
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot lock this network namespace by UDP port {NETWORK_LOCK}; run it as root, or with CAP_NET_BIND_SERVICE"
            )
        }),
    }
}

/// Whose the port is; only for the message.
fn network_holder() -> Option<u32> {
    let (ip, port) = (NETWORK_LOCK.ip(), NETWORK_LOCK.port());
    let address = format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets()));
    let list = fs::read_to_string("/proc/thread-self/net/udp").ok()?;
    let mut sockets = list.lines().map(|line| line.split_ascii_whitespace());
    let mut line = sockets.find(|line| line.clone().nth(1) == Some(&address))?;
    let inode = line.nth(9)?.parse().ok()?;
    Some(sockets::owner(inode)?.pid)
}

fn locked(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The remedy when there are two.
const ALONE: &str = "stop it; to run beside it, this one needs a network namespace, --state-dir, --bpffs, --cgroup, --pool \
     and --socket of its own";

/// An address that nobody uses, and a port that nobody but root may take.
const NETWORK_LOCK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 108, 98, 1), 1);

#[cfg(test)]
mod tests {
    use std::{process, thread};

    use caps::{CapSet, Capability};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_network_namespace_is_locked_for_one_agent_and_by_nobody_who_is_not_root() {
        // Namespaces and rights belong to a thread.
        let alone = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let lock = lock_network().unwrap();
            let refused = format!("{:#}", lock_network().map(drop).unwrap_err());
            for word in [process::id().to_string(), "127.108.98.1:1".to_owned()] {
                assert!(refused.contains(&word), "{refused}");
            }
            drop(lock);
            drop(lock_network().unwrap());
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE).unwrap();
            let refused = format!("{:#}", lock_network().map(drop).unwrap_err());
            assert!(refused.contains("CAP_NET_BIND_SERVICE"), "{refused}");
        });
        alone.join().unwrap();
    }
}
