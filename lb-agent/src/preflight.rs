//! What must hold before the agent touches anything: each failure is one message with the remedy.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        statfs::{FsType, statfs},
        utsname::uname,
    },
};

/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPFFS: FsType = FsType(0xcafe_4a11);

/// The oldest kernel that lets a connect hook choose the error (`bpf_set_retval`).
const OLDEST_KERNEL: (u32, u32) = (5, 18);

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

/// Refuses to start without the rights that loading and attaching need.
pub(crate) fn privileges() -> Result<()> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) && has(Capability::CAP_NET_ADMIN) {
        return Ok(());
    }
    let needed = [
        (Capability::CAP_BPF, "CAP_BPF"),
        (Capability::CAP_PERFMON, "CAP_PERFMON"),
        (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    ];
    let missing: Vec<_> = needed
        .iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|&(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "too few privileges: {} missing; run it as root, or give the container BPF, PERFMON and NET_ADMIN \
         (on kernels or engines without them SYS_ADMIN and NET_ADMIN)",
        missing.join(", ")
    )
}

/// Makes sure that `folder` is a bpffs; mounts one where there is none.
pub(crate) fn bpffs(folder: &Path) -> Result<()> {
    let kind = statfs(folder)
        .with_context(|| format!("cannot use {} for pins; correct --bpffs", folder.display()))?
        .filesystem_type();
    if kind == BPFFS {
        return Ok(());
    }
    mount(
        Some("bpf"),
        folder,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| {
        let folder = folder.display();
        format!("{folder} is no bpffs and mounting one failed; run: mount -t bpf bpf {folder}")
    })?;
    tracing::info!(folder = %folder.display(), "mounted a bpffs");
    Ok(())
}

/// The right to write to a directory and what belongs to it, held until dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Locks `folder` for this agent; it is made if it is missing.
///
/// # Errors
/// When another agent holds it.
pub(crate) fn lock(folder: &Path) -> Result<Lock> {
    fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot create the state directory {}; correct --state-dir",
            folder.display()
        )
    })?;
    let path: PathBuf = folder.join("agent.lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another agent (process {}) works with {}; stop it, or give this one another --state-dir, \
                 --bpffs, --cgroup and --pool",
                if holder.trim().is_empty() {
                    "unknown"
                } else {
                    holder.trim()
                },
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    // For the message above; the lock itself is the kernel's and goes with the process.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .context("cannot write the lock file")?;
    writeln!(file, "{}", std::process::id()).context("cannot write the lock file")?;
    Ok(Lock { _file: file })
}
